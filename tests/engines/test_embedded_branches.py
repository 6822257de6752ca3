"""A branch computes what it would compute alone: against no cache, and against generate()."""

import pytest
import torch

from veche.core.errors import EngineError, InputError
from veche.engines.embedded.engine import EmbeddedEngine
from veche.engines.protocol import Branch, BranchResult, Capability, Sampling

SYSTEM = "You hear every voice."
USER = "Вопрос: the answer is four?"
INSTRUCTIONS = {
    "short": " Why",
    "long": " Every voice and the council and the answer, слово за словом, once more.",
    "middle": " Отвечай кратко",
}


def branches(max_new_tokens: int = 12, **sampling: object) -> list[Branch]:
    return [
        Branch(
            voice=voice,
            instruction=text,
            sampling=Sampling(max_new_tokens=max_new_tokens, seed=seed, **sampling),
        )
        for seed, (voice, text) in enumerate(INSTRUCTIONS.items())
    ]


def prompt_ids(engine: EmbeddedEngine, extension: str, instruction: str) -> list[int]:
    chat = engine._format
    head = chat.head_ids(SYSTEM, USER)
    return head + chat.text_ids(extension) + chat.suffix_ids(instruction)


def opened(engine: EmbeddedEngine, extension: str = ""):
    trunk = engine.open_trunk(system=SYSTEM, user=USER)
    if extension:
        engine.extend_trunk(trunk, extension)
    return trunk


def by_voice(results: list[BranchResult]) -> dict[str, BranchResult]:
    return {result.voice: result for result in results}


class LogitsOfLastPosition:
    """Collects what the model's head computes, step by step."""

    def __init__(self, engine: EmbeddedEngine) -> None:
        self.steps: list[torch.Tensor] = []
        self._handle = engine._model.lm_head.register_forward_hook(
            lambda module, inputs, output: self.steps.append(output[:, -1].float())
        )

    def close(self) -> list[torch.Tensor]:
        self._handle.remove()
        return self.steps


@pytest.mark.parametrize("extension", ["", " Черновик A: four. Черновик B: пять."])
def test_logits_and_tokens_equal_a_full_forward_without_cache(engine, extension):
    trunk = opened(engine, extension)
    listener = LogitsOfLastPosition(engine)
    results = engine.decode(trunk, branches())
    steps = listener.close()
    assert all(len(result.token_ids) == 12 for result in results)
    for row, result in enumerate(results):
        ids = prompt_ids(engine, extension, INSTRUCTIONS[result.voice])
        for step, token in enumerate(result.token_ids):
            with torch.inference_mode():
                logits_V = engine._model(torch.tensor([ids]), use_cache=False).logits[0, -1]
            assert torch.allclose(steps[step][row], logits_V, rtol=0, atol=1e-4)
            assert token == int(logits_V.argmax())
            probs_V = torch.softmax(logits_V.double(), -1)
            entropy = float(-(probs_V * probs_V.log()).sum())
            assert result.entropies[step] == pytest.approx(entropy, abs=1e-4)
            ids.append(token)


def test_greedy_branches_equal_transformers_generate(engine):
    results = engine.decode(opened(engine), branches(max_new_tokens=20))
    for result in results:
        ids = torch.tensor([prompt_ids(engine, "", INSTRUCTIONS[result.voice])])
        generated = engine._model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=20,
            do_sample=False,
            pad_token_id=0,
        )
        assert list(result.token_ids) == generated[0, ids.shape[1] :].tolist()


def test_repetition_penalty_equals_its_equation(engine):
    plain, penalised = (
        by_voice(engine.decode(opened(engine), branches(repetition_penalty=penalty)))["short"]
        for penalty in (1.0, 5.0)
    )
    assert len(set(penalised.token_ids)) >= len(set(plain.token_ids))
    ids = prompt_ids(engine, "", INSTRUCTIONS["short"])
    decoded: list[int] = []
    for token in penalised.token_ids:
        with torch.no_grad():
            output = engine._model(torch.tensor([ids + decoded]), use_cache=False)
            logits = output.logits[0, -1].clone()
        for seen in set(decoded):
            logits[seen] = logits[seen] / 5 if logits[seen] > 0 else logits[seen] * 5
        assert token == int(logits.argmax())
        decoded.append(token)


@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.9, "top_p": 0.8}])
def test_a_branch_does_not_depend_on_its_neighbours(engine, sampling):
    together = by_voice(engine.decode(opened(engine), branches(**sampling)))
    for branch in branches(**sampling):
        alone = engine.decode(opened(engine), [branch])[0]
        assert alone.token_ids == together[branch.voice].token_ids
        assert alone.text == together[branch.voice].text


def test_decoding_leaves_the_trunk_as_it_was(engine):
    trunk = opened(engine)
    before = [layer.keys[:, :, : layer.length].clone() for layer in trunk.rows.cache.layers]
    first = engine.decode(trunk, branches())
    second = engine.decode(trunk, branches())
    assert [r.token_ids for r in first] == [r.token_ids for r in second]
    for keys, layer in zip(before, trunk.rows.cache.layers, strict=True):
        assert torch.equal(keys, layer.keys[:, :, : layer.length])


def test_an_extended_trunk_equals_one_that_was_opened_whole(engine):
    grown = engine.open_trunk(system=SYSTEM, user="")
    for word in [USER, " Ещё", " слово.", " again" * 60]:
        engine.extend_trunk(grown, word)
    whole = engine.open_trunk(system=SYSTEM, user="")
    engine._append(whole, 0, engine._format.text_ids(USER))
    ids = [*engine._format.text_ids(" Ещё"), *engine._format.text_ids(" слово.")]
    engine._append(whole, 0, [*ids, *engine._format.text_ids(" again" * 60)])
    assert grown.num_tokens == whole.num_tokens
    results = [engine.decode(trunk, branches()) for trunk in (grown, whole)]
    assert [r.token_ids for r in results[0]] == [r.token_ids for r in results[1]]


def test_branches_end_at_their_own_end_token_and_the_rest_goes_on(engine, monkeypatch):
    full = engine.decode(opened(engine), branches(max_new_tokens=16))
    end = full[0].token_ids[4]
    monkeypatch.setattr(engine, "_end_ids", frozenset({end}))
    cut = engine.decode(opened(engine), branches(max_new_tokens=16))
    for whole, part in zip(full, cut, strict=True):
        ids = whole.token_ids
        expected = ids[: ids.index(end) + 1] if end in ids else ids
        assert part.token_ids == expected
        assert part.finish_reason == ("stop" if end in ids else "length")
    assert len(cut[0].token_ids) <= 5


def test_different_budgets_in_one_batch_each_hold(engine):
    mixed = [
        Branch(voice=str(budget), instruction=" Why", sampling=Sampling(max_new_tokens=budget))
        for budget in (1, 9, 4)
    ]
    results = engine.decode(opened(engine), mixed)
    assert [len(result.token_ids) for result in results] == [1, 9, 4]
    assert results[1].token_ids[:4] == results[2].token_ids


def test_a_stop_text_ends_a_branch_and_is_not_shown(engine):
    plain = engine.decode(opened(engine), branches())[0]
    stop = plain.text[3:5]
    pieces: list[str] = []
    cut = engine.decode(
        opened(engine), branches(stop=(stop,))[:1], lambda voice, piece: pieces.append(piece)
    )[0]
    assert cut.finish_reason == "stop"
    assert cut.text == plain.text[: plain.text.index(stop)] == "".join(pieces)


def test_usage_counts_every_prompt_token_once(engine):
    trunk = opened(engine)
    added = engine.extend_trunk(trunk, " и ещё")
    assert added == engine.count_tokens(" и ещё")
    for result in engine.decode(trunk, branches()):
        prompt = prompt_ids(engine, " и ещё", INSTRUCTIONS[result.voice])
        assert result.reused_tokens == trunk.num_tokens
        assert result.prefilled_tokens + result.reused_tokens == len(prompt)


def test_routing_equals_the_routers_own_output_without_cache(engine):
    if Capability.ROUTING not in engine.capabilities:
        assert engine.decode(opened(engine), branches())[0].routing is None
        return
    results = engine.decode(opened(engine), branches())
    for result in results:
        prompt = prompt_ids(engine, "", INSTRUCTIONS[result.voice])
        ids = torch.tensor([prompt + list(result.token_ids[:-1])])
        with torch.inference_mode():
            output = engine._model(ids, use_cache=False, output_router_logits=True)
        assert result.routing.expert_ids.shape == (11, 3, 3)
        assert result.routing.num_experts == 8
        for layer, logits_TE in enumerate(output.router_logits):
            probs, order = torch.softmax(logits_TE[len(prompt) :], -1).topk(3)
            assert (result.routing.expert_ids[:, layer] == order.numpy()).all()
            weights = probs / probs.sum(-1, keepdim=True)
            assert abs(result.routing.weights[:, layer] - weights.numpy()).max() < 1e-3


def test_no_hook_is_left_behind_even_after_an_interrupt(moe_engine):
    def interrupt(voice: str, piece: str) -> None:
        raise KeyboardInterrupt

    trunk = opened(moe_engine)
    expected = moe_engine.decode(trunk, branches())
    with pytest.raises(KeyboardInterrupt):
        moe_engine.decode(trunk, branches(), interrupt)
    assert not any(router._forward_hooks for router in moe_engine._runner.control._routers)
    again = moe_engine.decode(trunk, branches())
    assert [r.token_ids for r in again] == [r.token_ids for r in expected]


def test_an_interrupted_extension_is_forgotten_whole(moe_engine, monkeypatch):
    trunk = opened(moe_engine)
    expected = moe_engine.decode(trunk, branches())
    feed = moe_engine._runner.feed

    def feed_and_stop(*args, **how):
        feed(*args, **how)
        raise KeyboardInterrupt

    monkeypatch.setattr(moe_engine._runner, "feed", feed_and_stop)
    with pytest.raises(KeyboardInterrupt):
        moe_engine.extend_trunk(trunk, " lost words")
    monkeypatch.undo()
    again = moe_engine.decode(trunk, branches())
    assert [r.token_ids for r in again] == [r.token_ids for r in expected]


def test_what_does_not_fit_the_context_is_refused_before_any_work(moe_engine):
    with pytest.raises(InputError, match="has a context of 512"):
        moe_engine.open_trunk(system="", user="слово " * 200)
    trunk = opened(moe_engine)
    with pytest.raises(InputError, match="has a context of 512"):
        moe_engine.extend_trunk(trunk, "слово " * 200)
    with pytest.raises(InputError, match="has a context of 512"):
        moe_engine.decode(trunk, branches(max_new_tokens=500))
    assert moe_engine.decode(trunk, branches())


def test_nan_logits_are_an_error_and_not_an_answer(moe_engine):
    weight = moe_engine._model.lm_head.weight
    kept = weight[5].clone()
    try:
        with torch.no_grad():
            weight[5] = float("nan")
        with pytest.raises(EngineError, match="NaN logits for voice 'short'"):
            moe_engine.decode(opened(moe_engine), branches())
    finally:
        with torch.no_grad():
            weight[5] = kept


def test_a_closed_trunk_is_not_used_again(moe_engine):
    trunk = opened(moe_engine)
    moe_engine.close_trunk(trunk)
    with pytest.raises(ValueError, match="was closed"):
        moe_engine.decode(trunk, branches())


def test_no_branches_is_no_work(moe_engine):
    assert moe_engine.decode(opened(moe_engine), []) == []
