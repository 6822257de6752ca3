"""Recordings that tests make up."""

from dataclasses import replace

import numpy as np

from veche.engines.protocol import Routing
from veche.experts.recording import Record, Recording, joined, recorded


def random_routing(tokens=20, layers=3, experts=8, top_k=2, seed=0, favours=None) -> Routing:
    """Route at random; `favours` = (layer, expert, nats) makes an expert likelier in a layer."""
    rng = np.random.default_rng(seed)
    logits = rng.gumbel(size=(tokens, layers, experts))
    if favours is not None:
        layer, expert, nats = favours
        logits[:, layer, expert] += nats
    ids = (-logits).argsort(-1)[..., :top_k].astype(np.uint16)
    weights = np.sort(rng.dirichlet(np.ones(top_k), (tokens, layers)))[..., ::-1]
    return Routing(expert_ids=ids, weights=weights.astype(np.float16), num_experts=experts)


def document(name, routing: Routing, voice="text", **labels: str) -> Recording:
    """Make a document of one record."""
    rng = np.random.default_rng(len(name))
    tokens = len(routing.expert_ids)
    note = Record(document=name, voice=voice, num_tokens=tokens, labels=labels)
    return recorded(routing, note, token_ids=rng.integers(0, 50_000, tokens))


def labelled(numbers, *, label="domain", values=("code", "prose"), favours=None, **shape):
    """Make documents of two domains in turn; only those of the first favour an expert."""
    return joined(
        document(
            f"d{number}",
            random_routing(seed=number, favours=None if number % 2 else favours, **shape),
            **{label: values[number % 2]},
        )
        for number in numbers
    )


def halves(recording: Recording, classes: tuple[int, int]) -> Recording:
    """Give the tokens of a recording two classes in turn."""
    turn = np.arange(recording.num_tokens) % 2
    return replace(recording, token_classes=np.array(classes, np.uint8)[turn])
