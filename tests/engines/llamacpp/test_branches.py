"""A branch in llama.cpp computes what transformers computes for its tokens, without any cache."""

import os
from contextlib import contextmanager
from threading import Thread

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from veche.core.errors import EngineError, InputError
from veche.engines.protocol import Branch, Capability, Capture, Sampling

pytestmark = pytest.mark.skipif(not os.environ.get("VECHE_LLAMA_CPP"), reason="make test-llamacpp")
SYSTEM = "You hear every voice."
USER = "Вопрос: the answer is four?"
INSTRUCTIONS = {
    "short": " Why",
    "long": " Every voice and the council and the answer, слово за словом, once more.",
    "middle": " Отвечай кратко",
}
EVERYTHING = Capture(router_logits=True, logits=True, logprobs=4)
PLAIN = Capture(logits=True, logprobs=4)


def branches(max_new_tokens=12, capture=PLAIN, keep=False, **sampling):
    return [
        Branch(
            voice=voice,
            instruction=text,
            sampling=Sampling(max_new_tokens=max_new_tokens, seed=seed, **sampling),
            capture=capture,
            keep=keep,
        )
        for seed, (voice, text) in enumerate(INSTRUCTIONS.items())
    ]


@contextmanager
def opened(engine, extension=""):
    trunk = engine.open_trunk(system=SYSTEM, user=USER)
    try:
        if extension:
            engine.extend_trunk(trunk, extension)
        yield trunk
    finally:
        engine.close_trunk(trunk)


def prompt_ids(engine, trunk, instruction):
    return [*trunk.token_ids, *engine._format.suffix_ids(instruction)]


def decoded(engine, asked):
    with opened(engine) as trunk:
        return engine.decode(trunk, asked)


def tokens(results):
    return [result.token_ids for result in results]


def capture_of(engine):
    return EVERYTHING if Capability.ROUTING in engine.capabilities else PLAIN


@pytest.mark.parametrize("extension", ["", " Черновик A: four. Черновик B: пять."])
def test_logits_and_routing_equal_a_full_forward_of_transformers(engine, reference, extension):
    with opened(engine, extension) as trunk:
        results = engine.decode(trunk, branches(capture=capture_of(engine)))
        for result in results:
            prompt = prompt_ids(engine, trunk, INSTRUCTIONS[result.voice])
            ids = [*prompt, *result.token_ids]
            wanted = reference.logits(ids)[len(prompt) - 1 : -1]
            scale = np.abs(wanted).max()
            assert np.abs(result.logits - wanted).max() <= 1e-5 * scale
            assert list(result.token_ids) == wanted.argmax(-1).tolist()
            log_p = torch.log_softmax(torch.tensor(wanted).double(), -1).numpy()
            entropies = -(np.exp(log_p) * log_p).sum(-1)
            assert result.entropies == pytest.approx(entropies.tolist(), abs=1e-4)
            assert result.logprobs.chosen == pytest.approx(log_p.max(-1), abs=1e-4)
            assert (result.logprobs.top_ids[:, 0] == wanted.argmax(-1)).all()
            if result.routing is not None:
                assert_routed_alike(result.routing, reference, ids, len(prompt))


def assert_routed_alike(routing, reference, ids, start):
    """Sets are equal for each layer and token; logits and weights within rounding."""
    config = reference.model.config
    logits_LTE = reference.router_logits(ids)[:, start:-1]
    if not routing.expert_ids.size:
        return
    assert np.abs(routing.logits - logits_LTE.swapaxes(0, 1)).max() <= 1e-4
    order = np.argsort(-logits_LTE, axis=-1, kind="stable").swapaxes(0, 1)
    best = order[..., : config.num_experts_per_tok]
    assert (routing.expert_ids == best).all()
    probs = np.exp(logits_LTE) / np.exp(logits_LTE).sum(-1, keepdims=True)
    weights = np.take_along_axis(probs.swapaxes(0, 1), best, -1)
    if getattr(config, "norm_topk_prob", True):
        weights /= weights.sum(-1, keepdims=True)
    assert np.abs(routing.weights - weights).max() <= 1e-3
    assert routing.num_experts == logits_LTE.shape[-1]


def test_a_model_without_experts_reports_no_routing(load):
    engine = load("llama")
    assert not {Capability.ROUTING, Capability.ROUTER_LOGITS} & engine.capabilities
    assert decoded(engine, branches())[0].routing is None


def test_routers_can_be_left_alone(load):
    engine, heard = load("qwen3_moe", routing=False), load("qwen3_moe")
    assert heard.capabilities - engine.capabilities == {
        Capability.ROUTING,
        Capability.ROUTER_LOGITS,
    }
    assert tokens(decoded(engine, branches())) == tokens(decoded(heard, branches()))
    with opened(engine) as trunk, pytest.raises(InputError, match="cannot do: router_logits"):
        engine.decode(trunk, branches(capture=EVERYTHING))


def test_routing_is_shown_as_it_happens_and_costs_no_token(moe):
    heard = []
    with opened(moe) as trunk:
        quiet = [
            Branch(**{f: getattr(b, f) for f in ("voice", "instruction", "sampling")},
                   capture=Capture(routing=False))
            for b in branches()
        ]  # fmt: skip
        silent = moe.decode(trunk, quiet)
        results = moe.decode(
            trunk, branches(), on_routing=lambda voice, ids, weights: heard.append((voice, ids))
        )
    assert tokens(results) == tokens(silent)
    assert all(result.routing is None for result in silent)
    for result in results:
        mine = [ids for voice, ids in heard if voice == result.voice]
        assert (np.stack(mine) == result.routing.expert_ids).all()
        assert len(mine) == len(result.token_ids) - 1


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.9, "top_p": 0.8, "top_k": 40}])
def test_a_branch_does_not_depend_on_its_neighbours(engine, sampling):
    with opened(engine) as trunk:
        together = {r.voice: r for r in engine.decode(trunk, branches(**sampling))}
        for branch in branches(**sampling):
            alone = engine.decode(trunk, [branch])[0]
            assert alone.token_ids == together[branch.voice].token_ids
            assert alone.text == together[branch.voice].text


def test_decoding_leaves_the_trunk_as_it_was(engine):
    with opened(engine) as trunk:
        used = engine._cells.num_used
        first, second = (engine.decode(trunk, branches()) for _ in range(2))
        assert engine._cells.num_used == used == trunk.num_tokens
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.logits, other.logits)


def test_an_extended_trunk_equals_one_that_was_opened_whole(engine, reference):
    with opened(engine) as trunk:
        for word in (" Ещё", "", " слово.", " again" * 60):
            engine.extend_trunk(trunk, word)
        ids = trunk.token_ids
        assert trunk.num_tokens == len(ids)
        wanted = reference.logits(ids)[-1]
        assert np.abs(trunk.last_logits - wanted).max() <= 1e-5 * np.abs(wanted).max()


def test_a_prompt_longer_than_a_batch_is_prefilled_in_pieces(load, reference_of):
    engine = load("qwen3_moe")
    trunk = engine.open_trunk(system="", user="голос " * 30)
    try:
        assert 256 < trunk.num_tokens < 512
        asked = [
            Branch(voice=str(n), instruction=" word" * 20, sampling=Sampling(max_new_tokens=3))
            for n in range(9)
        ]
        ids = prompt_ids(engine, trunk, asked[0].instruction)
        assert 9 * (len(ids) - trunk.num_tokens) > 512
        results = engine.decode(trunk, asked)
        assert len(set(tokens(results))) == 1
        assert results[0].token_ids[0] == reference_of("qwen3_moe").logits(ids)[-1].argmax()
    finally:
        engine.close_trunk(trunk)


def test_branches_end_at_their_own_end_token_and_the_rest_goes_on(engine, monkeypatch):
    monkeypatch.setattr(engine._vocabulary, "is_end", lambda token_id: False)
    full = decoded(engine, branches(max_new_tokens=16))
    end = full[0].token_ids[4]
    monkeypatch.setattr(engine._vocabulary, "is_end", lambda token_id: token_id == end)
    cut = decoded(engine, branches(max_new_tokens=16))
    for whole, part in zip(full, cut, strict=True):
        ids = whole.token_ids
        assert part.token_ids == (ids[: ids.index(end) + 1] if end in ids else ids)
        assert part.finish_reason == ("stop" if end in ids else "length")
    assert len(cut[0].token_ids) <= 5


def test_different_budgets_in_one_batch_each_hold(moe):
    mixed = [
        Branch(voice=str(budget), instruction=" Why", sampling=Sampling(max_new_tokens=budget))
        for budget in (1, 9, 4)
    ]
    results = decoded(moe, mixed)
    assert [len(result.token_ids) for result in results] == [1, 9, 4]
    assert results[1].token_ids[:4] == results[2].token_ids


def test_a_stop_text_ends_a_branch_and_is_not_shown(moe):
    plain = decoded(moe, branches())[0]
    stop = plain.text[3:5]
    pieces = []
    with opened(moe) as trunk:
        cut = moe.decode(
            trunk, branches(stop=(stop,))[:1], lambda voice, piece: pieces.append(piece)
        )[0]
    assert cut.finish_reason == "stop"
    assert cut.text == plain.text[: plain.text.index(stop)] == "".join(pieces)


def test_usage_counts_every_prompt_token_once(moe):
    with opened(moe) as trunk:
        added = moe.extend_trunk(trunk, " и ещё")
        assert added == moe.count_tokens(" и ещё")
        for result in moe.decode(trunk, branches()):
            prompt = prompt_ids(moe, trunk, INSTRUCTIONS[result.voice])
            assert result.reused_tokens == trunk.num_tokens
            assert result.prefilled_tokens + result.reused_tokens == len(prompt)


def test_no_branches_is_no_work(moe):
    assert decoded(moe, []) == []


def test_what_does_not_fit_is_refused_before_any_work(load):
    engine = load("qwen3_moe", cache_tokens=300, max_sequences=4)
    with pytest.raises(InputError, match="has a context of 300"):
        engine.open_trunk(system="", user="слово " * 200)
    with opened(engine) as trunk:
        with pytest.raises(InputError, match="has a context of 300"):
            engine.decode(trunk, branches(max_new_tokens=290))
        with pytest.raises(InputError, match="the cache has room for"):
            engine.decode(trunk, branches(max_new_tokens=100))
        with pytest.raises(InputError, match="3 of 4 are free"):
            engine.decode(trunk, [*branches(), Branch(voice="one more", instruction="")])
        assert engine.decode(trunk, branches())
    assert engine._cells.num_used == 0


def test_a_full_cache_with_holes_is_used_to_the_last_token(load, reference_of):
    engine = load("qwen3_moe", cache_tokens=512, max_sequences=8)
    trunks = [engine.open_text("голос " * 9) for _ in range(4)]
    assert 4 * trunks[0].num_tokens >= 400
    for trunk in trunks[::2]:
        engine.close_trunk(trunk)
    free = engine._cells.num_cells - engine._cells.num_used
    long = engine.open_text("a" * (free - 1))
    assert engine._cells.num_used == 512
    for trunk in (long, *trunks[1::2]):
        wanted = reference_of("qwen3_moe").logits(trunk.token_ids)[-1]
        asked = Branch(voice="a", instruction="", sampling=Sampling(max_new_tokens=1))
        if trunk is long:
            with pytest.raises(InputError, match="has room for 0 of its 512"):
                engine.decode(trunk, [asked])
        assert np.abs(trunk.last_logits - wanted).max() <= 1e-5 * np.abs(wanted).max()
        engine.close_trunk(trunk)


def test_a_closed_trunk_is_not_used_again(moe):
    with opened(moe) as trunk:
        pass
    with pytest.raises(ValueError, match="was closed"):
        moe.decode(trunk, branches())


class TestKeeping:
    def test_going_on_equals_never_having_stopped(self, engine):
        whole = decoded(engine, branches(max_new_tokens=9))
        with opened(engine) as trunk:
            parts = engine.decode(trunk, branches(max_new_tokens=4, keep=True))
        for full, part in zip(whole, parts, strict=True):
            left = len(full.token_ids) - 4
            if left < 1 or full.finish_reason == "stop":
                engine.close_trunk(part.trunk)
                continue
            rest = Branch(voice="rest", instruction="", sampling=Sampling(max_new_tokens=left))
            result = engine.decode(part.trunk, [rest])[0]
            assert [*part.token_ids, *result.token_ids] == list(full.token_ids)
            assert result.prefilled_tokens == 0
            engine.close_trunk(part.trunk)

    def test_the_next_turn_is_that_of_the_template(self, engine, reference):
        with opened(engine) as trunk:
            kept = engine.decode(trunk, branches(max_new_tokens=4, keep=True)[:1])[0].trunk
        asked = [Branch(voice="next", instruction=" И что?", capture=PLAIN)]
        first = engine.decode(kept, asked)[0]
        ids = [*kept.token_ids, *engine._format.next_turn_ids(" И что?")]
        ids += engine._format.suffix_ids("")
        wanted = reference.logits(ids)[-1]
        assert np.abs(first.logits[0] - wanted).max() <= 1e-5 * np.abs(wanted).max()
        engine.extend_trunk(kept, " И что?")
        asked = [Branch(voice="next", instruction="", capture=PLAIN)]
        assert engine.decode(kept, asked)[0].token_ids == first.token_ids
        engine.close_trunk(kept)

    def test_an_end_token_is_not_kept(self, moe, monkeypatch):
        plain = decoded(moe, branches())[0]
        end = plain.token_ids[3]
        monkeypatch.setattr(moe._vocabulary, "is_end", lambda token_id: token_id == end)
        with opened(moe) as trunk:
            kept = moe.decode(trunk, branches(keep=True)[:1])[0]
            prompt = prompt_ids(moe, trunk, INSTRUCTIONS["short"])
        said = plain.token_ids[: plain.token_ids.index(end)]
        assert kept.trunk.token_ids == [*prompt, *said]
        assert kept.trunk.last_logits.argmax() == end
        moe.close_trunk(kept.trunk)

    def test_a_kept_branch_outlives_the_trunk(self, moe):
        with opened(moe) as trunk:
            kept = moe.decode(trunk, branches(keep=True)[:1])[0].trunk
            before = moe.decode(kept, [Branch(voice="a", instruction=" Why")])[0]
        assert moe._cells.num_used == kept.num_tokens
        after = moe.decode(kept, [Branch(voice="a", instruction=" Why")])[0]
        assert after.token_ids == before.token_ids
        moe.close_trunk(kept)


class TestScoring:
    def test_a_given_answer_is_read_as_transformers_reads_it(self, engine, reference):
        answers = [" the answer is four", " Нет, пять."]
        asked = branches(capture=capture_of(engine))[:2]
        with opened(engine) as trunk:
            results = engine.score(trunk, asked, answers)
            for result, answer in zip(results, answers, strict=True):
                prompt = prompt_ids(engine, trunk, INSTRUCTIONS[result.voice])
                ids = [*prompt, *engine._format.text_ids(answer)]
                wanted = reference.logits(ids)[len(prompt) - 1 : -1]
                assert list(result.token_ids) == ids[len(prompt) :]
                assert np.abs(result.logits - wanted).max() <= 1e-5 * np.abs(wanted).max()
                assert result.text == answer
                if result.routing is not None:
                    assert len(result.routing.expert_ids) == len(result.token_ids)
                    assert_routed_alike(result.routing, reference, [*ids, 5], len(prompt))

    def test_a_long_answer_is_read_in_pieces(self, moe, reference_of):
        answer = " голос" * 30
        with opened(moe) as trunk:
            result = moe.score(trunk, branches(capture=EVERYTHING)[:1], [answer])[0]
            prompt = prompt_ids(moe, trunk, INSTRUCTIONS["short"])
        ids = [*prompt, *moe._format.text_ids(answer)]
        assert len(ids) - len(prompt) > 2 * 64
        wanted = reference_of("qwen3_moe").logits(ids)[len(prompt) - 1 : -1]
        assert np.abs(result.logits - wanted).max() <= 1e-5 * np.abs(wanted).max()
        assert_routed_alike(result.routing, reference_of("qwen3_moe"), [*ids, 5], len(prompt))

    def test_a_plain_text_has_no_markup(self, engine, reference):
        trunk = engine.open_text("the council hears")
        asked = Branch(voice="a", instruction="", sampling=Sampling(max_new_tokens=3))
        result = engine.decode(trunk, [asked])[0]
        assert trunk.token_ids[1:] == engine._format.text_ids("the council hears")
        assert result.token_ids[0] == reference.logits(trunk.token_ids)[-1].argmax()
        assert result.prefilled_tokens == 0
        engine.close_trunk(trunk)


STEP = st.tuples(st.sampled_from(["extend", "keep", "next", "close", "decode"]), st.integers(0, 7))


@settings(max_examples=25, deadline=None)
@given(steps=st.lists(STEP, max_size=9))
def test_every_trunk_of_a_random_tree_is_what_its_tokens_make_it(load, reference_of, steps):
    engine, reference = load("qwen3_moe"), reference_of("qwen3_moe")
    trunks = [engine.open_trunk(system=SYSTEM, user=USER)]
    for step, pick in steps:
        trunk = trunks[pick % len(trunks)]
        if trunk.num_tokens > 300:
            continue
        if step == "extend":
            engine.extend_trunk(trunk, " слово"[: pick + 1])
        elif step in ("keep", "decode", "next"):
            instruction = {"keep": "", "next": " И?", "decode": " Why"}[step]
            asked = [
                Branch(
                    voice=str(n), instruction=instruction * n, keep=step != "decode",
                    sampling=Sampling(max_new_tokens=2 + n, temperature=1.0, seed=pick),
                )
                for n in (1, 2)
            ]  # fmt: skip
            trunks += [r.trunk for r in engine.decode(trunk, asked) if r.trunk is not None]
        elif len(trunks) > 1:
            trunks.remove(trunk)
            engine.close_trunk(trunk)
    for trunk in trunks:
        wanted = reference.logits(trunk.token_ids)[-1]
        asked = [Branch(voice="a", instruction="", capture=PLAIN)]
        suffix = engine._suffix_ids(trunk, "")
        result = engine.decode(trunk, asked)[0]
        assert np.abs(trunk.last_logits - wanted).max() <= 1e-5 * np.abs(wanted).max()
        wanted = reference.logits([*trunk.token_ids, *suffix])[-1]
        assert np.abs(result.logits[0] - wanted).max() <= 1e-5 * np.abs(wanted).max()
        engine.close_trunk(trunk)
    assert engine._cells.num_used == 0
    assert len(engine._cells._free) == 64


def test_threads_wait_for_each_other_and_a_callback_that_asks_is_an_error(moe):
    with opened(moe) as trunk:
        expected = tokens(moe.decode(trunk, branches()))
        found = []
        threads = [
            Thread(target=lambda: found.append(tokens(moe.decode(trunk, branches()))))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [expected] * 3
        with pytest.raises(EngineError, match="while it was answering"):
            moe.decode(trunk, branches(), lambda *_: moe.extend_trunk(trunk, "ещё"))
        assert tokens(moe.decode(trunk, branches())) == expected
