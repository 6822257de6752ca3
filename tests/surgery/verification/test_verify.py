"""Verification: its measures against slow references, and what it finds."""

import json
import math

import pytest
import torch
from tiny_models import tiny_mixtral, tiny_qwen3_moe
from transformers import AutoModelForCausalLM

from veche.core.errors import CheckpointError, InputError
from veche.planning.planner import make_plan
from veche.planning.recipe import Recipe
from veche.surgery.build import build
from veche.surgery.verification.compare import Comparison, kl, nll, top1_agreement, windows
from veche.surgery.verification.verify import VerifySettings, verify

TEXT = "the council hears every voice, and the answer is four. совет слышит каждый голос. " * 8
SETTINGS = VerifySettings(num_windows=2, window_tokens=64, fp32_tokens=64)


def test_measures_equal_their_definitions_summed_by_hand():
    torch.manual_seed(0)
    p, q = torch.randn(5, 7, dtype=torch.float64), torch.randn(5, 7, dtype=torch.float64)
    targets = torch.tensor([0, 6, 3, 3, 1])
    slow_kl = slow_nll = same = 0.0
    for row in range(5):
        weights_p = [math.exp(v) for v in p[row].tolist()]
        weights_q = [math.exp(v) for v in q[row].tolist()]
        probs_p = [w / sum(weights_p) for w in weights_p]
        probs_q = [w / sum(weights_q) for w in weights_q]
        slow_kl += sum(a * math.log(a / b) for a, b in zip(probs_p, probs_q, strict=True)) / 5
        slow_nll += -math.log(probs_p[targets[row]]) / 5
        same += (probs_p.index(max(probs_p)) == probs_q.index(max(probs_q))) / 5
    assert float(kl(p, q).mean()) == pytest.approx(slow_kl, rel=1e-5)
    assert nll(p, targets) == pytest.approx(slow_nll, rel=1e-5)
    assert top1_agreement(p, q) == pytest.approx(same)
    assert float(kl(p, p).mean()) == pytest.approx(0, abs=1e-12)


def test_a_comparison_of_windows_is_that_of_their_union():
    torch.manual_seed(1)
    p, q, tokens = torch.randn(3, 9, 11), torch.randn(3, 9, 11), torch.randint(11, (3, 9))
    total = Comparison()
    for window in range(3):
        total.add(p[window], q[window], tokens[window])
    flat_p, flat_q = p[:, :-1].reshape(-1, 11), q[:, :-1].reshape(-1, 11)
    assert total.num_tokens == 24
    assert total.kl == pytest.approx(float(kl(flat_p, flat_q).mean()), rel=1e-5)
    spread = float(kl(flat_p, flat_q).std(correction=0)) / 24**0.5
    assert total.kl_standard_error == pytest.approx(spread, rel=1e-6)
    assert total.nll_q == pytest.approx(nll(flat_q, tokens[:, 1:].reshape(-1)), rel=1e-5)
    assert total.max_abs_diff == pytest.approx(float((flat_p - flat_q).abs().max()))


@pytest.mark.parametrize(("length", "shape"), [(5, (1, 5)), (12, (1, 10)), (100, (4, 10))])
def test_windows_lie_inside_the_text(length, shape):
    cut = windows(list(range(length)), num_windows=4, window_tokens=10)
    assert cut.shape == shape
    assert (cut[:, 1:] - cut[:, :-1] == 1).all()
    assert cut.max() < length


def grown(tmp_path, maker, fields, **config):
    """Grow a tiny model in bfloat16, as real checkpoints are."""
    source = maker(tmp_path / "source", **config)
    AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16).save_pretrained(source)
    assert json.loads((source / "config.json").read_text()).get("veche") == config.get("veche")
    recipe = Recipe(name="t", base=str(source), fields=fields, allow_lossy=True)
    plan = make_plan(recipe)
    build(plan, source, tmp_path / "grown")
    return source, tmp_path / "grown", plan


@pytest.mark.parametrize("maker", [tiny_mixtral, tiny_qwen3_moe])
def test_a_good_growth_passes_and_its_dials_are_measured(tmp_path, maker):
    fields = {
        "moe_intermediate_size": 32,
        "num_attention_heads": 6,
        "num_key_value_heads": 6,
        "num_experts_per_tok": 2,
        "rope_theta": {"value": "x2", "apply": False},
    }
    figures = verify(*grown(tmp_path, maker, fields), TEXT, settings=SETTINGS)
    assert figures.exact.passed
    assert figures.exact.kl <= figures.exact.floor_kl
    dials = {dial.name: dial for dial in figures.dials}
    assert set(dials) == {"num_experts_per_tok", "rope_theta"}
    # The only lossy change that was carried out is top-k: the whole recipe is that dial.
    assert figures.whole.kl == pytest.approx(dials["num_experts_per_tok"].kl, rel=0.1)
    assert dials["rope_theta"].kl > 10 * figures.exact.kl


@pytest.mark.parametrize("field", [{"norm_topk_prob": False}, {"rms_norm_eps": 1e-3}])
def test_a_lossy_field_is_a_dial_and_no_error_of_the_growth(tmp_path, field):
    fields = {"moe_intermediate_size": 32, **field}
    figures = verify(*grown(tmp_path, tiny_qwen3_moe, fields), TEXT, settings=SETTINGS)
    assert figures.exact.passed
    assert [dial.name for dial in figures.dials] == list(field)
    assert figures.whole.kl == pytest.approx(figures.dials[0].kl, rel=0.1)


@pytest.mark.parametrize("top_k", [4, 6], ids=["exact gain", "rounded gain"])
def test_the_gain_of_a_carved_model_is_not_mistaken_for_an_error(tmp_path, top_k):
    fields = {"num_experts_per_tok": top_k, "moe_intermediate_size": 32}
    note = {"carved": {"equal_routing_weights": True}}
    source, target, plan = grown(tmp_path, tiny_mixtral, fields, veche=note, num_experts_per_tok=8)
    assert "expert_gain" in plan.operations
    assert verify(source, target, plan, TEXT, settings=SETTINGS).exact.passed


def test_a_corrupted_tensor_fails_the_exact_part(tmp_path):
    import safetensors.torch

    source, target, plan = grown(tmp_path, tiny_mixtral, {"moe_intermediate_size": 32})
    file = target / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    tensors["model.layers.1.self_attn.v_proj.weight"][0] *= 1.5
    safetensors.torch.save_file(tensors, file, metadata={"format": "pt"})
    figures = verify(source, target, plan, TEXT, settings=SETTINGS)
    assert not figures.exact.passed


def test_a_missing_tensor_is_named(tmp_path):
    import safetensors.torch

    source, target, plan = grown(tmp_path, tiny_mixtral, {"moe_intermediate_size": 32})
    file = target / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    del tensors["model.norm.weight"]
    safetensors.torch.save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight"):
        verify(source, target, plan, TEXT, settings=SETTINGS)


def test_too_short_a_text_is_refused(tmp_path):
    source, target, plan = grown(tmp_path, tiny_mixtral, {"moe_intermediate_size": 32})
    with pytest.raises(InputError, match="too few"):
        verify(source, target, plan, "word", settings=SETTINGS)
