"""Verification: its measures against slow references, and what it finds."""

import json
import math

import pytest
import torch
from tiny_models import tiny_mixtral, tiny_qwen3_moe
from transformers import AutoModelForCausalLM

from veche.planning.planner import make_plan
from veche.planning.recipe import Recipe
from veche.surgery.build import build
from veche.surgery.verification.compare import (
    Comparison,
    PairSums,
    larger,
    largest,
    relative_error,
    windows,
)
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
    sums = summed(p, q, targets)
    assert float(sums.kl.mean()) == pytest.approx(slow_kl, rel=1e-12)
    assert float(sums.nll_p.mean()) == pytest.approx(slow_nll, rel=1e-12)
    assert float(sums.is_same.double().mean()) == pytest.approx(same)
    assert sums.max_abs_diff == pytest.approx(float((p - q).abs().max()))
    assert sums.scale == pytest.approx(float(p.abs().max()))
    assert torch.allclose(sums.relative_error, relative_error(q, p))
    assert float(summed(p, p, targets).kl.abs().max()) == 0


def summed(p, q, targets, cuts=()):
    """Sum over the vocabulary in parts that begin at `cuts`."""
    sums = PairSums(targets)
    starts = [0, *cuts]
    for first, last in zip(starts, [*starts[1:], p.shape[1]], strict=True):
        sums.add(p[:, first:last], q[:, first:last], first=first)
    return sums


@pytest.mark.parametrize("scale", [1.0, 80.0])
@pytest.mark.parametrize("cuts", [(1,), (5, 6), (3, 17, 29), tuple(range(1, 40))])
def test_a_vocabulary_in_parts_sums_to_the_whole(cuts, scale):
    torch.manual_seed(2)
    p = torch.randn(300, 40, dtype=torch.float64) * scale
    q, targets = p + torch.randn(300, 40), torch.randint(40, (300,))
    log_p, log_q = p.log_softmax(-1), q.log_softmax(-1)
    sums = summed(p, q, targets, cuts)
    assert torch.allclose(sums.kl, (log_p.exp() * (log_p - log_q)).sum(-1), rtol=1e-9, atol=1e-13)
    assert torch.allclose(sums.nll_p, -log_p.gather(1, targets[:, None])[:, 0])
    assert torch.allclose(sums.nll_q, -log_q.gather(1, targets[:, None])[:, 0])
    assert torch.equal(sums.is_same, p.argmax(-1) == q.argmax(-1))


def test_equal_best_entries_are_chosen_alike_however_the_vocabulary_is_cut():
    p = torch.tensor([[1.0, 3.0, 3.0, 0.0]])
    q = torch.tensor([[1.0, 3.0, 2.0, 0.0]])
    for cuts in ((), (1,), (2,), (1, 2, 3)):
        assert summed(p, q, torch.tensor([0]), cuts).is_same.tolist() == [True]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_cannot_pass_for_close(bad):
    p = torch.randn(4, 9)
    q = p.clone()
    q[2, 3] = bad
    result = Comparison()
    result.add(p, p, torch.arange(4))
    result.add(p, q, torch.arange(4))
    assert not result.max_abs_diff <= 1e9
    if bad != -math.inf:
        assert not result.kl <= 1e9
    assert math.isnan(larger(0.0, math.nan))
    assert math.isnan(larger(math.nan, 0.0))
    assert math.isnan(largest(torch.tensor([1.0, math.nan])))
    assert largest(torch.tensor([])) == 0


def test_a_comparison_of_windows_is_that_of_their_union():
    torch.manual_seed(1)
    p, q, tokens = torch.randn(3, 9, 11), torch.randn(3, 9, 11), torch.randint(11, (3, 9))
    total = Comparison()
    for window in range(3):
        total.add(p[window], q[window], tokens[window])
    flat_p, flat_q = p[:, :-1].reshape(-1, 11), q[:, :-1].reshape(-1, 11)
    assert total.num_tokens == 24
    sums = summed(flat_p, flat_q, tokens[:, 1:].reshape(-1))
    assert total.kl == pytest.approx(float(sums.kl.mean()), rel=1e-9)
    spread = float(sums.kl.std(correction=0)) / 24**0.5
    assert total.kl_standard_error == pytest.approx(spread, rel=1e-6)
    assert total.nll_q == pytest.approx(float(sums.nll_q.mean()), rel=1e-9)
    assert total.top1_agreement == pytest.approx(float(sums.is_same.double().mean()))
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
