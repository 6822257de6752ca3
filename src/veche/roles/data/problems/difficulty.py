"""How hard made problems must be for a model to get some right and some wrong."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from veche.core.language import Language
from veche.core.progress import Progress, Silent
from veche.engines.protocol import Engine, Sampling
from veche.experts.bootstrap import Interval
from veche.roles.data.asking import Asked, Asking
from veche.roles.data.dialogue import problem_of
from veche.roles.data.example import Example
from veche.roles.data.problems.check import is_right
from veche.roles.data.problems.generate import generate
from veche.roles.data.problems.puzzle import LEVELS, Kind
from veche.roles.evaluation.wilson import wilson_interval

BAND = (0.2, 0.8)
_CHANCE: dict[Kind, float] = {
    "arithmetic": 0.0,
    "dates": 1 / 14,
    "units": 0.0,
    "lists": 0.0,
    "syllogisms": 0.5,
}
"""What guessing gets: half of the dates ask for one of seven days."""
Verdict = Literal["found", "too hard", "too easy", "gap"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """One difficulty, tried.

    Attributes:
        difficulty: in LEVELS.
        right: how many problems the model got right.
        total: of how many.
    """

    difficulty: int
    right: int
    total: int

    @property
    def share(self) -> Interval:
        """The share right, with Wilson's 95 % interval."""
        return wilson_interval(self.right, self.total)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        share = self.share
        return {
            "difficulty": self.difficulty,
            "right": self.right,
            "total": self.total,
            "share": share.mean,
            "interval": share.as_list(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """What was found for one kind of problem.

    Attributes:
        kind: of problem.
        language: of problem.
        levels: those that were tried, easiest first.
        verdict: "found"; "too hard" (below the band at the easiest), "too easy" (above it at the
            hardest), or "gap" (above it at one difficulty, below it at the next).
        chosen: the difficulty that lies in the band; None where none was found.
    """

    kind: Kind
    language: Language
    levels: tuple[Level, ...]
    verdict: Verdict
    chosen: Level | None

    @property
    def chance(self) -> float:
        """The share that guessing gets right."""
        return _CHANCE[self.kind]

    @property
    def is_above_chance(self) -> bool | None:
        """Whether the chosen share is surely more than guessing gets; None where none was found."""
        return None if self.chosen is None else self.chosen.share.low > self.chance

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "kind": self.kind,
            "language": self.language,
            "verdict": self.verdict,
            "difficulty": None if self.chosen is None else self.chosen.difficulty,
            "chance": self.chance,
            "is_above_chance": self.is_above_chance,
            "levels": [level.as_dict() for level in self.levels],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """How difficulties are tried.

    Attributes:
        count: problems of each.
        shots: worked problems of the same kind and difficulty that the model is shown first.
        seed: of the problems.
        band: the least and the largest share.
        max_new_tokens: of an answer.
        batch: answers that are decoded at once.
    """

    count: int = 40
    shots: int = 3
    seed: int = 0
    band: tuple[float, float] = BAND
    max_new_tokens: int = 128
    batch: int = 20


def find_difficulty(
    engine: Engine,
    kind: Kind,
    language: Language,
    settings: FitSettings,
    *,
    progress: Progress | None = None,
) -> Fit:
    """Find a difficulty at which a model's greedy answers are right as often as the band says.

    Difficulties 1, 2, 4, 8, 12 are tried until the share is no longer above the band; if it is
    below it then, the gap to the last one above is halved.

    Args:
        engine: the model.
        kind: of problem.
        language: of problem.
        settings: how.
        progress: told of each answer.
    """
    tried: dict[int, Level] = {}

    def level(difficulty: int) -> Level:
        if difficulty not in tried:
            tried[difficulty] = try_level(
                engine, kind, language, difficulty, settings, progress=progress
            )
        return tried[difficulty]

    verdict, chosen = _search(level, settings.band)
    return Fit(
        kind=kind,
        language=language,
        levels=tuple(tried[key] for key in sorted(tried)),
        verdict=verdict,
        chosen=chosen,
    )


def try_level(
    engine: Engine,
    kind: Kind,
    language: Language,
    difficulty: int,
    settings: FitSettings,
    *,
    progress: Progress | None = None,
) -> Level:
    """Ask problems of one difficulty, and count the right answers."""
    made = generate(
        kind,
        language=language,
        difficulty=difficulty,
        count=settings.count + settings.shots,
        seed=settings.seed,
        answers="right",
    )
    asking = Asking(language=language, worked=tuple(made[settings.count :]))
    questions = made[: settings.count]
    label = f"{kind}, {language}, difficulty {difficulty}"
    right = 0
    with (progress or Silent()).task(label, total=len(questions)) as advance:
        for question, said in answers_to(engine, questions, asking, settings):
            right += is_right(question.final_answer or "", said)
            advance(1)
    return Level(difficulty=difficulty, right=right, total=len(questions))


def answers_to(
    engine: Engine, questions: Sequence[Example], asking: Asking, settings: FitSettings
) -> Iterator[tuple[Example, str]]:
    """Yield each question with a greedy answer; all share the trunk of the worked problems."""
    sampling = Sampling(max_new_tokens=settings.max_new_tokens)
    trunk = engine.open_trunk(system=asking.system, user=asking.opening)
    try:
        for start in range(0, len(questions), settings.batch):
            part = questions[start : start + settings.batch]
            branches = [
                asking.branch(
                    Asked(name=str(number), sampling=sampling),
                    question=asking.problem(problem_of(question.messages)),
                )
                for number, question in enumerate(part)
            ]
            results = engine.decode(trunk, branches)
            yield from zip(part, (result.text for result in results), strict=True)
    finally:
        engine.close_trunk(trunk)


def _search(
    level: Callable[[int], Level], band: tuple[float, float]
) -> tuple[Verdict, Level | None]:
    """Climb until a difficulty is not above the band; then halve the gap, if it is below."""
    low, high = band
    above, below = 0, LEVELS[-1] + 1
    for difficulty in (1, 2, 4, 8, LEVELS[-1]):
        if level(difficulty).share.mean <= high:
            below = difficulty
            break
        above = difficulty
    else:
        return "too easy", None
    middle = below
    while True:
        share = level(middle).share.mean
        if low <= share <= high:
            return "found", level(middle)
        if share > high:
            above = middle
        else:
            below = middle
        if below - above <= 1:
            return ("gap" if above else "too hard"), None
        middle = (above + below) // 2
