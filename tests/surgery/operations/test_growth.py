"""Growing keeps the function: against transformers' own forward pass, in every mode."""

import numpy as np
import pytest
import torch
from tiny_models import tiny_mixtral, tiny_qwen3_moe
from transformers import AutoModelForCausalLM

from veche.planning.planner import make_plan
from veche.planning.recipe import Recipe
from veche.surgery.build import build
from veche.surgery.operations.randomness import split_in_two, stream, words

GROWTHS = {
    "width": {"moe_intermediate_size": 32},
    "width-more-than-twice": {"moe_intermediate_size": 60},
    "heads": {"num_attention_heads": 6, "num_key_value_heads": 2},
    "heads-and-kv": {"num_attention_heads": 6, "num_key_value_heads": 6},
    "kv-alone": {"num_key_value_heads": 4},
    "both": {
        "moe_intermediate_size": 32,
        "num_attention_heads": 12,
        "num_key_value_heads": 6,
    },
}
MAKERS = {"qwen3_moe": tiny_qwen3_moe, "mixtral": tiny_mixtral}


def logits_of(folder, dtype=torch.float32):
    model, info = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, output_loading_info=True
    )
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokens = torch.arange(3, 83).reshape(2, 40)
    with torch.inference_mode():
        return model(input_ids=tokens).logits.float()


def grown(source, target, fields, mode, **choices):
    recipe = Recipe(name="test", base=str(source), mode=mode, fields=fields, **choices)
    plan = make_plan(recipe)
    build(plan, source, target)
    return plan


@pytest.fixture(scope="module", params=MAKERS)
def source(request, tmp_path_factory):
    return MAKERS[request.param](tmp_path_factory.mktemp(request.param) / "source")


@pytest.mark.parametrize("mode", ["zero", "split"])
@pytest.mark.parametrize("fields", GROWTHS.values(), ids=GROWTHS)
def test_growth_keeps_every_logit(source, tmp_path, fields, mode):
    grown(source, tmp_path / "grown", fields, mode)
    before, after = logits_of(source), logits_of(tmp_path / "grown")
    assert (after - before).abs().max() <= 1e-5 * before.abs().max()


def test_appending_heads_naively_would_have_changed_the_function(source, tmp_path):
    """The tolerance of the test above is not so wide that a wrong layout would pass."""
    import safetensors.numpy

    folder = tmp_path / "grown"
    grown(source, folder, GROWTHS["heads-and-kv"], "zero")
    file = folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(file)
    for name, value in tensors.items():
        if name.endswith("k_proj.weight"):
            tensors[name] = np.roll(value.reshape(6, 8, -1), 1, axis=0).reshape(value.shape)
    safetensors.numpy.save_file(tensors, file, metadata={"format": "pt"})
    before, after = logits_of(source), logits_of(folder)
    assert (after - before).abs().max() > 1e-3 * before.abs().max()


@pytest.mark.parametrize("mode", ["zero", "split"])
def test_new_capacity_can_learn(source, tmp_path, mode):
    """Every new unit and head gets a gradient: directly, or as soon as its partner moved."""
    grown(source, tmp_path / "grown", GROWTHS["both"], mode)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "grown", dtype=torch.float32)
    tokens = torch.arange(3, 83).reshape(2, 40)
    model(input_ids=tokens, labels=tokens).loss.backward()
    layer = model.model.layers[1]
    assert (layer.self_attn.o_proj.weight.grad.abs().sum(0) > 0).all()
    down = layer.mlp.experts.down_proj.grad
    used = down.abs().sum((1, 2)) > 0
    assert used.any()
    assert (down[used].abs().sum(1) > 0).all()


def test_the_same_seed_gives_the_same_bytes(source, tmp_path):
    for name in ("a", "b"):
        grown(source, tmp_path / name, GROWTHS["both"], "split", seed=3)
    grown(source, tmp_path / "c", GROWTHS["both"], "split", seed=4)
    first, second, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert first == second
    assert first != other


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_split_halves_add_up_bit_for_bit(dtype):
    import ml_dtypes

    dtype = np.dtype(getattr(ml_dtypes, dtype, None) or dtype)
    rng = np.random.default_rng(0)
    values = (rng.standard_normal(50_000) * 10.0 ** rng.integers(-7, 4, 50_000)).astype(dtype)
    values = values[np.isfinite(values.astype(np.float64))]
    random = words(np.arange(len(values)), 1, 0, "test")[:, 0]
    first, second = split_in_two(values, random)
    assert (first + second == values).all()
    assert (first.astype(np.float64) + second.astype(np.float64) == values.astype(np.float64)).all()
    assert (first != second).mean() > 0.9


def test_a_stream_depends_on_its_name_alone():
    a, b = stream(1, "layer", 2), stream(1, "layer", 2)
    assert (a.random(5) == b.random(5)).all()
    assert not (stream(1, "layer", 2).random(5) == stream(1, "layer", 3).random(5)).any()
    assert not (stream(1, "layer", 2).random(5) == stream(2, "layer", 2).random(5)).any()
