"""What probes learn from: a row for each answer, or for each step up to the first wrong one.

Shapes: N rows, F features of a block.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from veche.roles.data.example import Example
from veche.roles.probe.features import Floats, answer_blocks, stacked, step_blocks
from veche.roles.probe.observation import Observation
from veche.roles.probe.steps import joined, steps_of

WRONG, RIGHT = "wrong", "right"
SOUND, FIRST_WRONG = "sound", "first_wrong"
ANSWER_LABELS = (WRONG, RIGHT)
STEP_LABELS = (SOUND, FIRST_WRONG)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Features and labels of N answers, or steps.

    Attributes:
        labels: the two (or more) that there are; of two, the second is the positive one.
        row_labels: what each row is.
        blocks: [N, F] by name.
        groups: the problem of each row.
        tasks: where it comes from.
        texts: what it says.
        source: [N], index of the example that it belongs to.
        place: [N], index of the step; 0 for answers.
        is_judged: [N], whether the label is known; of steps behind the first wrong one it is not.
    """

    labels: tuple[str, ...]
    row_labels: tuple[str, ...]
    blocks: Mapping[str, Floats]
    groups: tuple[str, ...]
    tasks: tuple[str, ...]
    texts: tuple[str, ...]
    source: NDArray[np.int64]
    place: NDArray[np.int64]
    is_judged: NDArray[np.bool_]

    def __len__(self) -> int:
        """N."""
        return len(self.row_labels)

    @property
    def is_positive(self) -> NDArray[np.bool_]:
        """[N], whether a row has the second label."""
        return np.array([label == self.labels[1] for label in self.row_labels], dtype=bool)

    @property
    def judged(self) -> "Rows":
        """The rows whose label is known."""
        return self if self.is_judged.all() else self.taken(np.flatnonzero(self.is_judged))

    def taken(self, rows: Iterable[int]) -> "Rows":
        """Return some rows, in the order given."""
        at = np.fromiter(rows, dtype=np.int64)

        def some(values: Sequence[str]) -> tuple[str, ...]:
            return tuple(values[index] for index in at)

        return Rows(
            labels=self.labels,
            row_labels=some(self.row_labels),
            blocks={name: features[at] for name, features in self.blocks.items()},
            groups=some(self.groups),
            tasks=some(self.tasks),
            texts=some(self.texts),
            source=self.source[at],
            place=self.place[at],
            is_judged=self.is_judged[at],
        )


def answer_rows(examples: Sequence[Example], seen: Sequence[Observation]) -> Rows:
    """Return a row for each answer that is known to be right or wrong; right is positive."""
    known = [index for index, example in enumerate(examples) if example.is_right is not None]
    return Rows(
        labels=ANSWER_LABELS,
        row_labels=tuple(RIGHT if examples[index].is_right else WRONG for index in known),
        blocks=stacked([answer_blocks(examples[index], seen[index]) for index in known]),
        groups=tuple(examples[index].group for index in known),
        tasks=tuple(examples[index].task for index in known),
        texts=tuple(joined(steps_of(examples[index])) for index in known),
        source=np.array(known, dtype=np.int64),
        place=np.zeros(len(known), dtype=np.int64),
        is_judged=np.ones(len(known), dtype=bool),
    )


def step_rows(examples: Sequence[Example], seen: Sequence[Observation]) -> Rows:
    """Return a row for each step; the first wrong one is positive, those behind it not judged.

    Of an answer that is wrong, and nobody knows where, nothing is taken.
    """
    known = [index for index, example in enumerate(examples) if num_judged_steps(example)]
    blocks = [step_blocks(examples[index], seen[index]) for index in known]
    pairs = [(index, step) for index in known for step in range(len(steps_of(examples[index])))]
    return Rows(
        labels=STEP_LABELS,
        row_labels=tuple(
            FIRST_WRONG if examples[index].first_bad_step == step else SOUND
            for index, step in pairs
        ),
        blocks=stacked(blocks, is_steps=True),
        groups=tuple(examples[index].group for index, _ in pairs),
        tasks=tuple(examples[index].task for index, _ in pairs),
        texts=tuple(steps_of(examples[index])[step] for index, step in pairs),
        source=np.array([index for index, _ in pairs], dtype=np.int64),
        place=np.array([step for _, step in pairs], dtype=np.int64),
        is_judged=np.array(
            [step < num_judged_steps(examples[index]) for index, step in pairs], dtype=bool
        ),
    )


def num_judged_steps(example: Example) -> int:
    """Return how many steps somebody judged: all up to the first wrong one; 0 if nobody did."""
    if not example.is_answered:
        return 0
    if example.first_bad_step is not None:
        return example.first_bad_step + 1
    # A trace without a marked step whose answer is wrong went wrong where nobody knows.
    return len(steps_of(example)) if example.is_right else 0
