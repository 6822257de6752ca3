"""The text that carving looks at, apart from the text on which its result is judged.

Both are halves of Python's own help topics, which every Python carries: nothing is fetched.
"""

from functools import cache


def calibration_text() -> str:
    """Return the half that partitions and routers are fitted on."""
    return _halves()[0]


def heldout_text() -> str:
    """Return the half that is only ever measured on."""
    return _halves()[1]


@cache
def _halves() -> tuple[str, str]:
    from pydoc_data.topics import topics

    text = "\n\n".join(topics[name] for name in sorted(topics))
    middle = text.index("\n\n", len(text) // 2)
    return text[:middle], text[middle:].lstrip()
