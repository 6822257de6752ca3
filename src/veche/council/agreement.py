"""Whether two answers say the same: a marked final answer decides, else their content words."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

_WORD = re.compile(r"[^\W_]+(?:[.,:/'’-][^\W_]+)*")
_NUMBER = re.compile(r"[-−]?(?:\d{1,3}(?:[ \u00a0\u202f]\d{3})+(?!\d)|\d+)(?:[.,]\d+)*")
_MARK = re.compile(r"(?:answer|ответ|итог)\s*(?:is|:|—|-)\s*(.+)", re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\{([^{}]+)\}")
_NEGATION_WORDS = "no not never none nobody nothing cannot n't не ни нет никогда нельзя"
_STOP_TEXT = """
a an and are as at be been but by can could do does for from had has have he her his i if in into is
it its of on or our she so such than that the their them then there these they this to was we were
what when where which who will with would you your
а бы был была были было быть в вам вас весь во вот все всё вы где да для до его ее если есть же за и
из или им их к как когда которая которое которые который кто ли мы на над наш него она они оно от по
под при с со так также такой там то того тоже только тот ты у уже чем что чтобы эта эти это этот я
"""
_NEGATIONS = frozenset(_NEGATION_WORDS.split())
_STOP_WORDS = frozenset(_STOP_TEXT.split())
_STEM_LATIN, _STEM_CYRILLIC = 6, 5
_LONGEST_SHORT_ANSWER = 6


def agreement(first: str, second: str) -> float:
    r"""Return how much two answers agree, in [0, 1].

    1. Both end with a marked short answer (`Answer: …`, `Ответ: …`, `\\boxed{…}`): 1 if these are
       the same number or the same words, else 0.
    2. Else the F1 of their content words: words without stop words, cut to a stem of 6 letters
       (5 in Cyrillic, where endings are longer), counted with multiplicity.
    3. 0 when only one of them negates, when their numbers share nothing, or when one is empty:
       in doubt the council goes on.
    """
    answers = [final_answer(first), final_answer(second)]
    if answers[0] and answers[1]:
        return float(answers[0] == answers[1])
    if _contradict(first, second):
        return 0.0
    return overlap(content_words(first), content_words(second))


def overlap(first: Counter[str], second: Counter[str]) -> float:
    """Return F1 = 2·|A ∩ B| / (|A| + |B|) of two multisets; 0 when one is empty."""
    if not first or not second:
        return 0.0
    return 2 * (first & second).total() / (first.total() + second.total())


def agreement_matrix(texts: Sequence[str]) -> list[list[float]]:
    """Return the agreement of every pair; the diagonal is 1."""
    size = range(len(texts))
    return [[1.0 if a == b else agreement(texts[a], texts[b]) for b in size] for a in size]


def disagreement(matrix: Sequence[Sequence[float]]) -> float:
    """Return 1 − the mean agreement of different voices; 0 for fewer than two."""
    pairs = [matrix[a][b] for a in range(len(matrix)) for b in range(a)]
    return 1 - sum(pairs) / len(pairs) if pairs else 0.0


def all_agree(matrix: Sequence[Sequence[float]], threshold: float) -> bool:
    """Return whether every pair agrees."""
    return all(value >= threshold for row in matrix for value in row)


def largest_group(matrix: Sequence[Sequence[float]], threshold: float) -> list[int]:
    """Return the most voices of whom one agrees with all the others; the first such, in order."""
    groups = [[b for b, value in enumerate(row) if value >= threshold] for row in matrix]
    return max(groups, key=len, default=[])


def most_central(matrix: Sequence[Sequence[float]]) -> int:
    """Return whose answer agrees most with all the others; the first among equals."""
    return max(range(len(matrix)), key=lambda index: sum(matrix[index]))


def final_answer(text: str) -> str:
    """Return the marked short answer of a text in normal form, or nothing."""
    marked = _BOXED.findall(text) or _MARK.findall(text)
    if not marked:
        return ""
    numbers = numbers_in(marked[-1])
    if len(numbers) == 1:
        return numbers[0]
    words = _words(marked[-1])
    return " ".join(words) if len(words) <= _LONGEST_SHORT_ANSWER else ""


def content_words(text: str) -> Counter[str]:
    """Return the stems of the words that carry meaning, with multiplicity."""
    return Counter(_stem(word) for word in _words(text) if word not in _STOP_WORDS)


def numbers_in(text: str) -> list[str]:
    """Return the numbers of a text in normal form: 1,000 = 1000 = 1 000.0."""
    return [_normal_number(match) for match in _NUMBER.findall(text)]


def _contradict(first: str, second: str) -> bool:
    negated = [bool(_NEGATIONS & set(_words(text))) for text in (first, second)]
    numbers = [set(numbers_in(text)) for text in (first, second)]
    return negated[0] != negated[1] or (all(numbers) and not numbers[0] & numbers[1])


def _words(text: str) -> list[str]:
    folded = unicodedata.normalize("NFKC", text).casefold().replace("ё", "е")
    return _WORD.findall(folded.replace("n't", " n't ").replace("n’t", " not "))


def _stem(word: str) -> str:
    is_cyrillic = any("а" <= letter <= "я" for letter in word)
    return word[: _STEM_CYRILLIC if is_cyrillic else _STEM_LATIN]


def _normal_number(text: str) -> str:
    plain = re.sub(r"\s", "", text.replace("−", "-"))
    if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", plain):
        plain = plain.replace(",", "")
    plain = plain.replace(",", ".")
    try:
        return f"{float(plain):.12g}"
    except ValueError:
        return plain
