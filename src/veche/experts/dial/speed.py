"""How fast a setting decodes: paired rounds of the clock, in one process."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from veche.core.progress import Advance
from veche.engines.embedded.engine import EmbeddedEngine
from veche.engines.embedded.loading import LoadedModel
from veche.engines.protocol import AdaptiveExperts, Branch, Capture, Sampling
from veche.surgery.loading import Model, load_tokenizer

NEW_TOKENS = 24
_PROMPT_CHARACTERS = 400


def paired_rounds(
    model: Model,
    folder: Path,
    prompt: str,
    *,
    as_base: Callable[[], AbstractContextManager[None]],
    rounds: int,
    advance: Advance,
    experts: AdaptiveExperts | None = None,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the seconds in which each round decodes NEW_TOKENS, as the base and as turned.

    Within a round the two take turns, and who is first changes from round to round, so that what
    else happens on the machine meets both. A first round warms up and does not count.

    Args:
        model: as turned.
        folder: its checkpoint.
        prompt: a text whose beginning is the trunk.
        as_base: gives the model the base's setting while a block runs.
        rounds: how many count.
        advance: called with 1 for each round.
        experts: how many each token uses as turned; the base always uses the checkpoint's number.
    """
    if not rounds:
        return (), ()
    engine = EmbeddedEngine(
        LoadedModel(
            name=folder.name,
            model=model,
            tokenizer=load_tokenizer(folder),
            end_ids=frozenset(),  # so that every round decodes equally many
            context_tokens=int(model.config.max_position_embeddings),
        )
    )
    trunk = engine.open_trunk(system="", user=prompt[:_PROMPT_CHARACTERS])
    base = Branch(
        voice="clock",
        instruction="",
        sampling=Sampling(max_new_tokens=NEW_TOKENS),
        capture=Capture(routing=False),
    )
    turned = replace(base, num_experts_per_tok=experts)

    def seconds(branch: Branch) -> float:
        start = time.perf_counter()
        engine.decode(trunk, [branch])
        return time.perf_counter() - start

    base_s, turned_s = [], []
    for index in range(rounds + 1):
        for is_base in (True, False) if index % 2 else (False, True):
            if is_base:
                with as_base():
                    base_s.append(seconds(base))
            else:
                turned_s.append(seconds(turned))
        if index:
            advance(1)
    engine.close_trunk(trunk)
    return tuple(base_s[1:]), tuple(turned_s[1:])
