"""A reader is trained on a tiny model's states, kept, and asked."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tests.roles.intent.questions import questions
from tests.tiny_models import tiny_mixtral

from veche.core.errors import CheckpointError, InputError, OutputError, UnsupportedError
from veche.core.transcript import Transcript
from veche.engines.scripted import ScriptedEngine
from veche.engines.transformers import create
from veche.experts.metrics import softmax
from veche.roles.data.example import Message
from veche.roles.evaluation.metrics import auroc
from veche.roles.intent.file import load_intents, save_intents
from veche.roles.intent.live import read_question, report_question
from veche.roles.intent.reader import question_of
from veche.roles.intent.states import read_states
from veche.roles.intent.train import (
    Questions,
    fit_reader,
    reading_layers,
    train_intents,
)
from veche.roles.role import Role

LAYERS = (0, 1, 2)
ROLE = Role(
    name="q-intent", kind="reader", title={"en": "i", "ru": "и"}, prompt={"en": "p", "ru": "п"}
)
KNOWN = ("balance", "flight", "weather")


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return create(tiny_mixtral(tmp_path_factory.mktemp("mixtral")), dtype="float32")


@pytest.fixture(scope="module")
def trained(engine, tmp_path_factory):
    return train_intents(engine, ROLE, questions(*KNOWN), tmp_path_factory.mktemp("reader"))


def read(engine, trained, examples):
    texts = [question_of(example) for example in examples]
    return trained.reader.read(texts, read_states(engine, texts, LAYERS))


def test_a_trained_reader_tells_the_intents_that_it_learnt(engine, trained):
    asked = questions(*KNOWN)
    assert trained.reader.intents == KNOWN
    found = read(engine, trained, asked)
    assert np.mean([f.intent == e.intent for f, e in zip(found, asked, strict=True)]) > 0.95
    assert trained.record["held_out_accuracy"] > 0.8
    for reading in found:
        chances = [reading.confidence, *(chance for _, chance in reading.runners_up)]
        assert chances == sorted(chances, reverse=True)
        assert sum(chances) == pytest.approx(1)
        assert len({reading.intent, *(name for name, _ in reading.runners_up)}) == 3


def test_what_is_none_of_the_intents_is_less_likely_in_scope(engine, trained):
    inside = [reading.in_scope for reading in read(engine, trained, questions(*KNOWN))]
    outside = [reading.in_scope for reading in read(engine, trained, questions("oos"))]
    is_inside = [True] * len(inside) + [False] * len(outside)
    assert auroc([*inside, *outside], is_inside) > 0.8


def test_examples_out_of_scope_are_no_intent(engine, tmp_path):
    told = train_intents(engine, ROLE, questions(), tmp_path)
    assert told.reader.intents == KNOWN
    assert told.record["out_of_scope_examples"] == len(questions("oos"))
    outside = [reading.in_scope for reading in read(engine, told, questions("oos"))]
    inside = [reading.in_scope for reading in read(engine, told, questions(*KNOWN))]
    assert np.mean(outside) < 0.5 < np.mean(inside)


def test_of_two_intents_and_nothing_else_almost_all_are_kept(engine, tmp_path):
    asked = questions("weather", "balance")
    told = train_intents(engine, ROLE, asked, tmp_path)
    assert np.mean([reading.is_in_scope for reading in read(engine, told, asked)]) > 0.8


def test_logits_are_the_two_scores_weighed(engine, trained):
    texts = [question_of(example) for example in questions("weather")]
    states = read_states(engine, texts, LAYERS)
    reader = trained.reader
    by_hand = [
        reader.shares[0] * (reader.states.weight @ state + reader.states.bias)
        + reader.shares[1] * reader.words.scores([text])[0]
        for state, text in zip(states, texts, strict=True)
    ]
    assert reader.logits(texts, states) == pytest.approx(np.array(by_hand), rel=1e-4, abs=1e-4)
    confidence = [reading.confidence for reading in reader.read(texts, states)]
    assert confidence == pytest.approx(softmax(np.array(by_hand)).max(1), rel=1e-4)


def test_a_kept_reader_reads_as_before(engine, trained, tmp_path):
    save_intents(tmp_path / "reader", trained)
    again = load_intents(tmp_path / "reader")
    assert again.record == trained.record
    asked = questions()
    assert read(engine, again, asked) == read(engine, trained, asked)


def test_training_writes_the_same_weights_every_time(engine, tmp_path):
    for name in ("one", "two"):
        train_intents(engine, ROLE, questions(*KNOWN), tmp_path / name)
    one, two = (load_file(tmp_path / name / "intents.safetensors") for name in ("one", "two"))
    assert all(np.array_equal(one[name], two[name]) for name in one)
    read = [load_intents(tmp_path / name).reader for name in ("one", "two")]
    assert read[0].scope == read[1].scope
    assert read[0].shares == read[1].shares


def test_shares_and_scope_are_chosen_without_the_examples_that_they_are_chosen_on(engine):
    """States that only tell examples apart, not intents, get no say."""
    asked = questions(*KNOWN)
    texts = tuple(question_of(example) for example in asked)
    label = np.array([KNOWN.index(str(example.intent)) for example in asked])
    noise = np.random.default_rng(0).normal(size=(len(asked), 300)).astype(np.float32)
    reader, _ = fit_reader(Questions(texts=texts, states=noise, intents=KNOWN, label=label), LAYERS)
    by_states = reader.states.scores(noise)
    assert (by_states.argmax(1) == label).all()  # learnt by heart
    told = reader.shares[0] * by_states.std(), reader.shares[1] * reader.words.scores(texts).std()
    assert told[0] < told[1] / 2


def test_a_question_is_read_live_and_an_event_says_so(engine, trained):
    transcript = Transcript()
    reading = read_question(engine, trained, "will it be raining today")
    report_question(transcript, "q-intent", reading)
    (event,) = transcript.events
    assert (event.kind, event.voice) == ("STATE_DELTA", "q-intent")
    said = event.data["question"]
    assert said["intent"] == reading.intent == "weather"
    assert said["is_in_scope"] == (said["in_scope"] >= 0.5)
    assert [other["intent"] for other in said["runners_up"]] == [n for n, _ in reading.runners_up]


def test_the_question_is_the_last_thing_that_the_user_said():
    one = questions("weather")[0]
    talk = replace(
        one,
        messages=(
            Message(role="user", content="hello"),
            Message(role="assistant", content="yes?"),
            Message(role="user", content="is it cold"),
            Message(role="assistant", content="it is"),
        ),
        steps=("it is",),
    )
    assert question_of(talk) == "is it cold"
    with pytest.raises(InputError, match="asks nothing"):
        question_of(replace(one, messages=(Message(role="assistant", content="so"),)))


def test_layers_go_from_the_embedding_to_four_fifths_of_the_depth():
    assert reading_layers(30) == (0, 6, 12, 18, 24)
    assert reading_layers(3) == (0, 1, 2)


@pytest.mark.parametrize(
    ("examples", "said"),
    [
        ([], "no examples"),
        (questions("weather"), "1 intent"),
        (questions("oos"), "0 intent"),
        ([replace(questions("weather")[0], intent=None)], "have no intent"),
        ([*questions("weather"), *questions("balance")[:3]], "fewer than 5 examples: balance"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(engine, tmp_path, examples, said):
    with pytest.raises(InputError, match=said):
        train_intents(engine, ROLE, examples, tmp_path)


def test_only_readers_learn_and_nothing_is_written_over(engine, tmp_path):
    with pytest.raises(InputError, match="is a drafter"):
        train_intents(engine, replace(ROLE, kind="drafter"), questions(*KNOWN), tmp_path)
    (tmp_path / "mine").touch()
    with pytest.raises(OutputError):
        train_intents(engine, ROLE, questions(*KNOWN), tmp_path)


def test_another_model_and_another_engine_are_refused(engine, trained):
    with pytest.raises(UnsupportedError, match="was trained on the model 0000"):
        read_question(engine, replace(trained, base_hash="0" * 64), "is it cold")
    with pytest.raises(UnsupportedError, match="scripted"):
        read_question(ScriptedEngine([]), trained, "is it cold")
    with pytest.raises(InputError, match="takes 192"):
        trained.reader.read(["hi"], read_states(engine, ["hi"], (0,)))


def written(tensors, path):
    save_file(tensors, path, metadata={"format": "veche-intents-1"})


def damaged(folder, trained, change):
    save_intents(folder, trained)
    note, weights = folder / "intents.json", folder / "intents.safetensors"
    if change == "no weights":
        weights.unlink()
    elif change == "cut":
        weights.write_bytes(weights.read_bytes()[:-9])
    elif change == "other tensors":
        written({"x": np.zeros(2)}, weights)
    elif change == "other format":
        save_file(load_file(weights), weights)
    elif change == "other type":
        tensors = load_file(weights)
        written({**tensors, "states/bias": tensors["states/bias"].astype(np.float64)}, weights)
    elif change == "not finite":
        tensors = load_file(weights)
        tensors["states/bias"][0] = np.nan
        written(tensors, weights)
    elif change == "too few n-grams":
        tensors = load_file(weights)
        written({**tensors, "words/n_grams": np.frombuffer(b"one\ntwo", np.uint8)}, weights)
    elif change == "not UTF-8":
        tensors = load_file(weights)
        written({**tensors, "words/n_grams": np.frombuffer(b"\xff", np.uint8)}, weights)
    else:
        note.write_text(note.read_text().replace(*change))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("no weights", "does not exist"),
        ("cut", "damaged"),
        ("other tensors", "it holds x"),
        ("other format", "is no veche-intents-1"),
        ("other type", "states/bias is float64"),
        ("not finite", "not finite"),
        ("too few n-grams", "as many as"),
        ("not UTF-8", "UTF-8"),
        (("veche-intents-1", "veche-probe-1"), "format"),
        (('"balance",', ""), "don't fit"),
        (('"slope"', '"slop"'), "scope"),
        (("{", "["), "not valid JSON"),
    ],
)
def test_a_damaged_reader_is_refused_by_name(trained, tmp_path, change, said):
    damaged(tmp_path / "reader", trained, change)
    with pytest.raises(CheckpointError, match=said):
        load_intents(tmp_path / "reader")


@pytest.mark.parametrize(
    ("idf", "shares", "said"),
    [
        (np.inf, (1.0, 1.0), "not finite"),
        (1.0, (1e308, 1e308), "not finite"),
        (1.0, (float("nan"), 1.0), "not finite"),
        (None, (1.0, 1.0), "as many as"),
    ],
)
def test_a_reader_whose_scores_would_be_no_numbers_is_refused(trained, idf, shares, said):
    reader = trained.reader
    known = reader.words.n_grams
    weighed = known.idf[:3] if idf is None else np.full_like(known.idf, idf)
    words = replace(reader.words, n_grams=replace(known, idf=weighed))
    with pytest.raises(InputError, match=said):
        replace(reader, words=words, shares=shares)
