"""A map says what its equations say of each pair; a voice does not disagree with itself."""

import json
import struct
from dataclasses import replace

import numpy as np
import pytest

from veche.core.errors import InputError, UnsupportedError
from veche.engines.protocol import Branch, BranchResult, Routing
from veche.engines.scripted import ScriptedEngine
from veche.experts.disagreement import (
    cosine_distance,
    linear_cka,
    next_token_js,
    overlap_by_chance,
    routing_overlap,
)
from veche.experts.disagreement_map import disagreement, map_of
from veche.experts.disagreement_plot import plot_disagreement

TOKENS, VOCAB, LAYERS, WIDTH, EXPERTS = 9, 20, 3, 8, 6
IDS = tuple(range(TOKENS))
TEXTS = (" слово", "$x$", "\n", "漢", " a", "b", "\t", "c", "…")


def reading(voice, seed, **changes):
    rng = np.random.default_rng(seed)
    ids = rng.random((TOKENS, LAYERS, EXPERTS)).argsort(-1)[..., :2].astype(np.uint16)
    result = BranchResult(
        voice=voice,
        text="",
        token_ids=IDS,
        finish_reason="stop",
        prefilled_tokens=3,
        reused_tokens=5,
        routing=Routing(
            expert_ids=ids, weights=np.ones(ids.shape, np.float16), num_experts=EXPERTS
        ),
        logits=rng.normal(scale=2, size=(TOKENS, VOCAB)).astype(np.float32),
        hidden_states=rng.normal(size=(TOKENS, LAYERS, WIDTH)).astype(np.float32),
    )
    return replace(result, **changes)


def mapped(*results):
    return map_of(results, hidden_layers=(1, 2, 3), texts_of=lambda ids: TEXTS)


def test_a_map_of_two_is_made_of_the_equations():
    one, two = reading("логик", 0), reading("objector", 1)
    told = mapped(one, two)
    assert told.js_bits == pytest.approx(next_token_js(one.logits, two.logits))
    assert told.pair_js_bits == pytest.approx(
        np.array([[0, told.js_bits.mean()], [told.js_bits.mean(), 0]])
    )
    assert told.hidden_distance == pytest.approx(
        cosine_distance(one.hidden_states, two.hidden_states)
    )
    for layer in range(LAYERS):
        expected = linear_cka(one.hidden_states[:, layer], two.hidden_states[:, layer])
        assert told.cka[layer] == pytest.approx(expected)
    routings = (
        one.routing.expert_ids, one.routing.weights, two.routing.expert_ids, two.routing.weights,
    )  # fmt: skip
    assert told.routing_overlap == pytest.approx(routing_overlap(*routings, EXPERTS))
    assert told.routing_by_chance == 2 / EXPERTS
    assert told.routing_by_chance == overlap_by_chance(routings[1], routings[3], EXPERTS)
    for voice, result in enumerate((one, two)):
        for token, row in enumerate(result.logits.astype(float)):
            slow = np.log(np.exp(row).sum()) - row[token]
            assert told.surprise_nats[voice, token] == pytest.approx(slow)


def test_three_voices_are_the_mean_of_their_pairs():
    voices = [reading(name, seed) for seed, name in enumerate("abc")]
    told = mapped(*voices)
    pairs = [mapped(voices[i], voices[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    for name in ("js_bits", "hidden_distance", "cka", "routing_overlap"):
        mean = np.mean([getattr(pair, name) for pair in pairs], axis=0)
        assert getattr(told, name) == pytest.approx(mean)
    assert told.pair_js_bits[2, 1] == pytest.approx(pairs[2].js_bits.mean())


def test_a_voice_agrees_with_itself():
    one = reading("a", 0)
    told = mapped(one, replace(one, voice="b"))
    assert not told.js_bits.any()
    assert told.hidden_distance == pytest.approx(0, abs=1e-12)
    assert told.cka == pytest.approx(1)
    assert (told.routing_overlap == 1).all()


def test_it_is_json_and_names_the_most_disputed_tokens_first():
    told = mapped(reading("a", 0), reading("b", 1))
    values = json.loads(json.dumps(told.as_dict(), allow_nan=False))
    disputed = [row["js_bits"] for row in values["most_disputed"]]
    assert disputed == sorted(values["js_bits"], reverse=True)[:5]
    assert values["most_disputed"][0]["token"] == TEXTS[told.most_disputed()[0]]
    assert set(values["surprise_nats"]) == {"a", "b"}


def test_what_an_engine_cannot_tell_is_left_out():
    plain = [
        reading(voice, seed, routing=None, hidden_states=None) for seed, voice in enumerate("ab")
    ]
    told = map_of(plain)
    values = json.loads(json.dumps(told.as_dict(), allow_nan=False))
    assert values["routing_overlap"] is values["routing_by_chance"] is None
    assert values["cka"] == []
    assert values["tokens"] == [str(token) for token in IDS]


def test_cka_of_three_tokens_is_null():
    short = [
        reading(
            voice,
            seed,
            token_ids=IDS[:3],
            routing=None,
            logits=np.eye(3, VOCAB, dtype=np.float32),
            hidden_states=np.ones((3, 1, 4), np.float32),
        )
        for seed, voice in enumerate("ab")
    ]
    told = map_of(short, hidden_layers=[1])
    assert json.loads(json.dumps(told.as_dict(), allow_nan=False))["cka"] == [None]


def test_voices_that_read_something_else_or_nothing_cannot_be_compared():
    one = reading("a", 0)
    with pytest.raises(InputError, match="same tokens"):
        mapped(one, reading("b", 1, token_ids=IDS[::-1]))
    with pytest.raises(InputError, match="nothing to read"):
        mapped(replace(one, token_ids=()), replace(one, token_ids=()))


def test_one_voice_and_an_engine_that_cannot_score_are_refused():
    engine = ScriptedEngine({"a": "да", "b": "нет"})
    trunk = engine.open_trunk(system="", user="?")
    branches = [Branch(voice=voice, instruction="") for voice in "ab"]
    with pytest.raises(InputError, match="two voices"):
        disagreement(engine, trunk, branches[:1], "да")
    with pytest.raises(UnsupportedError, match="logits"):
        disagreement(engine, trunk, branches, "да")


@pytest.mark.parametrize("language", ["en", "ru"])
@pytest.mark.parametrize("has_all", [True, False])
def test_the_picture_is_a_png_whatever_letters_the_tokens_have(tmp_path, language, has_all):
    readings = [reading("логик $_", 0), reading("objector", 1)]
    told = mapped(*readings) if has_all else map_of([replace(r, routing=None) for r in readings])
    path = tmp_path / "map.png"
    plot_disagreement(path, told, language=language)
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", data[16:24])
    assert 1000 <= width <= 2000
    assert 300 <= height <= 1500
