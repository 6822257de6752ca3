"""Steering found and judged with a tiny model: against transformers' own forward pass."""

import numpy as np
import pytest
import torch
from tests import tiny_models

from veche.core.errors import InputError, UnsupportedError
from veche.engines.protocol import Sampling
from veche.engines.scripted import ScriptedEngine
from veche.engines.transformers import create
from veche.experts.identity import source_of
from veche.experts.steering.apply import answer_twice
from veche.experts.steering.basis import SteeringBasis
from veche.experts.steering.evaluate import JudgingTexts, evaluate
from veche.experts.steering.find import FindSettings, find
from veche.experts.steering.reading import reader
from veche.experts.steering.texts import TextSet, digest_of, pieces_of, read_texts

RUSSIAN = TextSet(
    name="russian", texts=tuple(f"Совет слышит каждый голос, номер {n}." for n in range(12))
)
ENGLISH = TextSet(
    name="english", texts=tuple(f"the council hears every voice, number {n}" for n in range(14))
)
SETTINGS = FindSettings(most=3)
NEUTRAL = ("def f(x): return x", "1 + 1 = 2; 2 + 2 = 4", "SELECT * FROM voices")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_models.tiny_qwen3_moe(tmp_path_factory.mktemp("moe"))


@pytest.fixture(scope="module")
def engine(folder):
    return create(folder, dtype="float32")


@pytest.fixture(scope="module")
def found(engine, folder):
    return find(engine, RUSSIAN, ENGLISH, source=source_of(str(folder)), settings=SETTINGS)


def logits_and_routers(engine, text):
    """Return logits [T, V] that predict the text's tokens, and router logits of these tokens."""
    chat = engine._format
    head = [*chat.document_ids, *chat.text_ids("\n")]
    ids = torch.tensor([[*head, *chat.text_ids(text)]])
    with torch.inference_mode():
        output = engine._model(ids, use_cache=False, output_router_logits=True)
    return output.logits[0, len(head) - 1 : -1], ids[0, len(head) :], output.router_logits, head


def test_readings_equal_a_plain_forward_pass(engine):
    texts = [*RUSSIAN.texts[:3], ENGLISH.texts[0]]
    with reader(engine) as reads:
        activations = reads.activations(texts, lambda amount: None)
        (reading,) = reads.compared(texts[0], [None], wants_logits=True)
    for n, text in enumerate(texts):
        _, ids, routers, head = logits_and_routers(engine, text)
        assert activations.num_tokens[n] == len(ids)
        for layer, router_TE in enumerate(routers):
            chosen = router_TE[len(head) :].topk(3).indices
            counts = np.bincount(chosen.numpy().ravel(), minlength=8)
            assert np.array_equal(activations.counts[n, layer], counts)
    logits, ids, _, _ = logits_and_routers(engine, texts[0])
    assert np.allclose(reading.logits, logits.float().numpy(), atol=1e-4)
    loss = torch.nn.functional.cross_entropy(logits.float(), ids)
    assert reading.nll == pytest.approx(float(loss), abs=1e-4)


def test_languages_are_told_apart_and_steered_rates_move_as_the_bias_says(engine, found):
    steering, contrast = found
    assert contrast.is_significant.any()
    assert (contrast.num_for, contrast.num_against) == (9, 10)
    texts = JudgingTexts(for_=RUSSIAN, against=ENGLISH, neutral=NEUTRAL)
    figures = evaluate(engine, steering, texts, strengths=[-3.0, 0.0, 3.0])
    assert (figures.num_for, figures.num_against, figures.num_neutral) == (3, 4, 3)
    backward, none, forward = figures.rows
    for key, sign in (("favoured_rate", 1), ("muted_rate", -1)):
        rates = [getattr(row.effect, key) for row in (backward, none, forward)]
        if rates[0] is not None:
            assert rates[0].mean * sign < 0 < rates[2].mean * sign
    # Rows of one batch may be summed in another order: not bit-equal, but equal.
    assert none.effect.preference.mean == pytest.approx(0, abs=1e-5)
    assert none.collateral.kl.mean == pytest.approx(0, abs=1e-6)
    assert none.collateral.agreement.mean == 1
    assert forward.collateral.kl.mean > 10 * figures.floor.collateral.kl.mean


def test_collateral_equals_its_equations_in_float64(engine, found):
    steering, _ = found
    texts = JudgingTexts(for_=RUSSIAN, against=ENGLISH, neutral=NEUTRAL)
    (row,) = evaluate(engine, steering, texts, strengths=[2.0]).rows
    divergences, same = [], []
    with reader(engine) as reads:
        for piece in NEUTRAL:
            pair = reads.compared(piece, [None, steering.at(2.0)], wants_logits=True)
            plain, other = (torch.tensor(each.logits).double().log_softmax(-1) for each in pair)
            divergences.append(float((plain.exp() * (plain - other)).sum(-1).mean()))
            same.append(float((plain.argmax(-1) == other.argmax(-1)).double().mean()))
    assert row.collateral.kl.mean == pytest.approx(np.mean(divergences), rel=1e-3, abs=1e-6)
    assert row.collateral.agreement.mean == pytest.approx(np.mean(same))


def test_no_text_judges_what_it_helped_to_find(engine, found):
    steering, _ = found
    used = set(steering.finding.used_texts)
    assert len(used) == 9 + 10
    seen = TextSet(name="x", texts=tuple(t for t in RUSSIAN.texts if digest_of(t) in used))
    texts = JudgingTexts(for_=seen, against=ENGLISH, neutral=NEUTRAL)
    with pytest.raises(InputError, match="0 of the 9 texts of x are left"):
        evaluate(engine, steering, texts, strengths=[1.0])


def test_a_steered_answer_begins_behind_the_same_trunk(engine, found):
    steering, _ = found
    sampling = Sampling(max_new_tokens=12)
    pair = answer_twice(engine, "Кто говорит?", steering.at(4.0), sampling=sampling)
    again = answer_twice(engine, "Кто говорит?", steering.at(-4.0), sampling=sampling)
    assert pair.plain == again.plain
    assert pair.steered != pair.plain
    silent = answer_twice(engine, "Кто говорит?", steering.at(0.0), sampling=sampling)
    assert silent.steered == silent.plain == pair.plain
    assert silent.common_tokens == silent.plain_tokens


def test_what_cannot_be_steered_is_told(folder, found, tmp_path):
    with pytest.raises(UnsupportedError, match="steering"), reader(ScriptedEngine({})):
        pytest.fail("a script was read")
    dense = tiny_models.tiny_llama(tmp_path)
    with pytest.raises(UnsupportedError, match="steering"), reader(create(dense)):
        pytest.fail("a dense model was steered")


def test_texts_are_read_from_lines_and_json_lines(tmp_path):
    lines = tmp_path / "строки.txt"
    lines.write_text("Первый\n\nВторой текст\nПервый\n", encoding="utf-8")
    assert read_texts(lines) == TextSet(name="строки", texts=("Первый", "Второй текст"))
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "a\\nb"}\n{"prompt": "Что?"}\n', encoding="utf-8")
    assert read_texts(rows).texts == ("a\nb", "Что?")
    rows.write_text(
        '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n'
    )
    with pytest.raises(InputError, match="dialogues"):
        read_texts(rows)


def test_held_out_shares_are_disjoint_and_drawn_anew_by_each_seed():
    kept = [ENGLISH.without_share(0.25, seed) for seed in (0, 0, 1)]
    assert kept[0] == kept[1] != kept[2]
    assert len(kept[0].texts) == 10  # 14 less round(3.5)
    left = ENGLISH.without({digest_of(text) for text in kept[0].texts})
    assert sorted([*left.texts, *kept[0].texts]) == sorted(ENGLISH.texts)


def test_pieces_of_a_text_lie_apart():
    text = "".join(chr(ord("а") + n % 32) for n in range(100))
    assert pieces_of(text, num_pieces=3, characters=20) == (text[:20], text[40:60], text[80:])
    assert len(pieces_of(text, num_pieces=50, characters=20)) == 5
    with pytest.raises(InputError, match="100 characters"):
        pieces_of(text, num_pieces=3, characters=60)


def test_a_basis_of_another_model_is_refused_by_the_routers_too(engine):
    from veche.engines.protocol import Steering

    wrong = Steering(bias=np.ones((2, 8), np.float32))
    with pytest.raises(InputError, match=r"shape \[2, 8\]"):
        answer_twice(engine, "?", wrong, sampling=Sampling(max_new_tokens=2))


def test_texts_in_both_sets_are_refused(engine, folder):
    both = TextSet(name="both", texts=(*ENGLISH.texts, RUSSIAN.texts[0]))
    with pytest.raises(InputError, match="1 texts are in both sets"):
        find(engine, RUSSIAN, both, source=source_of(str(folder)))


def test_a_found_steering_is_of_the_model_that_was_read(found, folder):
    steering, _ = found
    assert isinstance(steering, SteeringBasis)
    assert steering.source == source_of(str(folder))
    assert steering.layers == (0, 1, 2)
    assert (steering.basis != 0).sum() == 3
