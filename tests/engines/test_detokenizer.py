"""Streaming text: whole characters, the same text as decoding at once, and clean stops."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tiny_models import VOCAB_SIZE, tiny_tokenizer
from transformers import AutoTokenizer

from veche.engines.detokenizer import Detokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    tiny_tokenizer(path)
    return AutoTokenizer.from_pretrained(path)


def decoder(tokenizer):
    return lambda ids: tokenizer.decode(ids, skip_special_tokens=True)


def pieces_of(detokenizer, ids):
    pieces = []
    for token in ids:
        pieces.append(detokenizer.push(token))
        if detokenizer.is_stopped:
            return pieces
    return [*pieces, detokenizer.finish()]


@settings(deadline=None, max_examples=60)
@given(text=st.text(max_size=30))
def test_pieces_join_to_the_text_and_no_piece_holds_half_a_character(tokenizer, text):
    ids = tokenizer(text, add_special_tokens=False).input_ids
    pieces = pieces_of(Detokenizer(decoder(tokenizer)), ids)
    assert "".join(pieces) == decoder(tokenizer)(ids)
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


@settings(deadline=None, max_examples=60)
@given(ids=st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=40))
def test_any_tokens_stream_to_what_they_decode_to_at_once(tokenizer, ids):
    detokenizer = Detokenizer(decoder(tokenizer))
    pieces = pieces_of(detokenizer, ids)
    assert "".join(pieces) == detokenizer.text == decoder(tokenizer)(ids)


def test_cyrillic_comes_letter_by_letter_not_byte_by_byte(tokenizer):
    ids = tokenizer("вече", add_special_tokens=False).input_ids
    assert len(ids) == 8
    pieces = pieces_of(Detokenizer(decoder(tokenizer)), ids)
    assert [piece for piece in pieces if piece] == ["в", "е", "ч", "е"]


@settings(deadline=None, max_examples=100)
@given(text=st.text("abc\n", max_size=20), stop=st.lists(st.text("abc\n", min_size=1), max_size=2))
def test_the_text_ends_where_the_first_stop_text_begins(tokenizer, text, stop):
    ids = tokenizer(text, add_special_tokens=False).input_ids
    detokenizer = Detokenizer(decoder(tokenizer), stop)
    pieces = pieces_of(detokenizer, ids)
    # Slow reference: read byte by byte until the first moment at which a stop text is complete.
    expected, stopped = text, False
    for end in range(len(text) + 1):
        starts = [text[:end].find(item) for item in stop if item in text[:end]]
        if starts:
            expected, stopped = text[: min(starts)], True
            break
    assert detokenizer.is_stopped == stopped
    assert "".join(pieces) == detokenizer.text
    if all(len(token) == 1 for token in map(tokenizer.decode, ids)):
        assert detokenizer.text == expected
