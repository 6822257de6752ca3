"""JSON to the letter: what Python's parser lets pass is refused, within bounds."""

import json
import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veche.core import json_text as module
from veche.core.json_text import MAX_DEPTH, MAX_ELEMENTS, json_text, parse_json

ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def refuse_constant(name):
    raise AssertionError(name)


def without_nan(value):
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return {k: without_nan(v) for k, v in value.items()} if isinstance(value, dict) else value


@given(ANY)
def test_whatever_is_written_is_json_and_is_read_back(value):
    text = json_text(value)
    assert json.loads(text, parse_constant=refuse_constant) == without_nan(value)
    assert parse_json(text.encode()) == without_nan(value)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1, "b": 2, "a": 1}', "'a' stands twice"),
        ('{"o": [{"deep": 1, "deep": 2}]}', "'deep' stands twice"),
        ('{"\\u0061": 1, "a": 2}', "'a' stands twice"),
        ("[NaN]", "NaN is no JSON number"),
        ("[-Infinity]", "-Infinity is no JSON number"),
        ("[1e999]", "1e999 is out of range"),
        ('["\\ud800"]', "surrogates not allowed"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), "deeper"),
        ("[" * 100_000, "deeper"),
        ('{"a":' * 500 + "1" + "}" * 500, "deeper"),
        ("9" * 5000, "digits"),
        ("[1] [2]", "Extra data"),
        ("", "Expecting value"),
    ],
)
def test_what_python_would_take_is_refused(text, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        parse_json(text.encode())


def test_the_deepest_that_is_read(monkeypatch):
    text = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert json.dumps(parse_json(text.encode())) == text


def test_too_many_elements_are_refused_before_they_are_made(monkeypatch):
    monkeypatch.setattr(module.json, "loads", lambda *a, **k: pytest.fail("was parsed"))
    with pytest.raises(ValueError, match="elements"):
        parse_json(b"[" + b"1," * (MAX_ELEMENTS + 1) + b"1]")


@pytest.mark.parametrize("raw", [b"\xff", b"\xed\xa0\x80", "{}".encode("utf-16")])
def test_what_is_not_utf8_is_refused(raw):
    with pytest.raises(ValueError, match="utf-8"):
        parse_json(raw)


def test_a_byte_order_mark_and_pairs_of_surrogates_are_read():
    assert parse_json(b'\xef\xbb\xbf["\\ud83d\\ude00"]') == ["\N{GRINNING FACE}"]
