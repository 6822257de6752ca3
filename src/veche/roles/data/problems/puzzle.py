"""What all made problems have in common: a start, moves, and an answer.

A solution makes the moves one after the other and writes a line for each. A wrong one takes a wrong
result for one move, and goes on from there as if it were right: every later line follows from it,
so the first wrong step is known by construction.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Generic, Literal, TypeVar, get_args

from veche.core.language import Language, Phrase

Kind = Literal["arithmetic", "dates", "units", "lists", "syllogisms"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LEVELS = range(1, 13)
"""Difficulties: each second one has a step more, each one larger numbers or more to read."""

State = TypeVar("State")
_SLIPS = 40
"""Wrong results that are tried for one move before another move is."""
_ANSWER: Phrase = {"en": "Answer: {answer}", "ru": "Ответ: {answer}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Move(Generic[State]):
    """One step of a solution.

    Attributes:
        apply: from a state to the next; None where it can't be applied, as dividing 7 by 2.
        slip: from (state, right next state) to a wrong next state, such as people make.
        say: the line that is written, of (state, next state).
    """

    apply: Callable[[State], State | None]
    slip: Callable[[State, State, Random], State]
    say: Callable[[State, State], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Puzzle(Generic[State]):
    """A problem, and how it is solved.

    Attributes:
        kind: which generator made it.
        intent: what is asked for: a label that is finer than the kind.
        language: of the question and of the solutions.
        difficulty: in LEVELS.
        question: as it is asked.
        facts: start and moves as numbers and words: the same in any language and wording.
        start: before the first move.
        moves: in order.
        answer_of: the answer in the form that `check` compares.
        spell: the answer as a solution writes it.
    """

    kind: Kind
    intent: str
    language: Language
    difficulty: int
    question: str
    facts: tuple[Any, ...]
    start: State
    moves: tuple[Move[State], ...]
    answer_of: Callable[[State], str]
    spell: Callable[[State], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """Lines of reasoning, of which the last is the answer.

    Attributes:
        steps: the lines.
        answer: in the form that `check` compares.
        first_bad_step: index of the first wrong line; None where all are right.
    """

    steps: tuple[str, ...]
    answer: str
    first_bad_step: int | None = None


def solved(puzzle: Puzzle[Any]) -> Solution:
    """Return the right solution."""
    states = _states_from(puzzle, 0, puzzle.start)
    if states is None:
        raise ValueError(f"the moves of a puzzle must be possible: {puzzle.facts}")
    return _written(puzzle, [puzzle.start, *states], None)


def slipped(puzzle: Puzzle[Any], rng: Random) -> Solution | None:
    """Return a solution with one slip in it, and a wrong answer; None where none was found."""
    right = solved(puzzle).answer
    for at in rng.sample(range(len(puzzle.moves)), len(puzzle.moves)):
        for _ in range(_SLIPS):
            states = _with_slip(puzzle, at, rng)
            if states is not None and puzzle.answer_of(states[-1]) != right:
                return _written(puzzle, states, at)
    return None


def _with_slip(puzzle: Puzzle[Any], at: int, rng: Random) -> list[Any] | None:
    states = [puzzle.start]
    for move in puzzle.moves[:at]:
        states.append(move.apply(states[-1]))
    move = puzzle.moves[at]
    right = move.apply(states[-1])
    wrong = move.slip(states[-1], right, rng)
    if wrong == right:
        return None
    rest = _states_from(puzzle, at + 1, wrong)
    return None if rest is None else [*states, wrong, *rest]


def _states_from(puzzle: Puzzle[Any], first: int, state: Any) -> list[Any] | None:
    states = []
    for move in puzzle.moves[first:]:
        state = move.apply(state)
        if state is None:
            return None
        states.append(state)
    return states


def _written(puzzle: Puzzle[Any], states: list[Any], bad: int | None) -> Solution:
    lines = [
        move.say(before, after)
        for move, before, after in zip(puzzle.moves, states, states[1:], strict=False)
    ]
    last = _ANSWER[puzzle.language].format(answer=puzzle.spell(states[-1]))
    return Solution(steps=(*lines, last), answer=puzzle.answer_of(states[-1]), first_bad_step=bad)


def num_moves(difficulty: int) -> int:
    """Return how many steps a difficulty has: 1, 1, 2, 2, 3 and so on."""
    return (difficulty + 1) // 2
