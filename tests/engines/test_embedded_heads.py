"""Heads of branches behind one trunk, as the engine reports them, against eager attention."""

import pytest
import torch
from tests.engines.eager_heads import Alone
from transformers import AutoModelForCausalLM

from veche.engines.protocol import Branch, Capture, Sampling

SYSTEM, USER = "You hear every voice.", "Вопрос: the answer is four?"
INSTRUCTIONS = (" Why", " Every voice and the council, слово за словом.", "")
ANSWERS = ("the council hears", "четыре", "every voice and the council and the answer is four")


def branches(**options):
    return [
        Branch(voice=str(number), instruction=text, capture=Capture(heads=True), **options)
        for number, text in enumerate(INSTRUCTIONS)
    ]


def assert_as_alone(engine, folder, instruction, result):
    """Compare with the whole sequence, read at once; the last token may not have been fed back."""
    chat = engine._format
    prompt = [*chat.head_ids(SYSTEM, USER), *chat.suffix_ids(instruction)]
    fed = result.token_ids[: len(result.heads.entropy)]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    alone = Alone(model, torch.tensor([*prompt, *fed]))
    for layer in range(3):
        entropy, distance, norm, cosine = alone.expected(layer, len(fed))
        assert result.heads.entropy[:, layer] == pytest.approx(entropy, abs=1e-4)
        assert result.heads.distance[:, layer] == pytest.approx(distance, abs=1e-4, rel=1e-4)
        assert result.heads.output_norm[:, layer] == pytest.approx(norm, abs=1e-4)
        assert result.heads.similarity[layer] == pytest.approx(cosine, abs=1e-4)


def test_heads_that_read_an_answer(engine, folder):
    trunk = engine.open_trunk(system=SYSTEM, user=USER)
    results = engine.score(trunk, branches(), ANSWERS)
    for instruction, result in zip(INSTRUCTIONS, results, strict=True):
        assert len(result.heads.entropy) == len(result.token_ids)
        assert_as_alone(engine, folder, instruction, result)


def test_heads_that_write_one(engine, folder):
    trunk = engine.open_trunk(system=SYSTEM, user=USER)
    sampled = Sampling(max_new_tokens=6, temperature=1.0, seed=1)
    results = engine.decode(trunk, branches(sampling=sampled))
    for instruction, result in zip(INSTRUCTIONS, results, strict=True):
        if result.heads is not None:
            assert_as_alone(engine, folder, instruction, result)
    assert any(result.heads is not None for result in results)


def test_nobody_who_did_not_ask_is_told(engine):
    trunk = engine.open_trunk(system=SYSTEM, user=USER)
    asked, silent, _ = branches()
    silent = Branch(voice="silent", instruction="")
    told, untold = engine.score(trunk, [asked, silent], ANSWERS[:2])
    assert told.heads is not None
    assert untold.heads is None
