"""Which objections hold: they quote the draft, and they say something else than it does."""

import re

from veche.council.agreement import content_words

_NEW_WORDS = 2
_NO_FAULT = re.compile(
    r"\bno (?:faults?|errors?|mistakes?)\b|\bошиб\w+ нет\b|\bнет ошиб|не содержит ошиб",
    re.IGNORECASE,
)


def holds(objection: str, draft: str) -> bool:
    """Return whether an objection names something checkable in the draft.

    It must not be empty, nor say that there is no fault; it must share a content word with the
    draft ("could be better" could be said of anything); and it must say something that the draft
    does not say, since a mere quotation or praise corrects nothing. Whether it is *true*, no rule
    can tell: that is left to the voice that revises.
    """
    if _NO_FAULT.search(objection):
        return False
    said, drafted = content_words(objection), content_words(draft)
    return bool(said & drafted) and len(said - drafted) >= _NEW_WORDS
