"""Every dense family that is carved, against transformers' own forward."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import tiny_llama, tiny_qwen2, tiny_qwen3

from veche.checkpoint.reader import open_checkpoint, read_tensor
from veche.core.errors import RecipeError, UnsupportedError
from veche.planning.planner import make_plan
from veche.planning.recipe import load_recipe, with_choices
from veche.surgery.build import build
from veche.surgery.carving.calibration import calibration_text
from veche.surgery.carving.carve import CarveSettings, carve
from veche.surgery.loading import load_model, load_tokenizer

FAMILIES = {
    "llama": (tiny_llama, "MixtralForCausalLM"),
    "qwen2": (tiny_qwen2, "Qwen2MoeForCausalLM"),
    "qwen3": (tiny_qwen3, "Qwen3MoeForCausalLM"),
}
SETTINGS = CarveSettings(num_experts=8, calibration_tokens=512, check_tokens=64)
every_family = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    return {
        name: make(tmp_path_factory.mktemp(name), intermediate_size=192)
        for name, (make, _) in FAMILIES.items()
    }


@pytest.fixture(scope="module")
def carved(dense, tmp_path_factory):
    shelf = tmp_path_factory.mktemp("carved")
    for name, folder in dense.items():
        _carve(folder, shelf / name)
    return shelf


def _carve(source, target, settings=SETTINGS):
    return carve(source, target, settings, text=calibration_text()[:4000])


def _edit_config(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return folder


def _logits(folder, **changes):
    tokens = torch.arange(40)[None] * 7 % 384
    with torch.no_grad():
        return load_model(folder, changes=changes, dtype=torch.float32)(tokens).logits


def _assert_equal(expected, got, parts=1e-5):
    assert float((expected - got).abs().max()) <= parts * float(expected.abs().max())


@every_family
def test_with_every_expert_the_carved_model_is_the_dense_one(dense, carved, family):
    """`load_model` refuses missing, unexpected and mismatched keys."""
    model = load_model(carved / family)
    assert type(model).__name__ == FAMILIES[family][1]
    _assert_equal(_logits(dense[family]), _logits(carved / family))


@pytest.mark.parametrize("tied", [True, False])
@every_family
def test_in_bfloat16_tied_or_not(tmp_path, family, tied):
    """The dense one in bfloat16 is the source here; both are computed in float32."""
    make = FAMILIES[family][0]
    source = make(tmp_path / "dense", intermediate_size=192, tie_word_embeddings=tied)
    load_model(source, dtype=torch.bfloat16).save_pretrained(source)
    _carve(source, tmp_path / "out")
    assert load_model(tmp_path / "out").config.tie_word_embeddings is tied
    _assert_equal(_logits(source), _logits(tmp_path / "out"))


def test_a_qwen3_with_biases_in_attention_keeps_them(tmp_path):
    source = tiny_qwen3(tmp_path / "dense", intermediate_size=192, attention_bias=True)
    assert any(name.endswith("o_proj.bias") for name in open_checkpoint(source).tensors)
    _carve(source, tmp_path / "out")
    _assert_equal(_logits(source), _logits(tmp_path / "out"))


@every_family
def test_every_hidden_unit_is_in_exactly_one_place(dense, carved, family):
    before, after = open_checkpoint(dense[family]).tensors, open_checkpoint(carved / family).tensors
    gates = ("w1.weight", "gate_proj.weight")
    for layer in range(3):
        prefix = f"model.layers.{layer}."
        names = [name for name in after if name.startswith(prefix) and name.endswith(gates)]
        rows = [row.tobytes() for name in names for row in read_tensor(after[name])]
        wanted = read_tensor(before[f"{prefix}mlp.gate_proj.weight"])
        assert sorted(rows) == sorted(row.tobytes() for row in wanted)


def test_a_shared_expert_holds_units_of_the_dense_layer(dense, carved):
    """Twice `down` and a gate of sigmoid(0) = ½."""
    spec = open_checkpoint(carved / "qwen2").spec
    assert (spec.shared_expert_intermediate_size, spec.moe_intermediate_size) == (64, 16)
    tensors = open_checkpoint(carved / "qwen2").tensors
    assert not read_tensor(tensors["model.layers.0.mlp.shared_expert_gate.weight"]).any()
    shared = read_tensor(tensors["model.layers.0.mlp.shared_expert.gate_proj.weight"])
    shared_down = read_tensor(tensors["model.layers.0.mlp.shared_expert.down_proj.weight"])
    source = open_checkpoint(dense["qwen2"]).tensors
    rows = {row.tobytes(): i for i, row in enumerate(read_tensor(source[_mlp("gate")]))}
    units = [rows[row.tobytes()] for row in shared]
    assert np.array_equal(shared_down, 2 * read_tensor(source[_mlp("down")])[:, units])


def _mlp(projection):
    return f"model.layers.0.mlp.{projection}_proj.weight"


@every_family
def test_a_carved_model_can_be_planned_and_grown_with_another_k(dense, carved, tmp_path, family):
    """Six of eight experts of equal weights: each stays as loud as it was."""
    text = "name: fewer\nbase: x\nallow_lossy: true\nfields:\n  num_experts_per_tok: 6\n"
    (tmp_path / "fewer.yaml").write_text(text)
    recipe = load_recipe(str(tmp_path / "fewer.yaml"))
    plan = make_plan(with_choices(recipe, {"base": str(carved / family)}))
    assert open_checkpoint(carved / family).spec.has_equal_routing_weights
    build(plan, carved / family, tmp_path / "grown")
    six = CarveSettings(
        num_experts=8, num_experts_per_tok=6, calibration_tokens=512, check_tokens=0
    )
    _carve(dense[family], tmp_path / "six", six)
    _assert_equal(_logits(tmp_path / "six"), _logits(tmp_path / "grown"))


class TestRefit:
    SETTINGS = CarveSettings(
        num_experts=8, fit_experts_per_tok=4, calibration_tokens=2048, check_tokens=64, refit=True
    )

    @every_family
    def test_it_is_written_as_it_was_fitted_and_k_is_the_fits(self, dense, tmp_path, family):
        report = _carve(dense[family], tmp_path / "out", self.SETTINGS)
        assert report.equality.max_abs_logit_diff <= 2e-5 * report.equality.logit_scale
        config = json.loads((tmp_path / "out" / "config.json").read_text())
        assert config["num_experts_per_tok"] == 4
        assert config["veche"]["carved"]["refit"] is True

    def test_it_is_nearer_to_the_dense_model_at_its_k(self, dense, tmp_path):
        """On the text that it was fitted on."""
        plain = replace(self.SETTINGS, refit=False, num_experts_per_tok=4)
        for name, settings in {"plain": plain, "refit": self.SETTINGS}.items():
            _carve(dense["llama"], tmp_path / name, settings)
        exact = _calibration_logits(dense["llama"])
        error = {
            name: float((exact - _calibration_logits(tmp_path / name)).square().mean())
            for name in ("plain", "refit")
        }
        assert error["refit"] < 0.9 * error["plain"]

    def test_with_every_expert_it_is_not_the_dense_model(self, dense, tmp_path):
        """So it is never what one gets without asking."""
        _carve(dense["llama"], tmp_path / "out", replace(self.SETTINGS, num_experts_per_tok=8))
        exact, got = _logits(dense["llama"]), _logits(tmp_path / "out")
        assert float((exact - got).abs().max()) > 1e-3 * float(exact.abs().max())


def _calibration_logits(folder):
    text = calibration_text()[:1000]
    tokens = torch.tensor(load_tokenizer(folder)(text, add_special_tokens=False)["input_ids"])
    with torch.no_grad():
        return load_model(folder, dtype=torch.float32)(tokens[None, :512]).logits


class TestRefusals:
    def test_a_sliding_window(self, tmp_path):
        source = tiny_qwen3(tmp_path / "dense", intermediate_size=192)
        _edit_config(source, use_sliding_window=True, sliding_window=64, max_window_layers=1)
        with pytest.raises(UnsupportedError, match="slides"):
            _carve(source, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_sliding_layers(self, tmp_path):
        kinds = ["full_attention", "sliding_attention", "full_attention"]
        source = tiny_qwen2(
            tmp_path / "dense", intermediate_size=192, layer_types=kinds, use_sliding_window=True
        )
        with pytest.raises(UnsupportedError, match="slid"):
            _carve(source, tmp_path / "out")

    @pytest.mark.parametrize("num_experts", [24, 25])
    def test_experts_beside_which_nothing_is_left_to_share(self, dense, tmp_path, num_experts):
        """192 units: 24 experts of 8 leave none for the shared expert of Qwen2-MoE."""
        settings = CarveSettings(num_experts=num_experts, calibration_tokens=512)
        with pytest.raises(RecipeError, match="192 hidden units") as caught:
            _carve(dense["qwen2"], tmp_path / "out", settings)
        assert "nearest possible: 23" in caught.value.hint
