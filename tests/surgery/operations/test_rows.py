"""Any rows of a grown tensor, in any order, are the rows of the whole: against whole arrays."""

from dataclasses import replace
from statistics import NormalDist

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from veche.checkpoint.config import spec_of
from veche.checkpoint.families import TensorKind, role_of
from veche.core.errors import CheckpointError
from veche.plugins.registry import load, names
from veche.surgery.grow import shape_of
from veche.surgery.operations.lazy import from_array, from_file
from veche.surgery.operations.operation import Growth
from veche.surgery.operations.randomness import gaussian, split_in_two, words

BF16 = np.dtype(ml_dtypes.bfloat16)
SPEC = spec_of(
    {
        "model_type": "qwen2_moe", "hidden_size": 24, "num_hidden_layers": 3, "vocab_size": 50,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 20,
        "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 12, "mlp_only_layers": [0],
        "tie_word_embeddings": True,
    }
)  # fmt: skip
LARGER = {
    "attention_heads": {"num_attention_heads": 6, "num_key_value_heads": 6},
    "expert_width": {"moe_intermediate_size": 40},
    "shared_expert_width": {"shared_expert_intermediate_size": 20},
    "dense_width": {"intermediate_size": 44},
    "experts": {"num_experts": 12, "num_experts_per_tok": 6},
    "depth": {"num_hidden_layers": 5},
    "untie": {"tie_word_embeddings": False},
}
EXPERT = "mlp.experts.3"
NAMES = {
    "attention_heads": (
        "self_attn.q_proj.weight",
        "self_attn.q_proj.bias",
        "self_attn.k_proj.weight",
        "self_attn.o_proj.weight",
    ),
    "expert_width": (
        f"{EXPERT}.gate_proj.weight",
        f"{EXPERT}.up_proj.weight",
        f"{EXPERT}.down_proj.weight",
        "mlp.experts.gate_up_proj",
        "mlp.experts.down_proj",
    ),
    "shared_expert_width": (
        "mlp.shared_expert.up_proj.weight",
        "mlp.shared_expert.down_proj.weight",
    ),
    "dense_width": ("mlp.gate_proj.weight", "mlp.down_proj.weight"),
    "experts": (
        "mlp.gate.weight",
        f"{EXPERT}.down_proj.weight",
        "mlp.experts.down_proj",
        "mlp.experts.gate_up_proj",
    ),
    "depth": ("self_attn.o_proj.weight", f"{EXPERT}.down_proj.weight"),
}
CASES = [(operation, name) for operation, group in NAMES.items() for name in group]


def growth_of(operation, mode="split", seed=0):
    target = replace(SPEC, **LARGER[operation])
    return Growth(base=SPEC, target=target, mode=mode, seed=seed)


def some_array(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(BF16)


def grown(operation, name, values, mode="split", seed=0):
    """Return what an operation makes of a layer's tensor, by role."""
    role = role_of(f"model.layers.1.{name}", SPEC.family)
    loaded, growth = load("operations", operation), growth_of(operation, mode, seed)
    change = loaded.transforms.get(role.kind)
    return {
        place: change(from_array(values), place, growth) if change else from_array(values)
        for place in loaded.places(role, growth)
    }


@pytest.mark.parametrize("mode", ["zero", "split"])
@pytest.mark.parametrize(("operation", "name"), CASES)
@given(data=st.data())
def test_rows_do_not_depend_on_the_rows_asked_with_them(operation, name, mode, data):
    role = role_of(f"model.layers.1.{name}", SPEC.family)
    values = some_array(shape_of(role, SPEC))
    for place, tensor in grown(operation, name, values, mode).items():
        whole = tensor.whole()
        expected = shape_of(place, growth_of(operation).target)
        assert whole.size == np.prod(expected)
        rows = np.array(
            data.draw(st.lists(st.integers(0, tensor.num_rows - 1), min_size=1, max_size=9))
        )
        assert (tensor.take(rows).view(np.uint16) == whole[rows].view(np.uint16)).all()
        chunks = b"".join(bytes(chunk) for chunk in tensor.chunks())
        assert chunks == whole.tobytes()


@pytest.mark.parametrize("mode", ["zero", "split"])
def test_fused_and_separate_experts_grow_alike(mode):
    gate, up = some_array((4, 16, 24), 1), some_array((4, 16, 24), 2)
    down = some_array((4, 24, 16), 3)
    fused = np.concatenate([gate, up], axis=1)
    for operation in ("expert_width", "experts"):
        target = growth_of(operation).target
        count, width = target.num_experts, target.moe_intermediate_size
        (gate_up,) = grown(operation, "mlp.experts.gate_up_proj", fused, mode).values()
        (downs,) = grown(operation, "mlp.experts.down_proj", down, mode).values()
        gate_up = gate_up.whole().reshape(count, 2, width, 24)
        downs = downs.whole().reshape(count, 24, width)
        for expert in range(4):
            for part, values, made in (
                ("gate", gate[expert], gate_up[:, 0]),
                ("up", up[expert], gate_up[:, 1]),
                ("down", down[expert], downs),
            ):
                name = f"mlp.experts.{expert}.{part}_proj.weight"
                for place, tensor in grown(operation, name, values, mode).items():
                    assert (tensor.whole() == made[place.expert]).all(), (operation, name)


def test_copies_of_an_expert_share_its_output_bit_for_bit():
    down = some_array((24, 16))
    copies = grown("experts", "mlp.experts.1.down_proj.weight", down)
    assert [place.expert for place in copies] == [1, 5, 9]
    first, second, third = (tensor.whole().astype(np.float64) for tensor in copies.values())
    assert (first + second == 2 * down.astype(np.float64)).all()
    assert (first != second).mean() > 0.9
    assert (third == down.astype(np.float64)).all()


def test_every_new_layer_is_silent_and_every_old_one_itself():
    values = some_array((24, 32))
    places = grown("depth", "self_attn.o_proj.weight", values)
    record = load("operations", "depth").record(growth_of("depth"))
    assert record["layers"]["source"] == [0, 0, 1, 1, 2]
    assert {place.layer for place in places} == {2, 3}
    for place, tensor in places.items():
        is_new = place.layer in record["layers"]["new"]
        assert (tensor.whole() == (np.zeros_like(values) if is_new else values)).all()


@pytest.mark.parametrize("operation", LARGER)
def test_the_record_names_what_is_new(operation):
    record = load("operations", operation).record(growth_of(operation, "zero"))
    assert record["how"]
    if operation == "attention_heads":
        heads = record["query_heads"]
        assert len(heads["source"]) == 6
        assert heads["new"] == [i for i, source in enumerate(heads["source"]) if source is None]
        assert record["key_value_heads"]["source"] == [0, 0, 0, 1, 1, 1]
    if operation == "experts":
        assert record["experts"]["new"] == [4, 5, 6, 7, 8, 9, 10, 11]


def test_every_operation_has_a_law_a_source_and_a_rule():
    found = names("operations")
    assert set(LARGER) | {"upcycle", "expert_gain"} <= set(found)
    for name in found:
        operation = load("operations", name)
        assert operation.name == name
        assert operation.law
        assert operation.feasibility
        assert operation.reference_url.startswith("https://arxiv.org/abs/")


@given(
    st.lists(st.integers(0, 5000), min_size=1, max_size=40),
    st.sampled_from([1, 3, 64, 1000, 300_000]),
)
def test_words_of_a_row_are_its_own(rows, num_columns):
    rows = np.array(rows[: max(1, 200_000 // num_columns)])
    together = words(rows, num_columns, 7, "a")
    for position, row in enumerate(rows[:5]):
        assert (words(np.array([row]), num_columns, 7, "a")[0] == together[position]).all()
    assert not (together == words(rows, num_columns, 8, "a")).all() or together.size < 4


def test_words_are_uniform_and_quantiles_normal():
    random = words(np.arange(500), 2000, 0, "uniform")
    counts = np.bincount(random.ravel() >> 8, minlength=256)
    expected = random.size / 256
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < 255 + 5 * (2 * 255) ** 0.5
    normal = np.sort(gaussian(random, 3.0, np.dtype(np.float32)).ravel())
    shares = (np.arange(len(normal)) + 0.5) / len(normal)
    wanted = np.array([NormalDist(0, 3).cdf(float(x)) for x in normal[::997]])
    assert np.abs(wanted - shares[::997]).max() < 2 / len(normal) ** 0.5
    assert abs(normal.std() / 3 - 1) < 5e-3


def test_halves_are_between_half_and_whole():
    values = some_array(20_000)
    random = words(np.arange(20_000), 1, 0, "halves")[:, 0]
    first, second = (each.astype(np.float64) for each in split_in_two(values, random))
    larger = np.maximum(np.abs(first), np.abs(second))
    whole = np.abs(values.astype(np.float64))
    assert (larger >= whole / 2).all()
    assert (larger <= whole).all()
    assert 0.45 < (np.abs(first) > np.abs(second)).mean() < 0.55


def test_a_tensor_in_a_file_is_read_by_rows(tmp_path):
    import safetensors.numpy

    from veche.checkpoint.header import read_header

    values = np.random.default_rng(0).standard_normal((7, 5, 3)).astype(np.float32)
    file = tmp_path / "model.safetensors"
    safetensors.numpy.save_file({"a": np.zeros(3, np.float32), "b": values}, file)
    tensor = from_file(read_header(file)["b"])
    assert (tensor.num_rows, tensor.num_columns) == (35, 3)
    rows = np.array([34, 0, 1, 2, 20, 20, 5])
    assert (tensor.take(rows) == values.reshape(35, 3)[rows]).all()
    assert tensor.take(np.array([], np.int64)).shape == (0, 3)


def test_new_units_beside_nan_are_refused_by_name():
    values = some_array((16, 24))
    values[:] = np.nan
    (tensor,) = grown("expert_width", "mlp.experts.0.up_proj.weight", values, "zero").values()
    with pytest.raises(CheckpointError, match=r"experts\.0\.up_proj\.weight.*NaN"):
        tensor.whole()


def test_every_kind_of_tensor_has_a_shape_in_every_step():
    kinds = {kind for name in names("operations") for kind in load("operations", name).transforms}
    assert all(shape_of(replace_kind(kind), SPEC) is not None for kind in kinds)


def replace_kind(kind):
    role = role_of("model.norm.weight", SPEC.family)
    return replace(role, kind=TensorKind(kind))
