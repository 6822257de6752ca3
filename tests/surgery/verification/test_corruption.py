"""What is wrong in a grown model is found, and named: the layer, and the tensor."""

import json
import shutil
from dataclasses import replace

import pytest
import safetensors.torch
import torch
from tiny_families import TEXT, change_tensor, grown

from veche.cli.verify import fault
from veche.core.errors import CheckpointError
from veche.surgery.verification.hashes import verify_hashes
from veche.surgery.verification.verify import VerifySettings, verify

LONG = VerifySettings(num_windows=2, window_tokens=64, fp32_tokens=64, form="long")
SHORT = replace(LONG, form="short")
CHANGES = {
    "moe_intermediate_size": 32,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "num_hidden_layers": 4,
}
LAYER, EXPERTS = "model.layers.1", "model.layers.1.mlp.experts"
"""Layer 1 of four is the source's layer 0 once more, silent; layers 2 and 3 are its 1 and 2."""


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Return a grown model in each layout of files, with its source and plan."""
    made = {}
    for layout in ("one by one", "fused"):
        folder = tmp_path_factory.mktemp("models")
        made[layout] = grown(folder, "qwen2_moe", CHANGES, fused=layout == "fused")
    return made


@pytest.fixture
def copied(models, tmp_path):
    """Return a copy of the grown model that may be damaged."""

    def copy(layout="one by one"):
        source, target, plan = models[layout]
        shutil.copytree(target, tmp_path / "grown")
        return source, tmp_path / "grown", plan

    return copy


def scaled(index):
    def change(tensor):
        tensor[index] *= 1.25
        return tensor

    return change


def set_to(index, value):
    def change(tensor):
        tensor[index] = value
        return tensor

    return change


CORRUPTIONS = {
    "expert's down": ("one by one", "model.layers.2.mlp.experts.4.down_proj.weight", 0),
    "expert's gate": ("one by one", "model.layers.3.mlp.experts.1.gate_proj.weight", 3),
    "fused down": ("fused", "model.layers.2.mlp.experts.down_proj", (4, 0)),
    "fused gate_up": ("fused", "model.layers.0.mlp.experts.gate_up_proj", (6, 12)),
    "shared expert": ("one by one", "model.layers.2.mlp.shared_expert.up_proj.weight", 7),
    "shared router": ("one by one", "model.layers.2.mlp.shared_expert_gate.weight", 0),
    "k_proj": ("one by one", "model.layers.2.self_attn.k_proj.weight", 9),
    "q bias": ("fused", "model.layers.3.self_attn.q_proj.bias", 2),
    "o_proj": ("one by one", "model.layers.0.self_attn.o_proj.weight", 5),
    "router": ("one by one", "model.layers.2.mlp.gate.weight", 3),
    "layer's norm": ("one by one", "model.layers.3.input_layernorm.weight", 1),
    "final norm": ("one by one", "model.norm.weight", 31),
    "embedding": ("one by one", "model.embed_tokens.weight", slice(100, 384)),
    "lm_head": ("one by one", "lm_head.weight", 17),
}


def part_of(name):
    """Return what `veche verify` calls the layer of a tensor."""
    is_in_layer = name.startswith("model.layers.")
    return ".".join(name.split(".")[:3]) if is_in_layer else name.removesuffix(".weight")


@pytest.mark.parametrize(("layout", "name", "index"), CORRUPTIONS.values(), ids=CORRUPTIONS)
def test_a_scaled_tensor_is_named_with_its_layer(copied, layout, name, index):
    source, target, plan = copied(layout)
    assert safetensors.torch.load_file(target / "model.safetensors")[name][index].any()
    change_tensor(target, name, scaled(index))
    figures = verify(source, target, plan, TEXT, settings=LONG)
    assert not figures.passed
    assert [layer.name for layer in figures.failed_layers] == [part_of(name)]
    assert [each.name for each in figures.differences] == [name]
    before = safetensors.torch.load_file(target / "model.safetensors")[name]
    assert 0 < figures.differences[0].num_different <= before[index].numel()
    assert figures.differences[0].num_elements == before.numel()
    assert name in fault(figures)
    assert part_of(name) in fault(figures)


@pytest.mark.parametrize("name", [CORRUPTIONS["k_proj"][1], CORRUPTIONS["lm_head"][1]])
def test_the_short_form_fails_too_and_names_the_tensor(copied, name):
    source, target, plan = copied()
    change_tensor(target, name, scaled(3))
    figures = verify(source, target, plan, TEXT, settings=SHORT)
    assert not figures.passed
    assert [each.name for each in figures.differences] == [name]


def test_a_silent_layer_that_speaks_is_found(copied):
    """Layer 1 is new: it must leave the residual stream as it is."""
    source, target, plan = copied()
    name = f"{LAYER}.self_attn.o_proj.weight"
    assert not safetensors.torch.load_file(target / "model.safetensors")[name].any()
    change_tensor(target, name, set_to((0, 0), 0.01))
    figures = verify(source, target, plan, TEXT, settings=LONG)
    assert [layer.name for layer in figures.failed_layers] == [LAYER]
    assert figures.failed_layers[0].is_new
    assert figures.differences[0].name == name
    assert figures.differences[0].num_different == 1


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("model.layers.2.self_attn.q_proj.weight", (3, 3)),
        ("lm_head.weight", (200, 1)),
        # The rest of a silent layer: its o_proj and down are zero, and 0 · NaN is NaN.
        (f"{EXPERTS}.2.up_proj.weight", (1, 1)),
    ],
)
def test_what_is_no_number_is_named(copied, name, index, value):
    source, target, plan = copied()
    change_tensor(target, name, set_to(index, value))
    figures = verify(source, target, plan, TEXT, settings=LONG)
    assert not figures.passed
    assert figures.not_finite == (name,)
    assert [(each.name, each.num_different) for each in figures.differences] == [(name, 1)]
    assert "holds what is no number" in fault(figures)
    json.loads(json.dumps(figures.as_dict(), allow_nan=False))


def test_a_nan_that_no_token_meets_is_found_all_the_same(copied):
    """With one short window most experts are reached by nobody."""
    source, target, plan = copied()
    name = "model.layers.2.mlp.experts.{}.up_proj.weight"
    few = replace(LONG, num_windows=1, window_tokens=2, fp32_tokens=2)
    before = verify(source, target, plan, TEXT, settings=few)
    layer = next(layer for layer in before.layers if layer.name == "model.layers.2")
    assert before.passed
    assert layer.num_unreached_experts > 0
    was_met = []
    for expert in range(8):
        kept = safetensors.torch.load_file(target / "model.safetensors")[name.format(expert)]
        change_tensor(target, name.format(expert), set_to((0, 0), float("nan")))
        figures = verify(source, target, plan, TEXT, settings=few)
        assert not figures.passed
        assert figures.not_finite == (name.format(expert),)
        was_met.append(bool(figures.failed_layers))
        change_tensor(target, name.format(expert), lambda _, kept=kept: kept)
    assert was_met.count(False) == layer.num_unreached_experts


def test_a_source_that_holds_no_number_is_refused(models, tmp_path):
    source, target, plan = models["one by one"]
    shutil.copytree(source, tmp_path / "source")
    change_tensor(tmp_path / "source", "model.norm.weight", set_to(0, float("nan")))
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight holds a value that is not"):
        verify(tmp_path / "source", target, plan, TEXT, settings=LONG)


@pytest.mark.parametrize(
    ("name", "index"),
    [
        # A row of the embedding whose token does not occur in the text.
        ("model.embed_tokens.weight", (2, 0)),
        # The input of a new unit, which is silent.
        ("model.layers.2.mlp.experts.0.gate_proj.weight", (30, 0)),
    ],
)
def test_what_no_token_can_show_is_seen_by_the_hashes(copied, name, index):
    source, target, plan = copied()

    def flip(tensor):
        tensor.view(torch.int16)[index] ^= 1
        return tensor

    assert verify_hashes(target, source).passed
    change_tensor(target, name, flip)
    assert verify(source, target, plan, TEXT, settings=LONG).passed
    report = verify_hashes(target, source)
    assert not report.passed
    assert report.target.changed == ("model.safetensors",)


def test_a_missing_tensor_is_named(copied):
    source, target, plan = copied()
    file = target / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    del tensors["model.norm.weight"]
    safetensors.torch.save_file(tensors, file, metadata={"format": "pt"})
    for settings in (LONG, SHORT):
        with pytest.raises(CheckpointError, match=r"model\.norm\.weight"):
            verify(source, target, plan, TEXT, settings=settings)
