"""Figures, gains and notes: what `measured` makes of what was prepared."""

import numpy as np
import pytest

from veche.roles.evaluation import figures
from veche.roles.evaluation.figures import bins_of, plot_part
from veche.roles.evaluation.intervals import gain_interval, grouped_interval
from veche.roles.evaluation.metrics import auroc, brier, ece
from veche.roles.evaluation.phrases import PHRASES
from veche.roles.evaluation.scored import Candidate, Curve, Prepared, measured, score_statistics
from veche.roles.evaluation.wilson import wilson_interval

GROUPS = tuple(f"q{n // 3}" for n in range(60))
METRICS = {"auroc": auroc, "brier": brier}


def a_candidate(name, seed, weight):
    rng = np.random.default_rng(seed)
    label = np.arange(60) % 2 == 0
    score = np.clip(rng.uniform(size=60) * (1 - weight) + weight * label, 0, 1)
    curve = Curve(score=score, is_positive=label, is_probability=True)
    return Candidate(name=name, statistics=score_statistics(score, label, METRICS), curve=curve)


ROLE, RIVAL = a_candidate("role", 0, 0.6), a_candidate("rival", 1, 0.1)


def prepared(*candidates, headline="auroc"):
    return Prepared(measures="answer", candidates=candidates, groups=GROUPS, headline=headline)


def test_every_figure_is_its_metric_with_its_interval_over_problems():
    part = measured(prepared(ROLE, RIVAL))
    assert (part.num_rows, part.num_groups) == (60, 20)
    for method, made in zip(part.methods, (ROLE, RIVAL), strict=True):
        for name, statistic in made.statistics.items():
            assert method.figures[name] == grouped_interval(statistic, GROUPS)
    assert part.role.gains == {}
    assert part.methods[1].gains == {
        "auroc": gain_interval(RIVAL.statistics["auroc"], ROLE.statistics["auroc"], GROUPS)
    }


def test_a_gain_above_zero_is_better_also_of_what_is_better_when_lower():
    part = measured(prepared(ROLE, RIVAL), gains=("auroc", "brier"))
    rival = part.methods[1]
    assert part.role.figures["brier"].mean < rival.figures["brier"].mean
    assert rival.gains["brier"].mean == pytest.approx(
        rival.figures["brier"].mean - part.role.figures["brier"].mean
    )
    assert all(gain.is_above_zero for gain in rival.gains.values())


def test_a_method_without_the_headline_is_not_compared():
    other = Candidate(name="guess", statistics={"brier": RIVAL.statistics["brier"]})
    part = measured(prepared(ROLE, other))
    assert part.methods[1].gains == {}


def test_the_diagram_has_the_bins_of_the_calibration_error():
    curve = ROLE.curve
    confidence, share, count = bins_of(curve)
    assert count.sum() == 60
    found = (count * np.abs(share - confidence)).sum() / 60
    assert found == pytest.approx(ece(curve.score, curve.is_positive))


def test_wilson_intervals_cover_as_often_as_they_say():
    rng = np.random.default_rng(0)
    for truth in (0.1, 0.5, 0.95):
        found = [
            wilson_interval(right, 40) for right in rng.binomial(40, truth, size=4000).tolist()
        ]
        assert 0.92 < np.mean([each.low <= truth <= each.high for each in found]) < 0.98


def test_every_method_has_a_curve_of_its_own(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "png_of", lambda figure: drawn.append(figure) or b"")
    rivals = tuple(a_candidate(f"rival-{n}", n, 0.2) for n in range(9))
    plot_part(tmp_path / "part.png", measured(prepared(ROLE, *rivals)), name="recursia")
    roc = drawn[0].axes[1]
    named = [line for line in roc.lines if not line.get_label().startswith("_")]
    assert [line.get_label().split()[0] for line in named][1:] == [r.name for r in rivals]
    looks = {(line.get_color(), line.get_linestyle()) for line in named}
    assert len(looks) == len(named) == 10


@pytest.mark.parametrize("language", ["en", "ru"])
def test_a_picture_is_a_png(tmp_path, language):
    path = tmp_path / "new" / "part.png"
    plot_part(path, measured(prepared(ROLE, RIVAL)), name="recursia", language=language)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_every_measure_has_words():
    for measures in ("answer", "step", "question", "report", "speech"):
        assert {f"title_{measures}", f"measures_{measures}"} <= set(PHRASES)
