"""Small syllogisms: a chain of "every" and "no" that leads from what somebody is to what he isn't.

Beside the chain runs a second one, of other trades, which leads to the opposite: a slip goes over
to it, and each later step is a valid inference from there.
"""

import itertools
from functools import partial
from random import Random

from veche.core.language import Language, Phrase
from veche.roles.data.problems.puzzle import Move, Puzzle, num_moves

State = tuple[int, bool]
"""(which trade, whether he has it)."""

_TRADES = (
    ("painter", "художник"), ("gardener", "садовник"), ("fisher", "рыбак"), ("baker", "пекарь"),
    ("singer", "певец"), ("runner", "бегун"), ("doctor", "врач"), ("sailor", "моряк"),
    ("cook", "повар"), ("poet", "поэт"), ("carpenter", "плотник"), ("pianist", "пианист"),
    ("chess player", "шахматист"), ("swimmer", "пловец"), ("teacher", "учитель"),
    ("farmer", "фермер"), ("dancer", "танцор"), ("actor", "актёр"), ("pilot", "лётчик"),
    ("hunter", "охотник"), ("writer", "писатель"), ("builder", "строитель"), ("skier", "лыжник"),
    ("chemist", "химик"), ("historian", "историк"), ("weaver", "ткач"),
)  # fmt: skip
_NAMES = (
    ("Anton", "Антон"), ("Boris", "Борис"), ("Ivan", "Иван"), ("Oleg", "Олег"),
    ("Pavel", "Павел"), ("Roman", "Роман"), ("Viktor", "Виктор"), ("Yegor", "Егор"),
)  # fmt: skip
_YES: Phrase = {"en": "yes", "ru": "да"}
_NO: Phrase = {"en": "no", "ru": "нет"}


def syllogisms(rng: Random, difficulty: int, language: Language) -> Puzzle[State]:
    """Return a chain of premises; its answer is yes or no."""
    length = num_moves(difficulty)
    trades = rng.sample(range(len(_TRADES)), 2 * length + 2 + difficulty // 2)
    goal, own, other = trades[0], trades[1 : length + 1], trades[length + 1 : 2 * length + 1]
    has_goal = rng.random() < 0.5
    premises = [
        *((a, b, True) for chain in (own, other) for a, b in itertools.pairwise(chain)),
        (own[-1], goal, has_goal),
        (other[-1], goal, not has_goal),
        # What leads nowhere: from trades that he need not have.
        *((spare, rng.choice([*own, *other]), True) for spare in trades[2 * length + 2 :]),
    ]
    rng.shuffle(premises)
    name = rng.randrange(len(_NAMES))
    speaker = _Speaker(language, _NAMES[name][0 if language == "en" else 1])
    steps = [*own, goal]
    return Puzzle(
        kind="syllogisms",
        intent="syllogism",
        language=language,
        difficulty=difficulty,
        question=speaker.question(rng, premises, own[0], goal),
        facts=(name, own[0], goal, *premises),
        start=(own[0], True),
        moves=tuple(
            Move(
                apply=partial(_applied, premises),
                slip=partial(_slip, other[at + 1] if at + 1 < length else None),
                say=speaker.line,
            )
            for at in range(len(steps) - 1)
        ),
        answer_of=lambda state: (_YES if state[1] else _NO)[language],
        spell=lambda state: (_YES if state[1] else _NO)[language],
    )


def _applied(premises: list[tuple[int, int, bool]], state: State) -> State | None:
    return next(((b, is_b) for a, b, is_b in premises if state == (a, True)), None)


def _slip(other: int | None, before: State, right: State, rng: Random) -> State:
    """Go over to the other chain; at its end, take "every" for "no"."""
    return (right[0], not right[1]) if other is None else (other, True)


class _Speaker:
    """The wordings of one problem."""

    def __init__(self, language: Language, name: str) -> None:
        self._language = language
        self._name = name

    def question(
        self, rng: Random, premises: list[tuple[int, int, bool]], is_a: int, goal: int
    ) -> str:
        """Return all premises, what the person is, and what is asked."""
        every, no = rng.choice(_PREMISES)
        told = [
            _capital((every if is_b else no)[self._language].format(**self._words(a, b)))
            for a, b, is_b in premises
        ]
        return rng.choice(_FRAMES)[self._language].format(
            premises=" ".join(f"{sentence}." for sentence in told), **self._words(is_a, goal)
        )

    def line(self, before: State, after: State) -> str:
        """Return one inference."""
        every, no = _PREMISES[0]
        (trade, _), (result, is_result) = before, after
        words = self._words(trade, result)
        premise = (every if is_result else no)[self._language].format(**words)
        frame = _SO if is_result else _SO_NOT
        return frame[self._language].format(premise=premise, **words)

    def _words(self, first: int, second: int) -> dict[str, str]:
        is_english = self._language == "en"
        a, b = (_TRADES[trade][0 if is_english else 1] for trade in (first, second))
        return {
            "name": self._name,
            "a": a,
            "is_a": _with_article(a) if is_english else a,
            "is_b": _with_article(b) if is_english else b,
        }


_PREMISES: tuple[tuple[Phrase, Phrase], ...] = (
    (
        {"en": "every {a} is {is_b}", "ru": "каждый {a} — {is_b}"},
        {"en": "no {a} is {is_b}", "ru": "ни один {a} не {is_b}"},
    ),
    (
        {"en": "whoever is {is_a} is {is_b} too", "ru": "кто {is_a}, тот и {is_b}"},
        {"en": "whoever is {is_a} is not {is_b}", "ru": "кто {is_a}, тот не {is_b}"},
    ),
)
_FRAMES: tuple[Phrase, ...] = (
    {
        "en": "{premises} {name} is {is_a}. Is {name} {is_b}?",
        "ru": "{premises} {name} — {is_a}. Правда ли, что {name} — {is_b}?",
    },
    {
        "en": "Suppose this: {premises} Now take {name}, who is {is_a}. Must he be {is_b} as well?",
        "ru": "Допустим: {premises} Теперь возьмём человека по имени {name}; он {is_a}. Тогда "
        "он {is_b}?",
    },
)
_SO: Phrase = {
    "en": "{name} is {is_a}, and {premise}, so {name} is {is_b}.",
    "ru": "{name} — {is_a}, а {premise}, значит, {name} — {is_b}.",
}
_SO_NOT: Phrase = {
    "en": "{name} is {is_a}, and {premise}, so {name} is not {is_b}.",
    "ru": "{name} — {is_a}, а {premise}, значит, {name} — не {is_b}.",
}


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
