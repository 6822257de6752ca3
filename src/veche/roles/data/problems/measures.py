"""Units of measure: their words, and how many of the next smaller one each holds."""

from dataclasses import dataclass

from veche.core.language import Phrase
from veche.roles.data.problems.numerals import Counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One unit of a quantity.

    Attributes:
        name: the same in all languages, as in `facts`.
        words: what counts it.
        size: how many of the quantity's smallest unit it is.
    """

    name: str
    words: Counted
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """What is measured.

    Attributes:
        units: from the largest to the smallest.
        has: how a thing is introduced, with {start}.
        more: how it becomes larger by {n}.
        less: how it becomes smaller by {n}.
        times: how it becomes {times} as large.
        asked: the question, with {unit}: "in metres", "в метрах".
    """

    units: tuple[Unit, ...]
    has: Phrase
    more: Phrase
    less: Phrase
    times: Phrase
    asked: Phrase


def _unit(
    name: str,
    size: int,
    english: str,
    russian: tuple[str, str, str],
    within: str,
    accusative: str = "",
) -> Unit:
    words = Counted(
        english=(english, english + "s"), russian=russian, within=within, accusative=accusative
    )
    return Unit(name=name, words=words, size=size)


LENGTH = Quantity(
    units=(
        _unit("km", 1_000_000, "kilometre", ("километр", "километра", "километров"), "километрах"),
        _unit("m", 1_000, "metre", ("метр", "метра", "метров"), "метрах"),
        _unit("cm", 10, "centimetre", ("сантиметр", "сантиметра", "сантиметров"), "сантиметрах"),
        _unit("mm", 1, "millimetre", ("миллиметр", "миллиметра", "миллиметров"), "миллиметрах"),
    ),
    has={"en": "A cable is {start} long.", "ru": "Длина кабеля — {start}."},
    more={"en": "It is made {n} longer.", "ru": "Его удлиняют на {n}."},
    less={"en": "It is made {n} shorter.", "ru": "Его укорачивают на {n}."},
    times={"en": "Then it is made {times} as long.", "ru": "Затем его делают в {times} длиннее."},
    asked={"en": "How long is it in {unit}?", "ru": "Какова его длина в {unit}?"},
)
MASS = Quantity(
    units=(
        _unit("t", 1_000_000, "tonne", ("тонна", "тонны", "тонн"), "тоннах", "тонну"),
        _unit("kg", 1_000, "kilogram", ("килограмм", "килограмма", "килограммов"), "килограммах"),
        _unit("g", 1, "gram", ("грамм", "грамма", "граммов"), "граммах"),
    ),
    has={"en": "A load weighs {start}.", "ru": "Масса груза — {start}."},
    more={"en": "It becomes {n} heavier.", "ru": "Он становится тяжелее на {n}."},
    less={"en": "It becomes {n} lighter.", "ru": "Он становится легче на {n}."},
    times={
        "en": "Then it becomes {times} as heavy.",
        "ru": "Затем он становится в {times} тяжелее.",
    },
    asked={"en": "What does it weigh in {unit}?", "ru": "Какова его масса в {unit}?"},
)
TIME = Quantity(
    units=(
        _unit("d", 86_400, "day", ("день", "дня", "дней"), "днях"),
        _unit("h", 3_600, "hour", ("час", "часа", "часов"), "часах"),
        _unit("min", 60, "minute", ("минута", "минуты", "минут"), "минутах", "минуту"),
        _unit("s", 1, "second", ("секунда", "секунды", "секунд"), "секундах", "секунду"),
    ),
    has={"en": "A process takes {start}.", "ru": "Длительность процесса — {start}."},
    more={"en": "It gets {n} slower.", "ru": "Его удлиняют на {n}."},
    less={"en": "It gets {n} faster.", "ru": "Его сокращают на {n}."},
    times={
        "en": "Then it takes {times} as long.",
        "ru": "Затем он становится в {times} дольше.",
    },
    asked={"en": "How long does it take in {unit}?", "ru": "Какова его длительность в {unit}?"},
)
VOLUME = Quantity(
    units=(
        _unit("l", 1_000, "litre", ("литр", "литра", "литров"), "литрах"),
        _unit("ml", 1, "millilitre", ("миллилитр", "миллилитра", "миллилитров"), "миллилитрах"),
    ),
    has={"en": "A tank holds {start} of water.", "ru": "Объём воды в баке — {start}."},
    more={"en": "Another {n} are poured in.", "ru": "Его увеличивают на {n}."},
    less={"en": "Out of it {n} are drained.", "ru": "Его уменьшают на {n}."},
    times={
        "en": "Then there is {times} as much of it.",
        "ru": "Затем он становится в {times} больше.",
    },
    asked={"en": "How much water is it in {unit}?", "ru": "Каков он в {unit}?"},
)
QUANTITIES = (LENGTH, MASS, TIME, VOLUME)
