"""JSON as veche reads and writes it: RFC 8259 to the letter, in bounded memory.

Python's parser alone would take the last of two equal keys, NaN and Infinity, and any depth; and
its objects may be thirty times as large as their text.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

MAX_ELEMENTS = 2_000_000
"""Brackets, braces and commas of one text: at most about 230 bytes of memory each.

A safetensors header has nine a tensor, so 200,000 tensors in one file are read.
"""
MAX_DEPTH = 64
"""Levels of nesting: what is read here is later copied and written by recursive code."""


def parse_json(raw: bytes) -> Any:
    """Return the value of a JSON text in UTF-8.

    Raises:
        ValueError: it is none, a key stands twice in one object, a number is NaN or infinite, a
            text holds half of a surrogate pair, or it is nested or divided beyond measure.
    """
    num_elements = sum(raw.count(mark) for mark in (b"{", b"[", b","))
    if num_elements > MAX_ELEMENTS:
        raise ValueError(f"it has {num_elements:,} elements, and {MAX_ELEMENTS:,} are read")
    text = raw.decode("utf-8-sig")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except RecursionError as error:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels") from error
    _require_shallow(value)
    if re.search(r"\\u[dD][89a-fA-F]", text):
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def json_text(value: Any) -> str:
    """Return `value` as indented JSON with a line break at its end; NaN and Infinity become null.

    Control characters above ASCII are escaped like those below, so that none reaches a terminal.
    """
    try:
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError:  # it holds a number that JSON has no word for
        text = json.dumps(_without_nan(value), indent=2, ensure_ascii=False, allow_nan=False)
    return re.sub("[\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", text) + "\n"


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = counts.most_common(1)[0][0]
        raise ValueError(f"the key {twice[:80]!r} stands twice in one object")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:40]} is out of range")
    return number


def _require_shallow(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for container in level
            if isinstance(container, dict | list)
            for item in (container.values() if isinstance(container, dict) else container)
            if isinstance(item, dict | list)
        ]
        if not level:
            return
    raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
