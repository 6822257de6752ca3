"""Several probes joined: one of each block of features, one of all narrow blocks together.

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
"""A block of more features than this is read by its own probe alone; narrower ones also together,
since figures of one mean more beside those of another."""
TOGETHER = "+"
"""Joins the names of blocks that one probe reads."""
Blocks = Mapping[str, Floats]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """Probes of blocks, and one on top.

    Attributes:
        blocks: number of features of each block.
        probes: by what they read: a block's name, or several joined by "+". Their order is that of
            the logits which the top reads.
        top: reads the probes' logits.
    """

    blocks: Mapping[str, int]
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
        for name, width in self.blocks.items():
            found = blocks.get(name)
            if found is None or found.shape[1] != width:
                seen = "none" if found is None else str(found.shape[1])
                raise InputError(f"a probe needs {width} features of {name!r}, and got {seen}")
        logits = [probe.logits(features_of(blocks, reads)) for reads, probe in self.probes.items()]
        return self.top.scores(np.concatenate(logits, axis=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedStack:
    """A stack, and what cross-validation told of its parts.

    Attributes:
        stack: fitted to everything.
        parts: of each probe.
        top: of the probe on top.
    """

    stack: Stack
    parts: Mapping[str, Fitted]
    top: Fitted


def features_of(blocks: Blocks, reads: str) -> NDArray[np.float64]:
    """Return what a probe reads, [N, F]: a block, or several side by side."""
    names = reads.split(TOGETHER)
    return np.concatenate([np.asarray(blocks[name], np.float64) for name in names], axis=1)


def parts_of(blocks: Blocks) -> tuple[str, ...]:
    """Return what the probes of a stack of these blocks read."""
    narrow = [name for name, features in blocks.items() if features.shape[1] <= WIDE]
    return (*blocks, *([TOGETHER.join(narrow)] if len(narrow) > 1 else []))


class Fits:
    """Probes of some rows, each fitted once, when it is first asked for.

    Args:
        blocks: features by name.
        labels_N: as in `fit_probe`, as is the rest.
        groups_N: as in `fit_probe`.
        labels: as in `fit_probe`.
        settings: as in `fit_probe`.
    """

    def __init__(
        self,
        blocks: Blocks,
        labels_N: Sequence[str],
        groups_N: Sequence[str],
        *,
        labels: Sequence[str] | None = None,
        settings: FitSettings | None = None,
    ) -> None:
        self._blocks = blocks
        self._labels_N = labels_N
        self._groups_N = groups_N
        self._labels = labels
        self._settings = settings
        self._parts: dict[str, Fitted] = {}

    def part(self, reads: str) -> Fitted:
        """Return the probe of a block, or of several joined by "+"."""
        if reads not in self._parts:
            self._parts[reads] = self._fitted(features_of(self._blocks, reads))
        return self._parts[reads]

    def stack(self, names: Sequence[str]) -> FittedStack:
        """Return a stack of some blocks.

        NOTE: the top is fitted to logits of rows by probes that did not see the row's group: logits
        of rows that were learnt by heart would be trusted too much.
        """
        blocks = {name: self._blocks[name] for name in names}
        parts = {reads: self.part(reads) for reads in parts_of(blocks)}
        top = self._fitted(np.concatenate([part.held_out for part in parts.values()], axis=1))
        stack = Stack(
            blocks={name: features.shape[1] for name, features in blocks.items()},
            probes={reads: part.probe for reads, part in parts.items()},
            top=top.probe,
        )
        return FittedStack(stack=stack, parts=parts, top=top)

    def _fitted(self, features_NF: Floats) -> Fitted:
        return fit_probe(
            features_NF,
            self._labels_N,
            self._groups_N,
            labels=self._labels,
            settings=self._settings,
        )
