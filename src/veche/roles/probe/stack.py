"""Several probes joined: what wide blocks say by themselves, beside features that are few.

Shapes: N texts or steps, F features of a block, K rows of a probe's weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from veche.core.errors import InputError
from veche.roles.probe.fitting import FitSettings, Fitted, fit_probe
from veche.roles.probe.probe import Floats, Probe

WIDE = 128
"""A block of more features than this is read by a probe of its own, whose logit stands for it."""
Blocks = Mapping[str, Floats]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Probes of wide blocks, and one on top.

    Attributes:
        blocks: name and number of features of each block, in the order of the top's columns.
        probes: of the wide blocks.
        top: reads the narrow blocks' features and the probes' logits.
    """

    blocks: tuple[tuple[str, int], ...]
    probes: Mapping[str, Probe]
    top: Probe

    @property
    def labels(self) -> tuple[str, ...]:
        """Names; their order is that of the scores."""
        return self.top.labels

    def scores(self, blocks: Blocks) -> NDArray[np.float64]:
        """Return the probability of each label, [N, M].

        Raises:
            InputError: a block is missing, or not as wide as it was.
        """
        columns = []
        for name, width in self.blocks:
            found = blocks.get(name)
            if found is None or found.shape[1] != width:
                seen = "no" if found is None else str(found.shape[1])
                raise InputError(f"a probe needs {width} features of {name!r}, and got {seen}")
            probe = self.probes.get(name)
            columns.append(found if probe is None else probe.logits(found))
        return self.top.scores(np.concatenate(columns, axis=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedStack:
    """A stack, and what cross-validation told of its parts.

    Attributes:
        stack: fitted to everything.
        parts: of each wide block.
        top: of the probe on top.
    """

    stack: Stack
    parts: Mapping[str, Fitted]
    top: Fitted


def fit_parts(
    blocks: Blocks,
    labels_N: Sequence[str],
    groups_N: Sequence[str],
    *,
    labels: Sequence[str] | None = None,
    settings: FitSettings | None = None,
) -> dict[str, Fitted]:
    """Return a probe of each wide block; arguments are as in `fit_stack`."""
    return {
        name: fit_probe(features, labels_N, groups_N, labels=labels, settings=settings)
        for name, features in blocks.items()
        if features.shape[1] > WIDE
    }


def fit_stack(
    blocks: Blocks,
    labels_N: Sequence[str],
    groups_N: Sequence[str],
    *,
    labels: Sequence[str] | None = None,
    settings: FitSettings | None = None,
    parts: Mapping[str, Fitted] | None = None,
) -> FittedStack:
    """Fit probes to wide blocks, and one to their logits and to the narrow blocks.

    NOTE: the top is fitted to logits of rows by probes that did not see the row's group: logits of
    rows that were learnt by heart would be trusted too much.

    Args:
        blocks: features by name; with one block, the stack is a probe of it.
        labels_N: as in `fit_probe`, as is the rest.
        groups_N: as in `fit_probe`.
        labels: as in `fit_probe`.
        settings: as in `fit_probe`.
        parts: probes of the wide blocks, fitted to these very rows; fitted here where not given.
    """
    if parts is None:
        parts = fit_parts(blocks, labels_N, groups_N, labels=labels, settings=settings)
    parts = {name: parts[name] for name in blocks if name in parts}
    columns = [
        parts[name].held_out if name in parts else np.asarray(features, np.float64)
        for name, features in blocks.items()
    ]
    top = fit_probe(
        np.concatenate(columns, axis=1), labels_N, groups_N, labels=labels, settings=settings
    )
    stack = Stack(
        blocks=tuple((name, features.shape[1]) for name, features in blocks.items()),
        probes={name: fitted.probe for name, fitted in parts.items()},
        top=top.probe,
    )
    return FittedStack(stack=stack, parts=parts, top=top)
