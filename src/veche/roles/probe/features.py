"""From what was seen of a text to the features that probes read, block by block.

Shapes: S steps, F features of a block, C captured layers, D hidden size, L layers, E experts.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from veche.roles.data.example import Example
from veche.roles.probe.observation import Observation
from veche.roles.probe.scalars import LOGPROB_SCALARS, ROUTER_SCALARS
from veche.roles.probe.surface import answer_surface, step_surface

Floats = NDArray[np.float64]
SURFACE, LOGPROB, ROUTER, LOAD, HIDDEN = "surface", "logprob", "router", "load", "hidden"
"""Blocks. Router scalars and load are missing on a dense model."""


def answer_blocks(example: Example, seen: Observation) -> dict[str, Floats]:
    """Return features of a whole answer, [F] by block.

    Figures: the mean over steps, the least, the most and the last. States and
    load: the mean over all tokens.
    """
    weight_S = seen.num_tokens / max(seen.num_tokens.sum(), 1)
    blocks = {SURFACE: answer_surface(example), LOGPROB: _summary(_scalars(seen, LOGPROB_SCALARS))}
    if seen.load is not None:
        blocks[ROUTER] = _summary(_scalars(seen, ROUTER_SCALARS))
        blocks[LOAD] = np.tensordot(weight_S, seen.load, axes=1).ravel()
    blocks[HIDDEN] = np.tensordot(weight_S, seen.hidden, axes=1).ravel().astype(np.float64)
    return blocks


def step_blocks(example: Example, seen: Observation) -> dict[str, Floats]:
    """Return features of each step, [S, F] by block; none depends on a later step.

    Figures: the step's own, and their difference from the mean of all steps before it. States and
    load: the step's own.
    """
    blocks = {
        SURFACE: step_surface(example),
        LOGPROB: _with_change(_scalars(seen, LOGPROB_SCALARS)),
    }
    if seen.load is not None:
        blocks[ROUTER] = _with_change(_scalars(seen, ROUTER_SCALARS))
        blocks[LOAD] = seen.load.reshape(len(seen.load), -1).astype(np.float64)
    blocks[HIDDEN] = seen.hidden.reshape(len(seen.hidden), -1).astype(np.float64)
    return blocks


def stacked(rows: Sequence[Mapping[str, Floats]], *, is_steps: bool = False) -> dict[str, Floats]:
    """Return the features of many texts, [N, F] by block."""
    join = np.concatenate if is_steps else np.stack
    return {name: join([row[name] for row in rows]) for name in (rows[0] if rows else {})}


def _scalars(seen: Observation, names: Sequence[str]) -> Floats:
    columns = [seen.scalar_names.index(name) for name in names]
    return seen.scalars[:, columns].astype(np.float64)


def _summary(scalars_SF: Floats) -> Floats:
    parts = [scalars_SF.mean(0), scalars_SF.min(0), scalars_SF.max(0), scalars_SF[-1]]
    return np.concatenate(parts)


def _with_change(values_SF: NDArray[np.floating]) -> Floats:
    values = values_SF.astype(np.float64)
    before = np.cumsum(values, axis=0) - values
    count = np.arange(len(values))[:, None]
    change = np.where(count > 0, values - before / np.maximum(count, 1), 0)
    return np.concatenate([values, change], axis=1)
