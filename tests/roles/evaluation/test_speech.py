"""How a role speaks: what it costs it to read, against transformers, and how often it is right."""

import math

import pytest
import torch
from tests.roles.adapters import an_adapter
from tests.tiny_models import tiny_llama

from veche.core.errors import InputError
from veche.engines.transformers import create
from veche.roles.data.example import Example, Message
from veche.roles.evaluation.scored import measured
from veche.roles.evaluation.speech import prepare_speech
from veche.roles.role import Role
from veche.roles.speaker import Speaker, instruction_for

ROLE = Role(
    name="logician", kind="drafter", title={"en": "L", "ru": "Л"},
    prompt={"en": "Think.", "ru": "Думай."},
)  # fmt: skip


def asked(number, answer=None, **labels):
    said = () if answer is None else (Message(role="assistant", content=answer),)
    return Example(
        messages=(Message(role="user", content=f"what is {number}?"), *said),
        group=str(number), task="t", language="en", **labels,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def engine(folder):
    return create(folder, dtype="float32")


def test_nll_is_that_of_transformers_over_all_tokens(engine):
    examples = [asked(n, f"it is {n * 37}, of course") for n in range(4)]
    part = measured(prepare_speech(engine, Speaker(role=ROLE), examples))
    total = count = 0
    for example in examples:
        chat = engine._format
        prompt = chat.head_ids("", example.messages[0].content)
        prompt += chat.suffix_ids(instruction_for(ROLE, "Think."))
        answer = chat.text_ids(example.messages[1].content)
        with torch.inference_mode():
            logits = engine._model(torch.tensor([prompt + answer])).logits[0].float()
        log_probs = logits.log_softmax(-1)[len(prompt) - 1 : -1]
        total -= float(log_probs[range(len(answer)), answer].sum())
        count += len(answer)
    assert part.headline == "nll"
    assert part.role.figures["nll"].mean == pytest.approx(total / count, rel=1e-4)


def test_a_role_that_nothing_was_trained_for_gains_nothing(engine):
    part = measured(prepare_speech(engine, Speaker(role=ROLE), [asked(n, "so") for n in range(4)]))
    assert [method.name for method in part.methods] == ["role", "model"]
    assert part.methods[1].gains["nll"].as_list() == [0, 0]


def test_an_adapter_changes_what_an_answer_costs(engine, folder, tmp_path):
    engine.load_adapter("a", an_adapter(tmp_path / "a", folder))
    speaker = Speaker(role=ROLE, adapter="a")
    part = measured(prepare_speech(engine, speaker, [asked(n, "so it is") for n in range(4)]))
    assert part.role.figures["nll"].mean != part.methods[1].figures["nll"].mean
    engine.unload_adapter("a")


def test_own_answers_are_checked_and_known_ones_are_read(engine):
    examples = [
        asked(1, "it is 1", is_right=True, final_answer="1"),
        asked(2, "it is 3", is_right=False, final_answer="2"),
        asked(3),
    ]
    prepared = prepare_speech(engine, Speaker(role=ROLE), examples, max_tokens=4)
    assert prepared.headline == "accuracy"
    assert {note.key: note.values["count"] for note in prepared.notes} == {
        "read": 1, "answered": 2, "unused": 1,
    }  # fmt: skip
    part = measured(prepared)
    assert 0 <= part.role.figures["accuracy"].mean <= 1
    assert math.isfinite(part.role.figures["nll"].mean)


def test_what_says_nothing_of_speech_is_refused(engine):
    with pytest.raises(InputError, match="neither an answer that may be right"):
        prepare_speech(engine, Speaker(role=ROLE), [asked(3)])
    long = Example(
        messages=(*asked(1, "no").messages, *asked(2, "yes").messages), group="g", task="t"
    )
    with pytest.raises(InputError, match="3 turns"):
        prepare_speech(engine, Speaker(role=ROLE), [long])
