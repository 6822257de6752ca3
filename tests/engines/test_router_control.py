"""Each row of a batch chooses its experts in its own way: against equations in numpy, and models
that were loaded with that choice alone."""

import json

import numpy as np
import pytest
import torch
from tests import tiny_models

from veche.core.errors import InputError, UnsupportedError
from veche.engines.embedded.router_choice import RoutingRule, row_choice
from veche.engines.protocol import (
    AdaptiveExperts,
    Branch,
    Capability,
    Capture,
    Sampling,
    Steering,
)
from veche.engines.transformers import create
from veche.surgery.carving.layer_fit import ROUTER_SPREAD

SYSTEM, USER = "You hear every voice.", "Вопрос: the answer is four?"
L, E, K = 3, 8, 3


@pytest.fixture(scope="module", params=["tiny_mixtral", "tiny_qwen3_moe"])
def moe(request, tmp_path_factory):
    return getattr(tiny_models, request.param)(tmp_path_factory.mktemp("moe"))


@pytest.fixture(scope="module")
def asked(moe):
    return create(moe, dtype="float32")


def a_branch(voice="v", instruction=" Почему?", max_new_tokens=6, **given):
    return Branch(
        voice=voice,
        instruction=instruction,
        sampling=Sampling(max_new_tokens=max_new_tokens),
        capture=Capture(router_logits=True),
        **given,
    )


def decoded(engine, *branches):
    """Return results, and each branch's logits [T, V] of every step."""
    steps = []
    handle = engine._model.lm_head.register_forward_hook(
        lambda module, inputs, output: steps.append(output[:, -1].float())
    )
    try:
        results = engine.decode(engine.open_trunk(system=SYSTEM, user=USER), list(branches))
    finally:
        handle.remove()
    steps = steps[-max(len(result.token_ids) for result in results) :]
    return results, [torch.stack([s[row] for s in steps]) for row in range(len(branches))]


def bias(value=0.0, *, expert=None):
    array = np.zeros((L, E), np.float32)
    array[:, expert if expert is not None else slice(None)] = value
    return Steering(bias=array)


# --- a row is what a model of that choice alone would compute -------------------------------------


def without_cache(folder, engine, branch, token_ids, top_k):
    """Return the logits [T, V] of a trunk computed with the checkpoint's k, the rest with top_k."""
    head = engine._format.head_ids(SYSTEM, USER)
    suffix = engine._format.suffix_ids(branch.instruction)
    plain, other = (
        create(folder, dtype="float32")._model,
        create(folder, dtype="float32", top_k=top_k),
    )
    with torch.inference_mode():
        cache = plain(torch.tensor([head]), use_cache=True).past_key_values
        ids = [*suffix, *token_ids[:-1]]
        output = other._model(torch.tensor([ids]), past_key_values=cache, use_cache=True)
    return output.logits[0, len(suffix) - 1 :].float()


@pytest.mark.parametrize("top_k", [1, 2, 5, 8])
def test_a_rows_top_k_equals_a_model_loaded_with_that_k_and_neighbours_do_not_change(
    moe, asked, top_k
):
    neighbours = [a_branch("left"), a_branch("right", " И ещё раз, подробнее")]
    _, alone = decoded(asked, *neighbours)
    branch = a_branch(num_experts_per_tok=top_k)
    results, logits = decoded(asked, neighbours[0], branch, neighbours[1])
    expected = without_cache(moe, asked, branch, results[1].token_ids, top_k)
    assert torch.allclose(logits[1], expected, rtol=0, atol=5e-5)
    assert torch.allclose(logits[0], alone[0], rtol=0, atol=5e-5)
    assert torch.allclose(logits[2], alone[1], rtol=0, atol=5e-5)
    assert [r.routing.expert_ids.shape[2] for r in results] == [K, top_k, K]


def test_rows_that_ask_for_nothing_are_bit_equal_to_the_untouched_model(asked):
    _, plain = decoded(asked, a_branch("a"), a_branch("b", " Иначе"))
    _, silent = decoded(
        asked, a_branch("a", steering=bias(0.0)), a_branch("b", " Иначе", num_experts_per_tok=K)
    )
    assert all(torch.equal(first, second) for first, second in zip(plain, silent, strict=True))


def test_the_trunk_is_bit_equal_whatever_its_branches_ask_for(asked):
    trunk = asked.open_trunk(system=SYSTEM, user=USER)
    before = [(x.keys[:, :, : x.length].clone(), x.values.clone()) for x in trunk.rows.cache.layers]
    asked.decode(trunk, [a_branch(steering=bias(5.0, expert=2), num_experts_per_tok=7)])
    for (keys, values), layer in zip(before, trunk.rows.cache.layers, strict=True):
        assert torch.equal(keys, layer.keys[:, :, : layer.length])
        assert torch.equal(values[:, :, : layer.length], layer.values[:, :, : layer.length])


@pytest.mark.parametrize("strength", [1e4, 50.0])
def test_a_huge_bias_always_chooses_an_expert_and_its_negative_never_does(asked, strength):
    (always, never), _ = decoded(
        asked,
        a_branch("always", steering=bias(strength, expert=5)),
        a_branch("never", steering=bias(-strength, expert=5)),
    )
    assert (always.routing.expert_ids == 5).any(-1).all()
    assert not (never.routing.expert_ids == 5).any()


def test_steering_and_top_k_act_from_the_branchs_first_token_on(moe, asked):
    """Not on decoded tokens only: what the first one is drawn from is biased too."""
    _, plain = decoded(asked, a_branch(max_new_tokens=1))
    for change in ({"steering": bias(3.0, expert=1)}, {"num_experts_per_tok": 1}):
        _, changed = decoded(asked, a_branch(max_new_tokens=1, **change))
        assert not torch.allclose(plain[0], changed[0], rtol=0, atol=1e-3)


def test_adaptive_with_least_and_most_equal_is_that_number(asked):
    _, fixed = decoded(asked, a_branch(num_experts_per_tok=5))
    _, adaptive = decoded(asked, a_branch(num_experts_per_tok=AdaptiveExperts(least=5, most=5)))
    assert torch.equal(fixed[0], adaptive[0])


def test_adaptive_uses_as_many_experts_as_the_entropy_of_the_reported_logits_counts(asked):
    rule = AdaptiveExperts(least=2, most=6, scale=0.7)
    (result, other), _ = decoded(
        asked,
        a_branch(num_experts_per_tok=rule, steering=bias(2.0, expert=4)),
        a_branch("other", num_experts_per_tok=1),
    )
    used = (result.routing.weights > 0).sum(-1)
    logits = result.routing.logits.astype(np.float64)
    probs = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    wished = np.round(0.7 * np.exp(-(probs * np.log(probs)).sum(-1)))
    assert (used == np.clip(wished, 2, 6)).all()
    assert len(np.unique(used)) > 1
    assert other.routing.expert_ids.shape[2] == 1


def test_reported_logits_are_those_before_steering(moe, asked):
    branch = a_branch(steering=bias(-4.0, expert=0))
    (result,), _ = decoded(asked, branch)
    gate = next(m for m in asked._model.modules() if type(m).__name__.endswith("Router"))
    seen = []
    handle = gate.register_forward_hook(lambda m, inputs, output: seen.append(inputs[0][-1:]))
    decoded(asked, branch)
    handle.remove()
    with torch.inference_mode():
        expected = torch.stack([gate(x)[0][0] for x in seen[-5:]])
    assert np.array_equal(result.routing.logits[:, 0], expected.numpy())


# --- against a slow reference ---------------------------------------------------------------------


def slow(logits, weights, ids, given, branch, rule, layer):
    """Choose for one token, step by step, in float64; between equals, what was `given`."""
    asked, steering = branch.num_experts_per_tok, branch.steering
    if asked is None and steering is None:
        return dict(zip(ids.tolist(), weights.tolist(), strict=True))
    scores = [float(x) for x in logits]
    if rule.has_equal_weights:
        shares = torch.from_numpy(logits).softmax(-1).tolist()
        scores = [np.log(rule.num_experts * share) / rule.logit_unit for share in shares]
    k = asked
    if asked is None:
        k = rule.top_k
    if isinstance(asked, AdaptiveExperts):
        total = sum(np.exp(s) for s in scores)
        entropy = -sum(np.exp(s) / total * np.log(np.exp(s) / total) for s in scores)
        k = min(max(round(asked.scale * float(np.exp(entropy))), asked.least), asked.most)
    if steering is not None:
        scores = [s + float(b) for s, b in zip(scores, steering.bias[layer], strict=True)]
    best = sorted(range(rule.num_experts), key=lambda e: (-scores[e], e not in given))[:k]
    if rule.has_equal_weights:
        return dict.fromkeys(best, float(weights.mean()))
    over = best if rule.is_renormalised else range(rule.num_experts)
    total = sum(np.exp(scores[e]) for e in over)
    return {e: float(np.exp(scores[e]) / total) for e in best}


@pytest.mark.parametrize("is_renormalised", [True, False])
@pytest.mark.parametrize("has_equal_weights", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_a_mixed_batch_equals_the_equations(is_renormalised, has_equal_weights, seed):
    random = np.random.default_rng(seed)
    rule = RoutingRule(
        num_layers=L,
        num_experts=E,
        top_k=K,
        is_renormalised=is_renormalised,
        has_equal_weights=has_equal_weights,
    )
    steering = Steering(bias=random.normal(0, 2, (L, E)).astype(np.float32))
    branches = [
        a_branch("plain"),
        a_branch("k", num_experts_per_tok=int(random.integers(1, E + 1))),
        a_branch("steered", steering=steering),
        a_branch("adaptive", num_experts_per_tok=AdaptiveExperts(least=1, most=6, scale=0.5)),
        a_branch(
            "both", steering=steering, num_experts_per_tok=AdaptiveExperts(least=2, most=E, scale=2)
        ),
    ]
    S, layer = 4, 1
    logits = torch.from_numpy(random.normal(0, rule.logit_unit, (5 * S, E))).float()
    probs = logits.softmax(-1)
    weights, ids = probs.topk(K, dim=-1)
    if is_renormalised:
        weights = weights / weights.sum(-1, keepdim=True)
    choice = row_choice(branches, rule, torch.device("cpu"))
    new_weights, new_ids = choice.choose(layer, logits, weights, ids)
    for token in range(5 * S):
        branch = branches[token // S]
        got = {
            int(e): float(w)
            for e, w in zip(new_ids[token], new_weights[token], strict=True)
            if w > 0
        }
        expected = slow(
            logits[token].numpy(), weights[token].numpy(), ids[token], got, branch, rule, layer
        )
        assert got == pytest.approx(expected, abs=1e-6)
        assert new_ids[token].min() >= 0
        assert new_ids[token].max() < E


# --- carved models: routers that rank, and do not weigh -------------------------------------------


@pytest.fixture(scope="module")
def carved(tmp_path_factory):
    """A Mixtral whose router logits spread by 1e-6, marked as `veche carve` marks them."""
    return small_logits(tiny_models.tiny_mixtral(tmp_path_factory.mktemp("carved")))


def small_logits(folder, *, top_k=K, gain=1.0):
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    tensors = load_file(file)
    for name, tensor in tensors.items():
        if name.endswith("gate.weight"):
            centred = tensor - tensor.mean(0)
            tensors[name] = centred * (ROUTER_SPREAD / (centred.std() * 32**0.5))
        elif name.endswith("w2.weight"):
            tensors[name] = tensor * gain
    save_file(tensors, file, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_experts_per_tok": top_k, "veche": {"carved": {"equal_routing_weights": True}}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("top_k", [1, 5, 8])
def test_a_carved_row_is_as_loud_as_a_model_planned_with_that_k(carved, tmp_path, top_k):
    """The operation expert_gain multiplies `down` by k'/k where a plan changes k."""
    planned = small_logits(tiny_models.tiny_mixtral(tmp_path), top_k=top_k, gain=top_k / K)
    engine, branch = create(carved, dtype="float32"), a_branch(num_experts_per_tok=top_k)
    (result,), (logits,) = decoded(engine, branch)
    other = create(planned, dtype="float32")._model
    suffix = engine._format.suffix_ids(branch.instruction)
    with torch.inference_mode():
        head = torch.tensor([engine._format.head_ids(SYSTEM, USER)])
        cache = engine._model(head, use_cache=True).past_key_values
        ids = torch.tensor([[*suffix, *result.token_ids[:-1]]])
        expected = other(ids, past_key_values=cache, use_cache=True).logits[0, len(suffix) - 1 :]
    assert torch.allclose(logits, expected.float(), rtol=0, atol=1e-4)
    assert result.routing.weights == pytest.approx(1 / K, abs=1e-3)


def test_rows_of_a_carved_model_break_ties_as_its_router_does():
    """Its float32 softmax tells logits apart by a tenth of their spread only; the rest are ties."""
    rule = RoutingRule(
        num_layers=1, num_experts=16, top_k=12, is_renormalised=True, has_equal_weights=True
    )
    logits = torch.randn(2000, 16, generator=torch.Generator().manual_seed(0)) * ROUTER_SPREAD
    weights, ids = logits.softmax(-1).topk(12)
    branch = a_branch(num_experts_per_tok=AdaptiveExperts(least=12, most=12))
    weights = weights / weights.sum(-1, keepdim=True)
    choice = row_choice([branch], rule, torch.device("cpu"))
    assert torch.equal(choice.choose(0, logits, weights, ids)[1], ids)


def test_the_adaptive_rule_tells_tokens_apart_in_a_carved_model(carved):
    engine = create(carved, dtype="float32")
    rule = AdaptiveExperts(least=1, most=8)
    (result,), _ = decoded(engine, a_branch(max_new_tokens=12, num_experts_per_tok=rule))
    used = (result.routing.weights > 0).sum(-1)
    assert used.std() > 0.3
    assert 2 < used.mean() < 8


def test_one_nat_moves_a_carved_choice_but_does_not_dictate_it(carved):
    engine = create(carved, dtype="float32")
    rates = [
        (result.routing.expert_ids == 2).any(-1).mean()
        for strength in (-1, 0, 1)
        for result in decoded(
            engine, a_branch(max_new_tokens=16, steering=bias(strength, expert=2))
        )[0]
    ]
    assert rates[0] < rates[1] < rates[2]
    assert rates[0] < 1
    assert rates[2] > 0


# --- what is refused, and what is left behind -----------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_experts_per_tok": 0}, "0 is not in 1..8"),
        ({"num_experts_per_tok": 9}, "9 is not in 1..8"),
        ({"num_experts_per_tok": AdaptiveExperts(least=4, most=3)}, "at least 4 .* at most 3"),
        ({"num_experts_per_tok": AdaptiveExperts(least=0, most=3)}, "least 0 is not in"),
        ({"num_experts_per_tok": AdaptiveExperts(least=1, most=9)}, "most 9 is not in"),
        (
            {"num_experts_per_tok": AdaptiveExperts(least=1, most=3, scale=float("nan"))},
            "scale nan is not",
        ),
        ({"steering": Steering(bias=np.zeros((3, 9), np.float32))}, r"shape \[3, 9\]"),
        ({"steering": Steering(bias=np.full((3, 8), np.nan, np.float32))}, "not a number"),
        ({"steering": Steering(bias=np.full((3, 8), np.inf, np.float32))}, "not a number"),
    ],
)
def test_what_a_model_cannot_follow_is_refused_by_the_voices_name(asked, given, message):
    trunk = asked.open_trunk(system=SYSTEM, user=USER)
    with pytest.raises(InputError, match=f"'голос'.*{message}"):
        asked.decode(trunk, [a_branch("голос", **given)])
    assert not any(router._forward_hooks for router in asked._runner.control._routers)


def test_a_dense_model_offers_no_steering(tmp_path):
    engine = create(tiny_models.tiny_llama(tmp_path), dtype="float32")
    assert not engine.capabilities & {
        Capability.STEERING,
        Capability.NUM_EXPERTS_PER_TOK,
        Capability.ROUTER_LOGITS,
    }
    trunk = engine.open_trunk(system=SYSTEM, user=USER)
    with pytest.raises(UnsupportedError, match="num_experts_per_tok"):
        engine.decode(trunk, [Branch(voice="v", instruction="?", num_experts_per_tok=2)])


@pytest.mark.parametrize("failure", [KeyboardInterrupt, InputError("x")])
def test_no_hook_and_no_choice_outlives_a_failure(asked, failure):
    def fail(voice, piece):
        raise failure

    _, plain = decoded(asked, a_branch())
    trunk = asked.open_trunk(system=SYSTEM, user=USER)
    with pytest.raises((KeyboardInterrupt, InputError)):
        asked.decode(trunk, [a_branch(num_experts_per_tok=1)], fail)
    assert not any(router._forward_hooks for router in asked._runner.control._routers)
    assert torch.equal(decoded(asked, a_branch())[1][0], plain[0])


def test_every_fed_token_is_shown_while_it_happens(asked):
    seen = []
    branch = a_branch(num_experts_per_tok=2)
    trunk = asked.open_trunk(system=SYSTEM, user=USER)
    (result,) = asked.decode(
        trunk, [branch], on_routing=lambda voice, ids, weights: seen.append((voice, ids, weights))
    )
    assert {voice for voice, _, _ in seen} == {"v"}
    assert np.array_equal(np.stack([ids for _, ids, _ in seen]), result.routing.expert_ids)
    assert np.array_equal(np.stack([w for _, _, w in seen]), result.routing.weights)


def test_branches_that_end_early_leave_the_others_choice_as_it_was(asked):
    long = a_branch("long", max_new_tokens=8, num_experts_per_tok=6)
    results = asked.decode(
        asked.open_trunk(system=SYSTEM, user=USER),
        [a_branch("short", max_new_tokens=2, steering=bias(3.0, expert=1)), long],
    )
    assert results[1].token_ids == decoded(asked, long)[0][0].token_ids
    assert (results[1].routing.weights > 0).sum(-1).min() == 6
