"""Where voices part while they read the same answer: token by token, layer by layer.

Shapes: N voices, T tokens of the answer, L layers whose states are compared, R layers that route.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veche.core.errors import InputError
from veche.engines.protocol import (
    Branch,
    BranchResult,
    Capability,
    Capture,
    Engine,
    Sampling,
    Trunk,
    require,
    scoring,
)
from veche.experts.disagreement import (
    cosine_distance,
    linear_cka,
    next_token_js,
    overlap_by_chance,
    routing_overlap,
    softmax,
)

Array = NDArray[np.float64]
TextsOf = Callable[[Sequence[int]], Sequence[str]]
"""Returns the text of each token."""
_MOST_DISPUTED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class DisagreementMap:
    """How far voices are apart on the same answer; with more than two, the mean over pairs.

    Column t is token t of the answer. States and distributions are those that it was to be
    drawn from, so they stand just before it; its routing is that of reading it.

    Attributes:
        voices: who read it.
        answer: what they read.
        tokens: the text of each token.
        token_ids: the tokens.
        js_bits: [T], Jensen–Shannon divergence of the next-token distributions, in [0, 1] bits.
        surprise_nats: [N, T], −ln of the probability that each voice gave the token.
        pair_js_bits: [N, N], mean over tokens, of each pair of voices.
        hidden_layers: numbers of the layers whose states are compared; 0 is the embedding.
        hidden_distance: [T, L], 1 − cosine of the hidden states, in [0, 2].
        cka: [L], linear CKA without bias, over all tokens; NaN with fewer than 4 of them.
        routing_overlap: [T, R], share of experts in common; None without routing.
        routing_by_chance: what the overlap would be if experts were drawn at random.
    """

    voices: tuple[str, ...]
    answer: str
    tokens: tuple[str, ...]
    token_ids: tuple[int, ...]
    js_bits: Array
    surprise_nats: Array
    pair_js_bits: Array
    hidden_layers: tuple[int, ...]
    hidden_distance: Array
    cka: Array
    routing_overlap: Array | None
    routing_by_chance: float | None

    def most_disputed(self, num_tokens: int = _MOST_DISPUTED) -> tuple[int, ...]:
        """Return the places of the tokens of the largest divergence, largest first."""
        return tuple(int(at) for at in np.argsort(-self.js_bits, kind="stable")[:num_tokens])

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values; NaN is null."""
        overlap = self.routing_overlap
        return {
            "voices": list(self.voices),
            "answer": self.answer,
            "tokens": list(self.tokens),
            "token_ids": list(self.token_ids),
            "mean_js_bits": float(self.js_bits.mean()),
            "js_bits": self.js_bits.tolist(),
            "surprise_nats": dict(zip(self.voices, self.surprise_nats.tolist(), strict=True)),
            "pair_js_bits": self.pair_js_bits.tolist(),
            "most_disputed": [
                {"at": at, "token": self.tokens[at], "js_bits": float(self.js_bits[at])}
                for at in self.most_disputed()
            ],
            "hidden_layers": list(self.hidden_layers),
            "hidden_distance": self.hidden_distance.tolist(),
            "cka": [None if math.isnan(value) else value for value in self.cka.tolist()],
            "mean_routing_overlap": None if overlap is None else float(overlap.mean()),
            "routing_by_chance": self.routing_by_chance,
            "routing_overlap": None if overlap is None else overlap.tolist(),
        }


def disagreement(
    engine: Engine,
    trunk: Trunk,
    branches: Sequence[Branch],
    answer: str | None = None,
    *,
    max_tokens: int = 96,
    hidden_layers: Sequence[int] = (),
    texts_of: TextsOf | None = None,
) -> DisagreementMap:
    """Let voices read one answer behind one trunk, and map where they part.

    Args:
        engine: with SCORE and LOGITS; HIDDEN_STATES where layers are given; ROUTING if it can.
        trunk: what all of them have heard.
        branches: two or more voices; what they capture is chosen here.
        answer: the text that all of them read; None is what the first of them answers, greedily.
        max_tokens: of that answer.
        hidden_layers: whose states are compared; 0 is the embedding, the last the last layer's.
        texts_of: gives tokens their texts; without it they are called by their numbers.

    Raises:
        InputError: there are fewer than two voices, or nothing to read.
        UnsupportedError: the engine lacks one of the capabilities.
    """
    if len(branches) < 2:
        raise InputError(
            "it takes two voices to disagree", hint="give a second voice, or another prompt"
        )
    require(engine, Capability.LOGITS, *([Capability.HIDDEN_STATES] if hidden_layers else []))
    capture = Capture(logits=True, hidden_layers=tuple(hidden_layers), routing=True)
    readers = [replace(branch, capture=capture, keep=False) for branch in branches]
    reader = scoring(engine)
    if answer is None:
        speaker = replace(branches[0], sampling=Sampling(max_new_tokens=max_tokens), keep=False)
        answer = engine.decode(trunk, [speaker])[0].text
    results = reader.score(trunk, readers, [answer] * len(readers))
    return map_of(results, hidden_layers=hidden_layers, texts_of=texts_of)


def map_of(
    results: Sequence[BranchResult],
    *,
    hidden_layers: Sequence[int] = (),
    texts_of: TextsOf | None = None,
) -> DisagreementMap:
    """Map what voices reported of reading the same tokens, with their logits.

    Raises:
        InputError: they did not read the same, or there was nothing to read.
    """
    token_ids = results[0].token_ids
    if not token_ids:
        raise InputError("there is nothing to read: the answer has no token")
    if any(result.token_ids != token_ids for result in results):
        raise InputError("the voices did not read the same tokens")
    pair_js, js_bits = _js(results)
    distance, cka = _states(results, len(hidden_layers))
    overlap, by_chance = _routing(results)
    texts = [str(token) for token in token_ids] if texts_of is None else texts_of(token_ids)
    return DisagreementMap(
        voices=tuple(result.voice for result in results),
        answer=results[0].text,
        tokens=tuple(texts),
        token_ids=token_ids,
        js_bits=js_bits,
        surprise_nats=np.stack([_surprise(result) for result in results]),
        pair_js_bits=pair_js,
        hidden_layers=tuple(hidden_layers),
        hidden_distance=distance,
        cka=cka,
        routing_overlap=overlap,
        routing_by_chance=by_chance,
    )


def _js(results: Sequence[BranchResult]) -> tuple[Array, Array]:
    """Return the mean divergence of each pair, [N, N], and the mean over pairs of each token."""
    pair_js = np.zeros((len(results), len(results)))
    of_pairs = []
    for row, column in combinations(range(len(results)), 2):
        js_T = next_token_js(_logits(results[row]), _logits(results[column]))
        pair_js[row, column] = pair_js[column, row] = js_T.mean()
        of_pairs.append(js_T)
    return pair_js, np.mean(of_pairs, axis=0)


def _surprise(result: BranchResult) -> Array:
    # One row at a time: in float64 all of them would be twice what the engine reported.
    chosen = [
        softmax(row)[token] for row, token in zip(_logits(result), result.token_ids, strict=True)
    ]
    return np.asarray(-np.log(np.maximum(chosen, np.finfo(np.float64).tiny)))


def _states(results: Sequence[BranchResult], num_layers: int) -> tuple[Array, Array]:
    """Return the cosine distance [T, L] and the CKA [L], mean over pairs."""
    if not num_layers:
        return np.empty((len(results[0].token_ids), 0)), np.empty(0)
    distances, alignments = [], []
    for one, two in combinations(results, 2):
        first, second = _hidden(one), _hidden(two)
        distances.append(cosine_distance(first, second))
        alignments.append(
            [linear_cka(first[:, layer], second[:, layer]) for layer in range(num_layers)]
        )
    return np.mean(distances, axis=0), np.mean(alignments, axis=0)


def _routing(results: Sequence[BranchResult]) -> tuple[Array | None, float | None]:
    """Return the overlap [T, R] and what it would be by chance, mean over pairs."""
    routed = [result.routing for result in results if result.routing is not None]
    if len(routed) < len(results) or not routed[0].expert_ids.size:
        return None, None
    overlaps, nulls = [], []
    for one, two in combinations(routed, 2):
        overlaps.append(
            routing_overlap(
                one.expert_ids, one.weights, two.expert_ids, two.weights, one.num_experts
            )
        )
        nulls.append(overlap_by_chance(one.weights, two.weights, one.num_experts))
    return np.mean(overlaps, axis=0), float(np.mean(nulls))


def _logits(result: BranchResult) -> NDArray[np.float32]:
    if result.logits is None:
        raise ValueError(f"{result.voice!r} reported no logits")
    return result.logits


def _hidden(result: BranchResult) -> NDArray[np.float32]:
    if result.hidden_states is None:
        raise ValueError(f"{result.voice!r} reported no hidden states")
    return result.hidden_states
