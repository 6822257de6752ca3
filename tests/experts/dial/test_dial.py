"""The dial's figures against obvious references, on tiny models with real architectures."""

import math
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.experts.dial.conftest import TEXT

from veche.checkpoint.config import read_config, spec_of
from veche.core.errors import CheckpointError, InputError
from veche.core.progress import Silent
from veche.engines.embedded.router_control import RouterControl
from veche.engines.protocol import AdaptiveExperts, Branch
from veche.experts.dial.adaptive import adaptive_states, num_used, router_counts, rule_for
from veche.experts.dial.bench import neighbours
from veche.experts.dial.dial import DialSettings, text_of, turn
from veche.experts.dial.figures import SettingFigures, WindowFigures, figures_of
from veche.experts.dial.measure import compared, states_of
from veche.experts.dial.points import chosen_points
from veche.experts.dial.report import fixed_nll
from veche.experts.dial.turning import BASE, as_base, variant_of
from veche.surgery.loading import load_model
from veche.surgery.verification.bench import Bench as VerifyBench
from veche.surgery.verification.variants import Experiment, Pair
from veche.surgery.verification.whole import compare_whole, load_variant

CPU = torch.device("cpu")
SMALL = DialSettings(num_windows=3, short_tokens=24, long_tokens=64, rounds=0, device="cpu")


def ignored(amount):
    """Take no notice of progress."""


def spec(folder):
    return spec_of(read_config(folder))


def text(folder, settings=SMALL):
    return text_of(folder, spec(folder), TEXT, settings)


def turned(folder, name, values, settings=SMALL, progress=None):
    points = chosen_points(name, values, spec(folder))
    return turn(folder, points, TEXT, settings=settings, progress=progress)


def row(report, value):
    return next(each for each in report.rows if each.value == value)


def logits_of(folder, tokens_T, **changes):
    model = load_model(folder, changes=changes)
    with torch.inference_mode():
        return model(tokens_T[None], use_cache=False).logits[0].double()


@torch.no_grad()
def variant(folder, name, value):
    return load_variant(folder, variant_of(folder, name, value), CPU)


# --- what is compared -----------------------------------------------------------------------------


def test_both_contexts_predict_the_same_tokens(moe):
    windows = text(moe)
    model = load_model(moe)
    states = states_of(model, windows, ignored)
    assert windows.contexts == {"short": 24, "long": 64}
    assert windows.targets.equal(windows.tokens[:, -23:])
    assert states["short"].shape == states["long"].shape == (3, 23, 32)
    assert not torch.allclose(states["short"], states["long"], atol=1e-3)


def test_figures_are_those_of_whole_softmaxes(moe):
    windows = text(moe)
    report = turned(moe, "top_k", "5")
    nll, kl, same = [], [], []
    for tokens_T in windows.tokens:
        base_PV, other_PV = (
            logits_of(moe, tokens_T, num_experts_per_tok=k).log_softmax(-1)[-24:-1] for k in (3, 5)
        )
        nll.append(-other_PV.gather(1, tokens_T[-23:, None]).mean())
        kl.append((base_PV.exp() * (base_PV - other_PV)).sum(-1).mean())
        same.append((base_PV.argmax(-1) == other_PV.argmax(-1)).double().mean())
    found = row(report, 5).contexts["long"]
    assert found.nll.mean == pytest.approx(float(np.mean(nll)), abs=1e-5)
    assert found.kl.mean == pytest.approx(float(np.mean(kl)), abs=1e-5)
    assert found.top1_agreement.mean == pytest.approx(float(np.mean(same)), abs=1e-9)
    base = row(report, 3)
    assert base.is_base
    assert found.nll_delta.mean == pytest.approx(found.nll.mean - base.contexts["long"].nll.mean)
    assert found.nll_delta.low <= found.nll_delta.mean <= found.nll_delta.high


def test_verify_finds_the_same_for_the_same_dial(moe):
    settings = DialSettings(num_windows=3, short_tokens=48, long_tokens=48, rounds=0, device="cpu")
    report = turned(moe, "top_k", "1", settings)
    bench = VerifyBench(
        folders={"source": moe, "target": moe},
        experiment=Experiment(
            variants={"source": BASE, "top_k": variant_of(moe, "top_k", 1)},
            pairs={"top_k": Pair(reference="source", other="top_k")},
            dials={},
        ),
        tokens=text(moe, settings).tokens,
        fp32_tokens=16,
        device=CPU,
    )
    with torch.inference_mode():
        expected = compare_whole(bench, ignored)["top_k"]
    found = row(report, 1).contexts["short"]
    assert list(report.context_tokens) == ["short"]
    assert found.kl.mean == pytest.approx(expected.kl, abs=1e-6)
    assert found.nll_delta.mean == pytest.approx(expected.nll_q - expected.nll_p, abs=1e-6)
    assert found.top1_agreement.mean == pytest.approx(expected.top1_agreement)


@pytest.mark.parametrize(("name", "values"), [("rope_theta", "20000"), ("yarn", "4")])
def test_positions_matter_more_the_further_they_reach(moe, name, values):
    report = turned(moe, name, values)
    contexts = row(report, float(values)).contexts
    assert contexts["long"].kl.mean > contexts["short"].kl.mean > 1e-4


@pytest.mark.parametrize("temperature", [0.5, 1.7])
def test_a_temperature_is_a_softmax_of_divided_logits(moe, temperature):
    windows = text(moe)
    report = turned(moe, "temperature", str(temperature))
    nll, kl = [], []
    for tokens_T in windows.tokens:
        logits_PV = logits_of(moe, tokens_T)[-24:-1]
        base_PV = logits_PV.log_softmax(-1)
        cooled_PV = (logits_PV / temperature).log_softmax(-1)
        nll.append(-cooled_PV.gather(1, tokens_T[-23:, None]).mean())
        kl.append((base_PV.exp() * (base_PV - cooled_PV)).sum(-1).mean())
    found = row(report, temperature).contexts["long"]
    assert found.nll.mean == pytest.approx(float(np.mean(nll)), abs=1e-5)
    assert found.kl.mean == pytest.approx(float(np.mean(kl)), abs=1e-5)
    assert found.top1_agreement.as_list() == [1.0, 1.0]


def test_the_base_compared_with_itself_is_the_same_to_the_bit(moe):
    model, windows = load_model(moe), text(moe)
    states = states_of(model, windows, ignored)
    for figures in compared(model, states, states, windows).values():
        assert max(map(abs, figures.kl)) < 1e-12
        assert set(figures.same) == {1.0}


# --- how a dial is turned -------------------------------------------------------------------------


def test_a_carved_model_stays_as_loud_with_every_number_of_experts(carved):
    """Against the engine's own rule for such models, which leaves each expert's weight at 1/k₀."""
    windows = text(carved)
    gained = states_of(variant(carved, "top_k", 8), windows, ignored)
    model = load_model(carved)
    control = RouterControl(model)
    with control.installed():
        control.set_rows([Branch(voice="all", instruction="", num_experts_per_tok=8)])
        expected = states_of(model, windows, ignored)
    bare = states_of(load_model(carved, changes={"num_experts_per_tok": 8}), windows, ignored)
    torch.testing.assert_close(gained["long"], expected["long"], atol=1e-3, rtol=1e-3)
    assert not torch.allclose(bare["long"], expected["long"], atol=1e-1)


def test_yarn_writes_the_length_that_it_multiplies(moe):
    changes = variant_of(moe, "yarn", 4).changes
    assert changes["rope_scaling"] == {
        "rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 512
    }  # fmt: skip
    assert load_model(moe, changes=changes).config.rope_parameters["factor"] == 4


def test_a_factor_of_1_is_no_scaling(moe):
    assert variant_of(moe, "yarn", 1).changes == {"rope_scaling": None}


@pytest.mark.parametrize(("name", "value"), [("top_k", 5), ("rope_theta", 5e4), ("yarn", 2)])
def test_for_the_clock_a_turned_model_is_the_base_for_a_while(moe, name, value):
    windows, base = text(moe), load_model(moe)
    expected = states_of(base, windows, ignored)["long"]
    model = variant(moe, name, value)
    before = states_of(model, windows, ignored)["long"]
    with as_base(model, moe, name):
        torch.testing.assert_close(states_of(model, windows, ignored)["long"], expected)
    torch.testing.assert_close(states_of(model, windows, ignored)["long"], before)
    assert not torch.allclose(before, expected, atol=1e-3)


# --- adaptive -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mean", [1, 2.5, 6, 8])
def test_a_rule_uses_as_many_experts_as_were_wanted(mean):
    counts = np.exp(np.random.default_rng(0).uniform(0, math.log(8), size=4000))
    rule = rule_for(counts, mean, 8, spread=8)
    assert num_used(counts, rule.scale, 1, 8).mean() == pytest.approx(mean, abs=0.02)


def test_a_spread_keeps_every_decision_near_the_mean():
    counts = np.exp(np.random.default_rng(0).uniform(0, math.log(8), size=4000))
    rule = rule_for(counts, 4.5, 8, spread=1)
    used = num_used(counts, rule.scale, rule.least, rule.most)
    assert (used.min(), used.max()) == (rule.least, rule.most) == (3, 6)
    assert used.mean() == pytest.approx(4.5, abs=0.02)


def test_where_every_router_is_equally_sure_the_nearest_whole_number_above_is_used():
    assert (
        num_used(np.full(9, 3.0), rule_for(np.full(9, 3.0), 4.2, 8, spread=8).scale, 1, 8).mean()
        == 5
    )


@pytest.mark.parametrize("k", [2, 3, 6])
def test_adaptive_within_one_number_is_that_number(moe, k):
    windows = text(moe)
    rule = AdaptiveExperts(least=k, most=k)
    states, experts = adaptive_states(load_model(moe), rule, windows, ignored)
    expected = states_of(variant(moe, "top_k", k), windows, ignored)
    torch.testing.assert_close(states["long"], expected["long"], atol=1e-4, rtol=1e-4)
    assert experts == {"short": (k,) * 3, "long": (k,) * 3}


@pytest.mark.parametrize("kind", ["moe", "carved"])
def test_the_routers_really_use_what_was_wanted(kind, request):
    folder = request.getfixturevalue(kind)
    windows, model = text(folder), load_model(folder)
    counts = router_counts(model, windows, ignored)
    assert counts.shape == (3 * 24 * 3,)
    assert counts.min() >= 1
    assert counts.max() <= 8 + 1e-9
    assert counts.std() > 0.1
    _, experts = adaptive_states(model, rule_for(counts, 4, 8, spread=8), windows, ignored)
    assert np.mean(experts["short"]) == pytest.approx(4, abs=0.6)


def test_adaptive_is_compared_with_fixed_at_its_own_mean(moe):
    report = turned(moe, "adaptive", "2,5")
    used = [each.contexts["long"].experts.mean for each in report.rows]
    known = {each.value: each for each in report.fixed}
    for each, mean in zip(report.rows, used, strict=True):
        below, above = math.floor(mean), math.ceil(mean)
        low, high = (known[k].contexts["long"].nll.mean for k in (below, above))
        expected = low + (high - low) * (mean - below)
        over = each.contexts["long"].over_fixed
        assert over.mean == pytest.approx(each.contexts["long"].nll.mean - expected, abs=1e-9)
        assert over.low <= over.mean <= over.high
        assert each.scale > 0


def test_fixed_top_k_between_whole_numbers_is_a_mixture_of_both():
    def window(*nll):
        return WindowFigures(nll=nll, kl=nll, same=nll, ece=0)

    fixed = {2.0: window(4.0, 6.0), 3.0: window(2.0, 5.0), 6.0: window(0.0, 0.0)}
    assert fixed_nll(2.25, fixed).tolist() == [3.5, 5.75]
    assert fixed_nll(3, fixed).tolist() == [2.0, 5.0]


def test_neighbours_are_on_both_sides_of_every_mean():
    window = WindowFigures(nll=(1,), kl=(1,), same=(1,), ece=0, experts=(3.2, 3.4))
    edge = WindowFigures(nll=(1,), kl=(1,), same=(1,), ece=0, experts=(8.0, 8.0))
    figures = SettingFigures(value=3, contexts={"short": window, "long": edge})
    assert neighbours([figures], 8) == (3, 4, 8)


# --- what is kept ---------------------------------------------------------------------------------


class Interrupting(Silent):
    """Progress at which the user loses patience after so many steps of a task."""

    def __init__(self, name, after):
        self.name, self.left = name, after
        self.said = []

    def say(self, text):
        self.said.append(text)

    def task(self, label, total=None):
        if label != self.name:
            return super().task(label, total)
        return self._task()

    def _task(self):
        @contextmanager
        def counted():
            yield self._advance

        return counted()

    def _advance(self, amount):
        self.left -= amount
        if self.left < 0:
            raise KeyboardInterrupt


def test_an_interrupted_dial_goes_on_and_ends_the_same(moe, tmp_path, monkeypatch):
    whole = turned(moe, "top_k", "1,5")
    monkeypatch.setenv("VECHE_HOME", str(tmp_path / "other"))
    with pytest.raises(KeyboardInterrupt):
        turned(moe, "top_k", "1,5", progress=Interrupting("top_k", 8))
    watching = Interrupting("none", 0)
    again = turned(moe, "top_k", "1,5", progress=watching)
    assert any("1 of 2" in line for line in watching.said)
    assert again.rows == whole.rows


def test_another_text_or_another_model_is_measured_anew(moe, carved):
    first = turned(moe, "temperature", "2")
    other = turn(moe, chosen_points("temperature", "2", spec(moe)), TEXT[7:], settings=SMALL)
    third = turned(carved, "temperature", "2")
    assert len({first.folder, other.folder, third.folder}) == 3


def test_a_damaged_setting_is_named(moe):
    report = turned(moe, "temperature", "2")
    file = Path(report.folder) / "temperature-2.json"
    file.write_text("{}")
    with pytest.raises(CheckpointError, match=r"temperature-2\.json"):
        turned(moe, "temperature", "2")


def test_kept_figures_are_read_as_they_were():
    window = WindowFigures(nll=(1.5, 2.5), kl=(0.1, 0.2), same=(1.0, 0.5), ece=0.25, experts=(3.5,))
    figures = SettingFigures(
        value=2.5, contexts={"short": window}, base_s=(1.0,), turned_s=(2.0,), scale=0.5
    )
    assert figures_of(figures.as_dict()) == figures


def test_the_speed_is_measured_where_it_may_differ(moe):
    settings = DialSettings(num_windows=2, short_tokens=24, long_tokens=24, rounds=1, device="cpu")
    for name, value in (("top_k", 5.0), ("adaptive", 4.0)):
        found = row(turned(moe, name, str(value), settings), value)
        assert found.tokens_per_s > 0
        assert found.speed_ratio.mean > 0
    assert row(turned(moe, "temperature", "2", settings), 2).speed_ratio is None


# --- text -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (DialSettings(num_windows=16, long_tokens=400, short_tokens=24), "need at least 6,400"),
        (DialSettings(short_tokens=4000), "need at least 8,000"),
        (DialSettings(short_tokens=64, long_tokens=32), "shorter than the short one"),
    ],
)
def test_a_text_that_is_too_short_is_refused(moe, settings, said):
    with pytest.raises(InputError, match=said):
        text(moe, settings)


def test_the_long_context_is_what_the_text_and_the_model_allow(moe):
    found = text(moe, DialSettings(num_windows=2, short_tokens=24))
    assert found.tokens.shape == (2, 512)  # the model's limit
    assert text(moe, DialSettings(num_windows=16, short_tokens=24)).tokens.shape[1] < 512
