"""What was measured of a role, and of what stands beside it.

Shapes: N rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from veche.core.progress import Progress, Silent
from veche.experts.bootstrap import Interval
from veche.roles.evaluation.intervals import Statistic, gain_interval, grouped_interval

Measures = Literal["answer", "step", "question", "report", "speech"]
"""What is judged: whether an answer is right, which step is the first wrong one, what a question
asks, what an observer reports, what a voice says."""
Metric = Callable[[NDArray[np.float64], NDArray[np.bool_]], float]
"""Of a score and a label."""
ROLE = "role"
LESS_IS_BETTER = ("ece", "brier", "aurc", "nll")


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """What pictures are drawn from.

    Attributes:
        score: [N], higher the likelier positive.
        is_positive: [N].
        is_probability: whether the score is a probability, so that it can be calibrated or not.
    """

    score: NDArray[np.float64]
    is_positive: NDArray[np.bool_]
    is_probability: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """The role, or one that it is compared with.

    Attributes:
        name: "role", or of the baseline.
        figures: by name.
        gains: by how much the role is better at a figure, paired; none for the role itself.
        curve: None where there is nothing to draw.
    """

    name: str
    figures: Mapping[str, Interval]
    gains: Mapping[str, Interval] = field(default_factory=dict)
    curve: Curve | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something that the reader of figures has to know; `phrases` has the words.

    Attributes:
        key: of the phrase.
        values: for its places.
    """

    key: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Everything of one kind that was measured on the same rows.

    Attributes:
        measures: what is judged.
        num_rows: N.
        num_groups: problems that they belong to, which is what is resampled.
        headline: the figure that gains are of.
        methods: the role first.
        notes: what to know of them.
    """

    measures: Measures
    num_rows: int
    num_groups: int
    headline: str
    methods: tuple[Method, ...]
    notes: tuple[Note, ...] = ()

    @property
    def role(self) -> Method:
        """The role itself."""
        return self.methods[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A method whose figures are still to be computed.

    Attributes:
        name: as in `Method`.
        statistics: each figure as a function of rows.
        known: figures with their intervals, which are not functions of the same rows.
        curve: as in `Method`.
    """

    name: str
    statistics: Mapping[str, Statistic]
    known: Mapping[str, Interval] = field(default_factory=dict)
    curve: Curve | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Everything of one kind that can be measured on the same rows.

    Attributes:
        measures: as in `Part`.
        candidates: the role first.
        groups: the problem of each row.
        headline: as in `Part`.
        notes: as in `Part`.
    """

    measures: Measures
    candidates: tuple[Candidate, ...]
    groups: tuple[str, ...]
    headline: str
    notes: tuple[Note, ...] = ()

    @property
    def role(self) -> Candidate:
        """The role itself."""
        return self.candidates[0]


def measured(
    prepared: Prepared, *, gains: Sequence[str] | None = None, progress: Progress | None = None
) -> Part:
    """Return all figures with their intervals, and the role's gains, on the same resamples.

    Args:
        prepared: what is measured.
        gains: figures that the role is compared with the others by; None is the headline alone.
        progress: told of each method.
    """
    compared = (prepared.headline,) if gains is None else tuple(gains)
    methods = []
    with (progress or Silent()).task("resample", total=len(prepared.candidates)) as advance:
        for each in prepared.candidates:
            both = each.statistics.keys() & prepared.role.statistics.keys()
            names = [name for name in compared if name in both and each is not prepared.role]
            methods.append(
                Method(
                    name=each.name,
                    figures={
                        name: grouped_interval(statistic, prepared.groups)
                        for name, statistic in each.statistics.items()
                    }
                    | dict(each.known),
                    gains={name: _gain(name, each, prepared) for name in names},
                    curve=each.curve,
                )
            )
            advance(1)
    return Part(
        measures=prepared.measures,
        num_rows=len(prepared.groups),
        num_groups=len(set(prepared.groups)),
        headline=prepared.headline,
        methods=tuple(methods),
        notes=prepared.notes,
    )


def _gain(name: str, base: Candidate, prepared: Prepared) -> Interval:
    ends = (base.statistics[name], prepared.role.statistics[name])
    first, second = ends[::-1] if name in LESS_IS_BETTER else ends
    return gain_interval(first, second, prepared.groups)


def score_statistics(
    score_N: NDArray[np.float64], is_positive_N: NDArray[np.bool_], metrics: Mapping[str, Metric]
) -> dict[str, Statistic]:
    """Return metrics of a score and a label as functions of rows."""

    def of(metric: Metric) -> Statistic:
        """Bind one of them."""
        return lambda rows: metric(score_N[rows], is_positive_N[rows])

    return {name: of(metric) for name, metric in metrics.items()}
