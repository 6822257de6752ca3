"""Which objections hold: they find a fault, and they name it in the draft's words."""

import re
from collections.abc import Sequence

from veche.council.agreement import content_words, overlap

_COPY = 0.85
_NO_FAULT = re.compile(
    r"\b(?:no|not an?y?|without) (?:faults?|errors?|mistakes?)\b|\b(?:not|nothing|isn't) (?:is )?"
    r"(?:wrong|incorrect|false)\b|\bошиб\w+ нет\b|\b(?:нет|без) ошиб"
    r"|\bне (?:содержит ошиб|ошиб|невер)",
    re.IGNORECASE,
)
_BLAME = re.compile(
    r"\b(?:not|wrong\w*|incorrect\w*|inaccurate\w*|false\w*|errors?|mistakes?|mistaken|faulty?"
    r"|should|instead|ignores?|misses|missing|contradicts?|lacks?)\b|n['’]t\b"
    r"|\b(?:не|нет|невер\w*|ошиб\w*|неправ\w*|неточ\w*|ложн\w*|должн\w*|следует|вместо|а не"
    r"|противореч\w*|упуск\w*)\b",
    re.IGNORECASE,
)


def holds(objection: str, draft: str, drafts: Sequence[str] = ()) -> bool:
    """Return whether an objection names something checkable in the draft.

    It must not be empty, nor say that there is no fault; it must share a content word with the
    draft ("could be better" could be said of anything); it must say that something is wrong, since
    praise corrects nothing; and it must not just repeat one of the `drafts`. Whether it is *true*,
    no rule can tell: that is left to the voice that revises.
    """
    if _NO_FAULT.search(objection) or not _BLAME.search(objection):
        return False
    said = content_words(objection)
    if any(overlap(said, content_words(other)) >= _COPY for other in drafts):
        return False
    return bool(said & content_words(draft))
