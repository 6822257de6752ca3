"""Which experts one kind of tokens uses more than others do, beyond chance.

Shapes: T tokens, L layers that route, E experts, D documents, G groups, M = L·E.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from veche.core.progress import Progress, Silent
from veche.experts.recording import Recording
from veche.experts.significance import (
    NUM_PERMUTATIONS,
    SIGNIFICANCE,
    Difference,
    benjamini_hochberg,
    difference,
    needed_together,
)
from veche.experts.token_classes import CLASSES

VOICE = "voice"
KIND = "token class"
_MAX_GROUPS = 24
"""An axis with more values is a name or a number, no kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One kind of tokens, and how its use of experts differs from that of the rest.

    Attributes:
        value: of the axis, e.g. "code".
        against: what it is compared with: the axis's only other value, or "the rest".
        num_tokens: of this kind.
        found: the comparison; None where no two documents can be compared.
        adjusted: [L, E], p-values after Benjamini and Hochberg over all of the axis's tests.
    """

    value: str
    against: str
    num_tokens: int
    found: Difference | None = None
    adjusted: NDArray[np.float64] | None = None

    @property
    def num_significant(self) -> int:
        """Experts, counted in each layer, that stand out at a false discovery rate of 5 %."""
        return 0 if self.adjusted is None else int((self.adjusted <= SIGNIFICANCE).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A way to tell tokens apart: by a label, by voice, or by the kind of token.

    Attributes:
        name: of the axis.
        only: the class of tokens that it is restricted to; None is all.
        groups: its values, or, of two that mirror each other, the first.
        num_tests: experts × layers × groups.
    """

    name: str
    groups: tuple[Group, ...]
    num_tests: int
    only: str | None = None

    @property
    def smallest_p(self) -> float | None:
        """Below which no p-value can come; None where nothing could be compared."""
        found = [group.found.smallest_p for group in self.groups if group.found is not None]
        return min(found) if found else None

    @property
    def needed_together(self) -> int | None:
        """How many experts must stand out at once for any of them to be significant."""
        smallest = self.smallest_p
        return None if smallest is None else needed_together(smallest, self.num_tests)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Split:
    """Each token's group, −1 where it has none, and the groups' names."""

    name: str
    groups: NDArray[np.int64]
    values: tuple[str, ...]
    only: str | None = None


def specialisation(
    recording: Recording,
    *,
    num_permutations: int = NUM_PERMUTATIONS,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Axis, ...]:
    """Test every axis that a recording has: each label, its voices, the classes of its tokens."""
    splits = _splits(recording)
    found = []
    with (progress or Silent()).task("test", total=len(splits)) as advance:
        for split in splits:
            found.append(_tested(recording, split, num_permutations, seed))
            advance(1)
    return tuple(found)


def counted(
    recording: Recording, groups_T: NDArray[np.int64], num_groups: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return counts [G, D, M] and tokens [G, D]; documents in the order of their first record.

    Args:
        recording: the tokens.
        groups_T: [T], each token's group; −1 is none.
        num_groups: G.
    """
    documents_T = _documents(recording)
    num_documents = int(documents_T.max(initial=-1)) + 1
    is_counted_T = groups_T >= 0
    cell_T = (groups_T * num_documents + documents_T)[is_counted_T]
    num_cells = num_groups * num_documents
    width = recording.num_experts + 1  # the last is for places that a token did not use
    counts = np.empty((num_cells, recording.num_layers, recording.num_experts), np.int32)
    for layer in range(recording.num_layers):
        ids_Tk = recording.expert_ids[is_counted_T, layer].astype(np.int64)
        flat = (cell_T[:, None] * width + ids_Tk).ravel()
        counts[:, layer] = np.bincount(flat, minlength=num_cells * width).reshape(-1, width)[:, :-1]
    tokens = np.bincount(cell_T, minlength=num_cells)
    return counts.reshape(num_groups, num_documents, -1), tokens.reshape(num_groups, num_documents)


def _documents(recording: Recording) -> NDArray[np.int64]:
    names = dict.fromkeys(record.document for record in recording.records)
    numbers = {name: number for number, name in enumerate(names)}
    return _spread(recording, [numbers[record.document] for record in recording.records])


def _spread(recording: Recording, of_records: list[int]) -> NDArray[np.int64]:
    lengths = [record.num_tokens for record in recording.records]
    return np.repeat(np.array(of_records, np.int64), lengths)


def _splits(recording: Recording) -> list[_Split]:
    """Return every way to tell tokens apart that has at least two sides."""
    keys = sorted({key for record in recording.records for key in record.labels})
    labels = [
        _by_record(recording, key, [r.labels.get(key) for r in recording.records]) for key in keys
    ]
    found = [split for label in labels for split in (label, *_of_one_class(recording, label))]
    found.append(_by_record(recording, VOICE, [record.voice for record in recording.records]))
    if recording.token_classes is not None:
        present = np.unique(recording.token_classes)
        groups_T = np.searchsorted(present, recording.token_classes).astype(np.int64)
        values = tuple(CLASSES[number] for number in present)
        found.append(_Split(name=KIND, groups=groups_T, values=values))
    return [split for split in found if 2 <= len(split.values) <= _MAX_GROUPS]


def _of_one_class(recording: Recording, label: _Split) -> Iterator[_Split]:
    """Yield a label's split of the commonest class of tokens alone.

    Code has more punctuation than prose, so an expert of punctuation looks like one of code. What
    is left among tokens of one class is not that.
    """
    if recording.token_classes is not None and recording.num_tokens:
        commonest = int(np.bincount(recording.token_classes).argmax())
        is_kept_T = recording.token_classes == commonest
        groups_T = np.where(is_kept_T, label.groups, -1)
        yield replace(label, only=CLASSES[commonest], groups=groups_T)


def _by_record(recording: Recording, name: str, values: list[str | None]) -> _Split:
    spoken = {
        value
        for value, record in zip(values, recording.records, strict=True)
        if value is not None and record.num_tokens
    }
    names = tuple(sorted(spoken))
    numbers = {name: number for number, name in enumerate(names)}
    groups_T = _spread(recording, [numbers.get(value or "", -1) for value in values])
    return _Split(name=name, groups=groups_T, values=names)


def _tested(recording: Recording, split: _Split, num_permutations: int, seed: int) -> Axis:
    values = split.values
    counts_GDM, tokens_GD = counted(recording, split.groups, len(values))
    all_DM, all_tokens_D = counts_GDM.sum(0), tokens_GD.sum(0)
    # Of two groups one mirrors the other: testing both would only double the tests.
    tested = range(1 if len(values) == 2 else len(values))
    found = [
        difference(
            counts_GDM[group],
            tokens_GD[group],
            all_DM - counts_GDM[group],
            all_tokens_D - tokens_GD[group],
            seed=seed,
            num_permutations=num_permutations,
        )
        for group in tested
    ]
    adjusted = _adjusted([one for one in found if one is not None], recording)
    groups = tuple(
        Group(
            value=values[group],
            against=values[1] if len(values) == 2 else "the rest",
            num_tokens=int(tokens_GD[group].sum()),
            found=found[group],
            adjusted=None if found[group] is None else adjusted.pop(0),
        )
        for group in tested
    )
    num_tests = recording.num_layers * recording.num_experts * sum(one is not None for one in found)
    return Axis(name=split.name, only=split.only, groups=groups, num_tests=num_tests)


def _adjusted(found: list[Difference], recording: Recording) -> list[NDArray[np.float64]]:
    if not found:
        return []
    adjusted = benjamini_hochberg(np.stack([one.p_values for one in found]))
    return list(adjusted.reshape(len(found), recording.num_layers, recording.num_experts))
