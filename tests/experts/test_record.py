"""Recording with a tiny real model: every token once, whatever interrupts it."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from tests import tiny_models

from veche.core.errors import InputError, OutputError, UnsupportedError
from veche.engines.protocol import Branch, Sampling
from veche.engines.scripted import ScriptedEngine
from veche.engines.transformers import create
from veche.experts.compare import compare
from veche.experts.folding import folded
from veche.experts.growth import new_capacity
from veche.experts.identity import source_of
from veche.experts.inputs import Item, Message, read_items
from veche.experts.record import RecordSettings, record, require_readable
from veche.experts.store import files_of, read_recording
from veche.experts.token_classes import CLASSES
from veche.experts.vocabulary import vocabulary_of
from veche.planning.planner import make_plan
from veche.planning.recipe import Recipe
from veche.surgery.build import build

PROMPTS = "Что такое вече?\nthe council hears every voice\nthe answer is four\n"
SETTINGS = RecordSettings(max_tokens=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_models.tiny_qwen3_moe(tmp_path_factory.mktemp("moe"))


@pytest.fixture(scope="module")
def engine(folder):
    return create(folder, dtype="float32")


@pytest.fixture
def items(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text(PROMPTS)
    return read_items(path)


@pytest.fixture
def run(folder, engine, tmp_path):
    """Record items into a folder: run(items, settings)."""

    def record_items(items, settings=SETTINGS, out="store", engine=engine):
        return record(
            engine, items, tmp_path / out, source=source_of(str(folder)), settings=settings,
            vocabulary=vocabulary_of(folder),
        )  # fmt: skip

    return record_items


def decoded(engine, prompt):
    trunk = engine.open_trunk(system="", user=prompt)
    (result,) = engine.decode(
        trunk, [Branch(voice="v", instruction="", sampling=Sampling(max_new_tokens=6))]
    )
    engine.close_trunk(trunk)
    return result


def test_what_is_recorded_is_what_the_engine_reports(run, engine, items, tmp_path):
    done = run(items)
    found = read_recording(tmp_path / "store")
    assert (done.num_added, done.num_tokens) == (3, found.num_tokens)
    starts = found.starts
    for item, note, start, end in zip(items, found.records, starts, starts[1:], strict=False):
        result = decoded(engine, item.messages[0].text)
        assert note.document == item.name
        assert np.array_equal(found.expert_ids[start:end], result.routing.expert_ids)
        assert found.token_ids[start:end].tolist() == [*result.token_ids[: end - start]]
    assert (found.num_layers, found.num_experts, found.top_k) == (3, 8, 3)
    assert (found.weights, found.router_logits) == (None, None)
    assert found.source.layers == (0, 1, 2)
    assert not found.source.has_equal_weights


def test_weights_and_logits_are_kept_on_request_and_agree_with_the_choice(run, items, tmp_path):
    run(items, replace(SETTINGS, weights=True, router_logits=True))
    found = read_recording(tmp_path / "store")
    best = np.argsort(-found.router_logits.astype(np.float32), axis=-1)[..., :3]
    assert (np.sort(best) == np.sort(found.expert_ids)).all(-1).mean() > 0.99
    assert found.weights.sum(-1) == pytest.approx(1, abs=2e-3)


def test_a_text_is_read_token_for_token_as_the_model_alone_routes_it(run, folder, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    text = "the council hears every voice, совет слышит 4 голоса"
    run([Item(name="t", text=text, labels={"language": "ru"})])
    found = read_recording(tmp_path / "store")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    between = tokenizer.convert_tokens_to_ids("<|endoftext|>")  # what stands between documents
    ids = [between, *tokenizer(text, add_special_tokens=False).input_ids]
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        logits = model(torch.tensor([ids]), output_router_logits=True).router_logits
    chosen = torch.stack([layer.topk(3).indices for layer in logits], 1).numpy()
    num = found.num_tokens
    assert found.token_ids.tolist() == ids[-num:]
    assert num > len(ids) // 2
    assert (np.sort(chosen[-num:]) == np.sort(found.expert_ids)).all()
    kinds = {CLASSES[number] for number in found.token_classes}
    assert kinds >= {"latin", "cyrillic", "punctuation", "digits"}
    assert "control" not in kinds
    assert found.records[0].labels == {"language": "ru"}


def test_a_long_text_is_read_in_pieces_and_no_word_is_lost(run, folder, tmp_path):
    words = [f"word{n}" for n in range(60)]
    run([Item(name="t", text=" ".join(words))], replace(SETTINGS, window_tokens=40))
    found = read_recording(tmp_path / "store")
    assert len(found.records) > 3
    assert {note.document for note in found.records} == {"t"}
    read = "".join(vocabulary_of(folder).texts(found.token_ids))
    # The first word of every piece is what the rest is read behind.
    assert sum(word in read for word in words) >= 60 - len(found.records) - 1
    assert max(note.num_tokens for note in found.records) <= 40


def test_a_dialogue_has_a_record_for_each_answer_given_or_decoded(run, folder, tmp_path):
    said = [
        ("system", "be brief"), ("user", "раз?"), ("assistant", " the answer is one"),
        ("user", "и?"), ("assistant", "два"), ("user", "three?"),
    ]  # fmt: skip
    item = Item(name="d", messages=tuple(Message(speaker=s, text=t) for s, t in said))
    run([item])
    found = read_recording(tmp_path / "store")
    assert [note.voice for note in found.records] == ["assistant"] * 3
    starts = found.starts
    read = [
        "".join(dict.fromkeys(vocabulary_of(folder).texts(found.token_ids[a:b])))
        for a, b in pairwise(starts)
    ]
    assert read[0].startswith(" the answer")
    assert "д" in read[1]
    assert found.records[2].num_tokens <= 6


WIDER = {"num_attention_heads": 6, "num_key_value_heads": 3, "moe_intermediate_size": 32}
MORE = {"num_experts": 16, "num_experts_per_tok": 6, "num_hidden_layers": 5}


@pytest.mark.parametrize("fields", [WIDER, MORE], ids=["wider", "more experts and layers"])
def test_growth_that_is_exact_leaves_every_tokens_experts_as_they_were(
    folder, engine, tmp_path, fields
):
    recipe = Recipe(name="g", base=str(folder), mode="split", allow_lossy=True, fields=fields)
    build(make_plan(recipe), folder, tmp_path / "grown")
    texts = [
        Item(name=f"t{n}", text=f"the council hears {n} voices, совет слышит") for n in range(6)
    ]
    grown = create(tmp_path / "grown", dtype="float32")
    for name, asked, model in (("before", engine, folder), ("after", grown, tmp_path / "grown")):
        record(
            asked, texts, tmp_path / name, source=source_of(str(model)), settings=SETTINGS,
            vocabulary=vocabulary_of(model),
        )  # fmt: skip
    before, after = read_recording(tmp_path / "before"), read_recording(tmp_path / "after")
    assert before.source.identity != after.source.identity
    back = folded(after, new_capacity(tmp_path / "grown"))
    assert back.source.layers == before.source.layers
    found = compare(before, back, num_permutations=99)
    assert found.num_same_tokens == before.num_tokens
    assert found.saturation == pytest.approx(1, abs=0.01)
    assert found.js == pytest.approx(0, abs=1e-3)
    assert (found.adjusted > 0.05).all()
    if fields is MORE:
        with pytest.raises(InputError, match="no common numbers"):
            compare(before, after)
        with pytest.raises(InputError, match="not of this grown model"):
            folded(before, new_capacity(tmp_path / "grown"))


def test_a_document_that_does_not_fit_is_named_and_the_others_are_kept(run, items, tmp_path):
    long = Item(name="long", messages=(Message(speaker="user", text="совет " * 400),))
    with pytest.raises(InputError, match=r"the document with 'совет совет .*context of 512"):
        run([items[0], long, items[1]])
    kept = read_recording(tmp_path / "store").records
    assert [note.document for note in kept] == [items[0].name]


class StoppedHereError(Exception):
    pass


class StopsAfter:
    """An engine that the user interrupts in front of the n-th document."""

    def __init__(self, engine, num):
        self._engine, self._left = engine, num

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def open_trunk(self, **words):
        if not self._left:
            raise StoppedHereError
        self._left -= 1
        return self._engine.open_trunk(**words)


def test_what_was_finished_is_kept_and_run_again_it_goes_on(run, engine, items, tmp_path):
    run(items, out="whole")
    with pytest.raises(StoppedHereError):
        run(items, engine=StopsAfter(engine, 2))
    half = read_recording(tmp_path / "store")
    assert [note.document for note in half.records] == [item.name for item in items[:2]]
    before = {file: file.read_bytes() for file in files_of(tmp_path / "store")}
    done = run(items)
    assert (done.num_kept, done.num_added) == (2, 1)
    whole, again = read_recording(tmp_path / "whole"), read_recording(tmp_path / "store")
    assert again.records == whole.records
    assert np.array_equal(again.expert_ids, whole.expert_ids)
    assert all(file.read_bytes() == data for file, data in before.items())
    assert run(items).num_added == 0


def test_documents_can_be_added_and_other_settings_cannot(run, items, tmp_path):
    run(items[:1])
    assert run(items).num_added == 2
    with pytest.raises(OutputError, match="max_tokens 6, not 7"):
        run(items, replace(SETTINGS, max_tokens=7))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("x")
    with pytest.raises(OutputError, match="something else"):
        run(items, out="other")


def test_another_models_recording_is_not_gone_on_with(run, items, tmp_path):
    run(items[:1])
    index = tmp_path / "store" / "recording.json"
    told = json.loads(index.read_text())
    index.write_text(json.dumps({**told, "identity": "0" * 64}))
    with pytest.raises(OutputError, match="another model"):
        run(items)


def test_an_engine_that_cannot_is_refused_before_anything_is_written(run, items, tmp_path):
    scripted = ScriptedEngine({"assistant": "да"})
    with pytest.raises(UnsupportedError, match="cannot do: routing"):
        run(items, engine=scripted)
    with pytest.raises(UnsupportedError, match="cannot do: score"):
        require_readable(scripted, [Item(text="x")])
    with pytest.raises(InputError, match="nothing to record"):
        require_readable(scripted, [])
    assert not (tmp_path / "store").exists()
