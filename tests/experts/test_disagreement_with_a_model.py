"""A map of a real model's voices, against whole forward passes without cache or batch."""

import numpy as np
import pytest
import torch
from tests.tiny_models import tiny_qwen3_moe
from transformers import AutoModelForCausalLM

from veche.engines.protocol import Branch
from veche.engines.transformers import create
from veche.experts.disagreement import cosine_distance, linear_cka, next_token_js
from veche.experts.disagreement_map import disagreement

SYSTEM, USER = "You hear every voice.", "Что есть четыре?"
VOICES = {"логик": " Объясни.", "objector": " Be careful and exact, and hear every voice."}
ANSWER = "the council hears every voice, и ответ — четыре."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_qwen3_moe(tmp_path_factory.mktemp("moe"))


@pytest.fixture(scope="module")
def engine(folder):
    return create(folder, dtype="float32")


def mapped(engine, voices, answer=ANSWER, **options):
    trunk = engine.open_trunk(system=SYSTEM, user=USER)
    branches = [Branch(voice=name, instruction=text) for name, text in voices.items()]
    return disagreement(engine, trunk, branches, answer, hidden_layers=(0, 1, 2, 3), **options)


def read_alone(engine, folder, instruction, answer_ids):
    """Return logits and hidden states just before each token of the answer."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    chat = engine._format
    prompt = [*chat.head_ids(SYSTEM, USER), *chat.suffix_ids(instruction)]
    with torch.inference_mode():
        output = model(input_ids=torch.tensor([[*prompt, *answer_ids]]), output_hidden_states=True)
    at = slice(len(prompt) - 1, -1)
    states = torch.stack([layer[0, at] for layer in output.hidden_states], dim=1)
    return output.logits[0, at].numpy(), states.numpy()


def test_every_figure_is_that_of_reading_alone(engine, folder):
    told = mapped(engine, VOICES)
    (first, one), (second, two) = (
        read_alone(engine, folder, text, told.token_ids) for text in VOICES.values()
    )
    assert told.js_bits == pytest.approx(next_token_js(first, second), abs=1e-4)
    assert told.hidden_distance == pytest.approx(cosine_distance(one, two), abs=1e-4)
    for layer in range(1, 4):
        assert told.cka[layer] == pytest.approx(linear_cka(one[:, layer], two[:, layer]), abs=1e-4)
    assert told.js_bits.max() > 0.01
    assert told.routing_overlap.shape == (len(told.tokens), 3)
    assert told.routing_by_chance == 3 / 8
    assert told.routing_overlap.mean() < 1


def test_the_embedding_sees_no_voice_behind_the_first_token(engine):
    told = mapped(engine, VOICES)
    assert told.hidden_distance[:, 0] == pytest.approx(0, abs=1e-6)
    assert told.hidden_distance[:, 1:].max() > 0.01


def test_without_an_answer_all_read_what_the_first_voice_says(engine):
    told = mapped(engine, VOICES, answer=None, max_tokens=6)
    again = mapped(engine, VOICES, answer=told.answer)
    assert told.answer
    assert told.token_ids == again.token_ids
    assert np.array_equal(told.js_bits, again.js_bits)


def test_an_empty_answer_leaves_nothing_to_read(engine):
    from veche.core.errors import InputError

    with pytest.raises(InputError):
        mapped(engine, VOICES, answer="")
