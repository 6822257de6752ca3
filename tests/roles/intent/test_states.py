"""States of questions against one plain pass of transformers' own model."""

import numpy as np
import pytest
import torch
from tests.tiny_models import tiny_mixtral

from veche.core.errors import InputError, UnsupportedError
from veche.engines.scripted import ScriptedEngine
from veche.engines.transformers import create
from veche.roles.intent.states import read_states

LAYERS = (0, 2, 3)
TEXTS = ("how much is left?", "сколько осталось", "x", "how much is left?")


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return create(tiny_mixtral(tmp_path_factory.mktemp("mixtral")), dtype="float32")


def reference(engine, text):
    """The mean of every token's state after it was read, plain and by how unexpected it was."""
    chat = engine._format
    before = [*chat.document_ids, *chat.text_ids('A user asks: "')]
    ids = chat.text_ids(text + '"')
    with torch.inference_mode():
        out = engine._model(torch.tensor([before + ids]), output_hidden_states=True)
    log_probs = out.logits[0].float().log_softmax(-1)
    weights, states = [], []
    for place in range(len(before), len(before) + len(ids) - 1):
        weights.append(-float(log_probs[place - 1, (before + ids)[place]]))
        states.append(np.concatenate([out.hidden_states[layer][0, place] for layer in LAYERS]))
    return np.concatenate([np.mean(states, axis=0), np.average(states, axis=0, weights=weights)])


def test_states_are_means_over_tokens_plain_and_weighed_by_surprisal(engine):
    found = read_states(engine, TEXTS, LAYERS)
    assert found.shape == (4, 2 * 3 * 32)
    for row, text in zip(found, TEXTS, strict=True):
        assert row == pytest.approx(reference(engine, text), rel=1e-3, abs=1e-4)


def test_a_question_is_read_the_same_alone_and_among_others(engine):
    among = read_states(engine, TEXTS, LAYERS)
    alone = read_states(engine, TEXTS[1:2], LAYERS)
    assert among[1] == pytest.approx(alone[0], abs=1e-5)
    assert (among[0] == among[3]).all()


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_question_is_refused(engine, text):
    with pytest.raises(InputError, match="empty"):
        read_states(engine, [text], LAYERS)


def test_too_long_a_question_or_a_layer_that_is_not_there_is_refused(engine):
    with pytest.raises(InputError, match="context"):
        read_states(engine, ["why " * 600], LAYERS)
    with pytest.raises(InputError, match="layer"):
        read_states(engine, ["why"], (9,))
    with pytest.raises(UnsupportedError, match="scripted"):
        read_states(ScriptedEngine([]), ["why"], LAYERS)
