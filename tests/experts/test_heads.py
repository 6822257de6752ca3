"""Redundancy of heads by its laws, and the sum of what heads did."""

import json
import struct

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from tests.tiny_models import tiny_llama, tiny_mixtral

from veche.core.errors import InputError, UnsupportedError
from veche.engines.protocol import HeadStatistics
from veche.engines.scripted import ScriptedEngine
from veche.experts.head_plots import plot_heads
from veche.experts.head_redundancy import effective_heads, nearest_heads
from veche.experts.heads import heads_of_prompts, heads_of_text, joined, report_heads
from veche.planning.planner import make_plan
from veche.planning.recipe import Recipe
from veche.surgery.build import build

LAYERS, HEADS = 3, 4


def similarity_of(vectors):
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit = vectors / np.where(lengths > 0, lengths, 1)
    return (unit @ unit.T)[None]


def statistics(tokens, seed=0, heads=HEADS):
    rng = np.random.default_rng(seed)
    entropy, distance, norm = rng.random((3, tokens, LAYERS, heads)).astype(np.float32)
    vectors = rng.normal(size=(LAYERS, heads, 9))
    similarity = np.concatenate([similarity_of(rows) for rows in vectors]).astype(np.float32)
    return HeadStatistics(
        entropy=entropy, distance=9 * distance, output_norm=norm, similarity=similarity
    )


def test_effective_heads_at_the_limits():
    assert effective_heads(np.eye(8)[None]) == pytest.approx(8)
    assert effective_heads(np.ones((1, 8, 8))) == pytest.approx(1)
    pairs = np.kron(np.eye(4), np.ones((2, 2)))[None]
    assert effective_heads(pairs) == pytest.approx(4)
    cancelling = np.kron(np.eye(4), np.array([[1, -1], [-1, 1]]))[None]
    assert effective_heads(cancelling) == pytest.approx(4)
    silent = np.diag([1.0, 1, 0, 0])[None]
    assert effective_heads(silent) == pytest.approx(2)
    assert effective_heads(np.zeros((1, 8, 8))) == pytest.approx(0)


@given(st.integers(0, 10**6), st.integers(1, 7))
def test_effective_heads_lie_between_one_and_their_rank_and_copies_add_nothing(seed, heads):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(heads, 5))
    count = effective_heads(similarity_of(vectors))[0]
    assert 1 - 1e-9 <= count <= min(heads, 5) + 1e-9
    twice = effective_heads(similarity_of(np.concatenate([vectors, vectors])))[0]
    assert twice == pytest.approx(count)
    shuffled = effective_heads(similarity_of(rng.permutation(vectors)))[0]
    assert shuffled == pytest.approx(count)


@given(st.integers(0, 10**6))
def test_the_nearest_head_is_that_of_a_slow_search(seed):
    similarity = similarity_of(np.random.default_rng(seed).normal(size=(5, 6)))
    nearest, cosine = nearest_heads(similarity)
    for head in range(5):
        others = {other: similarity[0, head, other] for other in range(5) if other != head}
        expected = max(others, key=lambda other: abs(others[other]))
        assert nearest[0, head] == expected
        assert cosine[0, head] == others[expected]


def test_statistics_of_two_branches_are_those_of_all_their_tokens():
    one, two = statistics(3), statistics(5, seed=1)
    both = joined([one, two])
    assert both.entropy.shape == (8, LAYERS, HEADS)
    assert both.similarity == pytest.approx((3 * one.similarity + 5 * two.similarity) / 8)


def test_a_report_weighs_outputs_by_the_projection_of_the_checkpoint(tmp_path):
    folder = tiny_llama(tmp_path / "m")
    told = statistics(6)
    report = report_heads(told, folder)
    weight = safetensors.numpy.load_file(folder / "model.safetensors")
    for layer in range(LAYERS):
        matrix = weight[f"model.layers.{layer}.self_attn.o_proj.weight"]
        for head in range(HEADS):
            norm = np.linalg.norm(matrix[:, 8 * head : 8 * head + 8])
            expected = norm * told.output_norm[:, layer, head].mean()
            assert report.contribution[layer, head] == pytest.approx(expected, rel=1e-5)
    assert np.median(report.relative_contribution, axis=-1) == pytest.approx(np.ones(LAYERS))
    assert report.new_heads == ((),) * LAYERS
    assert json.loads(json.dumps(report.as_dict(), allow_nan=False))["num_heads"] == HEADS


@pytest.mark.parametrize("language", ["en", "ru"])
def test_new_heads_of_a_grown_model_add_nothing_and_are_framed(tmp_path, language):
    source = tiny_mixtral(tmp_path / "m")
    plan = make_plan(Recipe(name="t", base=str(source), fields={"num_attention_heads": 6}))
    build(plan, source, tmp_path / "grown")
    report = report_heads(statistics(6, heads=6), tmp_path / "grown")
    assert report.new_heads == ((2, 5),) * LAYERS
    assert not report.relative_contribution[:, [2, 5]].any()
    assert np.median(report.relative_contribution[:, [0, 1, 3, 4]], axis=-1) == pytest.approx(1)
    path = tmp_path / "heads.png"
    plot_heads(path, report, language=language)
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    assert struct.unpack(">II", data[16:24])[0] == 1800


def test_heads_of_another_model_and_engines_without_heads_are_refused(tmp_path):
    with pytest.raises(InputError, match="3 layers of 4 heads, and 3 of 6"):
        report_heads(statistics(2, heads=6), tiny_llama(tmp_path / "m"))
    engine = ScriptedEngine({"0": "да"})
    with pytest.raises(UnsupportedError, match="heads"):
        heads_of_prompts(engine, ["?"], max_tokens=8)
    with pytest.raises(UnsupportedError, match="score"):
        heads_of_text(engine, "two words", max_tokens=8)
