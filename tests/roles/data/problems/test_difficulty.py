"""The difficulty at which a model gets some right and some wrong, if there is one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest
from tests import tiny_models

from veche.engines.transformers import create
from veche.roles.data.problems.difficulty import (
    FitSettings,
    Level,
    _search,
    find_difficulty,
    try_level,
)
from veche.roles.data.problems.puzzle import LEVELS
from veche.roles.evaluation.wilson import wilson_interval


@given(total=st.integers(1, 400), data=st.data())
def test_wilsons_interval_is_that_of_scipy(total, data):
    right = data.draw(st.integers(0, total))
    mine = wilson_interval(right, total)
    theirs = binomtest(right, total).proportion_ci(0.95, method="wilson")
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)
    assert mine.low <= mine.mean <= mine.high


def test_no_share_of_nothing():
    for right, total in ((1, 0), (2, 1), (-1, 3)):
        with pytest.raises(ValueError, match="is no share"):
            wilson_interval(right, total)


@given(
    shares=st.lists(st.integers(0, 100), min_size=12, max_size=12).map(
        lambda found: sorted(found, reverse=True)
    ),
    band=st.tuples(st.integers(0, 100), st.integers(0, 100)).map(sorted),
)
def test_where_harder_is_never_easier_a_difficulty_in_the_band_is_found_if_there_is_one(
    shares, band
):
    tried = []

    def level(difficulty):
        tried.append(difficulty)
        return Level(difficulty=difficulty, right=shares[difficulty - 1], total=100)

    low, high = (bound / 100 for bound in band)
    verdict, chosen = _search(level, (low, high))
    inside = [d for d in LEVELS if low <= shares[d - 1] / 100 <= high]
    assert (verdict == "found") == bool(inside)
    if inside:
        assert chosen.difficulty in inside
    elif shares[0] / 100 < low:
        assert verdict == "too hard"
    elif shares[-1] / 100 > high:
        assert verdict == "too easy"
    else:
        assert verdict == "gap"
    assert len(set(tried)) <= 7


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tiny_models.tiny_llama(
        tmp_path_factory.mktemp("m") / "dense", max_position_embeddings=2048
    )
    return create(folder, dtype="float32")


def test_a_model_that_knows_nothing_is_told_so(tiny):
    settings = FitSettings(count=4, shots=1, max_new_tokens=4, batch=3)
    fit = find_difficulty(tiny, "arithmetic", "ru", settings)
    assert (fit.verdict, fit.chosen) == ("too hard", None)
    assert [(level.difficulty, level.right) for level in fit.levels] == [(1, 0)]
    told = fit.as_dict()
    assert (told["difficulty"], told["is_above_chance"]) == (None, None)


def test_the_size_of_a_batch_changes_no_count(tiny):
    counts = {
        batch: try_level(
            tiny, "syllogisms", "en", 1,
            FitSettings(count=5, shots=1, max_new_tokens=6, batch=batch),
        ).right
        for batch in (1, 5)
    }  # fmt: skip
    assert len(set(counts.values())) == 1
