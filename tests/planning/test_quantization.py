"""Weights against the publishers' own files and against counting by hand."""

from collections import Counter
from dataclasses import replace

import pytest
from tests.launch.models import DENSE, GIB, MIXTRAL, STOCK, WANTED

from veche.checkpoint.families import TensorKind as Kind
from veche.core.errors import InputError
from veche.launch.recommend import WEIGHT_LOSS
from veche.planning.accounting import parameter_groups
from veche.planning.gguf_types import gguf_metadata_bytes, gguf_type
from veche.planning.quantization import QUANTIZATIONS, quantization, weight_bytes, weights_by_kind
from veche.planning.tensors import Matrix, matrices_of

QWEN_METADATA_BYTES = 5_969_408


@pytest.mark.parametrize("spec", [STOCK, WANTED, MIXTRAL, DENSE])
def test_the_tensors_add_up_to_the_parameters(spec):
    assert sum(m.num_values for m in matrices_of(spec)) == parameter_groups(spec).total


def test_bf16_weights_are_those_of_the_meta_device():
    assert weight_bytes(STOCK, "bf16") == 61_064_245_248
    assert weight_bytes(WANTED, "bf16") == 81_398_231_040


def test_block_fp8_keeps_embeddings_head_router_and_norms_in_bf16():
    assert round(weight_bytes(STOCK, "fp8-block") / GIB, 2) == 29.03
    assert round(weight_bytes(WANTED, "fp8-block") / GIB, 2) == 38.50
    kinds, plain = weights_by_kind(STOCK, "fp8-block"), weights_by_kind(STOCK, "bf16")
    for kind in (Kind.EMBEDDING, Kind.LM_HEAD, Kind.ROUTER, Kind.NORM, Kind.QK_NORM):
        assert kinds[kind] == plain[kind]


@pytest.mark.parametrize(
    ("recipe", "file_bytes"), [("Q4_K_M", 18_556_685_824), ("Q8_0", 32_483_931_648)]
)
def test_gguf_files_of_qwen_are_exact_but_for_metadata(recipe, file_bytes):
    assert file_bytes - weight_bytes(STOCK, recipe) == QWEN_METADATA_BYTES
    assert abs(gguf_metadata_bytes(STOCK) - QWEN_METADATA_BYTES) < 5_000


def test_k_quant_layers_follow_use_more_bits():
    def down(layer):
        return Matrix(kind=Kind.EXPERT_DOWN, rows=2048, columns=768, layer=layer, is_down=True)

    raised = {i for i in range(48) if gguf_type(down(i), STOCK, "Q4_K_M") == "Q6_K"}
    assert raised == {i for i in range(48) if i < 6 or i >= 42 or (i - 6) % 3 == 2}


def _of(kind, layer, spec=STOCK, recipe="Q2_K", **more):
    matrix = Matrix(kind=kind, rows=2048, columns=2048, layer=layer, **more)
    return gguf_type(matrix, spec, recipe)


@pytest.mark.parametrize(
    ("recipe", "values", "shared_values", "first_down", "later_down", "output"),
    [
        # llama-quant.cpp, llama_tensor_get_type_impl, without an importance matrix
        ("Q2_K", "Q3_K", "Q4_K", "Q3_K", "Q3_K", "Q3_K"),
        ("Q2_K_S", "Q2_K", "Q4_K", "Q4_K", "Q2_K", "Q2_K"),
        ("Q3_K_S", "Q3_K", "Q3_K", "Q3_K", "Q3_K", "Q3_K"),
        ("Q3_K_L", "Q5_K", "Q5_K", "Q5_K", "Q5_K", "Q5_K"),
        ("IQ4_XS", "IQ4_XS", "Q5_K", "Q5_K", "IQ4_XS", "IQ4_XS"),
        ("IQ4_NL", "IQ4_NL", "Q5_K", "Q5_K", "IQ4_NL", "IQ4_NL"),
    ],
)
def test_low_bits_spare_what_is_shared_and_what_is_early(
    recipe, values, shared_values, first_down, later_down, output
):
    alone = replace(STOCK, num_key_value_heads=16)
    assert _of(Kind.V, 20, alone, recipe) == values
    assert _of(Kind.V, 20, STOCK, recipe) == shared_values
    assert _of(Kind.EXPERT_DOWN, 5, STOCK, recipe, is_down=True) == first_down
    assert _of(Kind.EXPERT_DOWN, 6, STOCK, recipe, is_down=True) == later_down
    assert _of(Kind.O, 20, STOCK, recipe) == output
    assert _of(Kind.LM_HEAD, None, STOCK, recipe) == "Q6_K"


def test_q3_k_m_gives_most_to_its_first_layers():
    downs = [_of(Kind.EXPERT_DOWN, i, recipe="Q3_K_M", is_down=True) for i in range(48)]
    assert downs == ["Q5_K"] * 3 + ["Q4_K"] * 45
    values = [_of(Kind.V, i, recipe="Q3_K_M") for i in range(48)]
    assert values == ["Q5_K"] * 2 + ["Q4_K"] * 46


def test_larger_recipes_are_larger_files():
    order = ["Q2_K_S", "Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "IQ4_XS", "Q4_K_M", "Q5_K_S",
             "Q5_K_M", "Q6_K", "Q8_0", "F16"]  # fmt: skip
    for spec in (STOCK, WANTED):
        sizes = [weight_bytes(spec, name) for name in order]
        assert sizes == sorted(sizes)


def test_every_quantisation_has_its_place_in_the_order_of_preference():
    assert set(WEIGHT_LOSS) == set(QUANTIZATIONS)


def test_rows_that_blocks_do_not_divide_fall_back_as_in_llama_cpp():
    odd = Matrix(kind=Kind.Q, rows=576, columns=576, layer=1)
    assert gguf_type(odd, DENSE, "Q4_K_M") == "Q5_0"
    for recipe, fallback in (("Q2_K", "Q4_0"), ("IQ4_XS", "IQ4_NL"), ("Q6_K", "Q8_0")):
        assert gguf_type(odd, DENSE, recipe) == fallback
    assert gguf_type(Matrix(kind=Kind.Q, rows=7, columns=7, layer=1), DENSE, "Q4_K_M") == "F16"


@pytest.mark.parametrize("name", [name for name, q in QUANTIZATIONS.items() if q.is_gguf])
def test_no_gguf_recipe_is_larger_than_f16(name):
    assert weight_bytes(MIXTRAL, name) <= weight_bytes(MIXTRAL, "F16")


def test_fewer_bits_need_fewer_bytes():
    names = ["bf16", "fp8-block", "nvfp4", "gptq-int4", "awq-int4"]
    sizes = [weight_bytes(WANTED, name) for name in names]
    assert sizes == sorted(sizes, reverse=True)


def test_a_misspelt_quantisation_names_the_nearest():
    assert quantization("q4_k_m").name == "Q4_K_M"
    with pytest.raises(InputError) as caught:
        quantization("Q4_K_N")
    assert "Q4_K_M" in caught.value.hint


@pytest.mark.parametrize(
    ("sizes", "gib", "types"),
    [
        # TinyLlama 1.1B, Mistral 7B, Qwen3 8B: GiB and types that llama.cpp prints of Q4_K_M
        ((2048, 22, 32, 4, 64, 5632, 32000), 0.6213, {"Q4_K": 135, "F32": 45, "Q6_K": 21}),
        ((4096, 32, 32, 8, 128, 14336, 32000), 4.07, {"Q4_K": 193, "F32": 65, "Q6_K": 33}),
        ((4096, 36, 32, 8, 128, 12288, 151936), 4.68, {"Q4_K": 217, "F32": 145, "Q6_K": 37}),
    ],
)
def test_dense_files_agree_with_what_llama_cpp_prints_of_them(sizes, gib, types):
    hidden, layers, heads, kv_heads, head_dim, width, vocab = sizes
    spec = replace(
        DENSE,
        model_type="qwen3" if vocab == 151936 else "llama",
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        intermediate_size=width,
        vocab_size=vocab,
        tie_word_embeddings=False,
    )
    assert weight_bytes(spec, "Q4_K_M") / GIB == pytest.approx(gib, abs=0.005)
    found: Counter[str] = Counter()
    for matrix in matrices_of(spec):
        found[gguf_type(matrix, spec, "Q4_K_M")] += matrix.count
    assert found == types
