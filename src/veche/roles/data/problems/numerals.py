"""Numbers with the words that they count, in the right form of both languages."""

from dataclasses import dataclass

from veche.core.language import Language


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What is counted.

    Attributes:
        english: one, and several: ("day", "days").
        russian: with 1, with 2, with 5: ("день", "дня", "дней").
        accusative: the Russian form with 1 where somebody does something to it ("минуту"); empty
            where it is as in `russian`.
        within: Russian, as in "сколько это в …": ("днях").
    """

    english: tuple[str, str]
    russian: tuple[str, str, str]
    accusative: str = ""
    within: str = ""

    def many(self, language: Language) -> str:
        """Return the word behind "how many": days, дней."""
        return self.english[1] if language == "en" else self.russian[2]


def counted(number: int, what: Counted, language: Language, *, is_object: bool = False) -> str:
    """Return a number with its word: 1 day, 21 день, 22 дня, 25 дней.

    Args:
        number: how many.
        what: is counted.
        language: of the words.
        is_object: in Russian, whether the accusative is asked for: "через 21 минуту".
    """
    if language == "en":
        return f"{number} {what.english[0 if number == 1 else 1]}"
    index = russian_form(number)
    word = what.russian[index]
    return f"{number} {what.accusative or word if is_object and index == 0 else word}"


def russian_form(number: int) -> int:
    """Return which form counts in Russian: 0 (1, 21, 101), 1 (2–4, 22) or 2 (0, 5–20, 111).

    Source: Unicode CLDR, plural rules, ru: one, few, many.
    """
    tens, ones = abs(number) % 100, abs(number) % 10
    if ones == 1 and tens != 11:
        return 0
    return 1 if ones in (2, 3, 4) and tens not in (12, 13, 14) else 2


TIMES = Counted(english=("time", "times"), russian=("раз", "раза", "раз"))
DAYS = Counted(english=("day", "days"), russian=("день", "дня", "дней"), within="днях")
WEEKS = Counted(
    english=("week", "weeks"),
    russian=("неделя", "недели", "недель"),
    accusative="неделю",
    within="неделях",
)
