"""Numbers as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veche.core.errors import InputError
from veche.core.units import parse_count


@given(st.integers(1, 10**9))
def test_a_count_is_read_as_it_is_printed(count):
    assert parse_count(str(count), "--x") == parse_count(f"{count:_}", "--x") == count
    assert parse_count(f"{count}k", "--x") == 1024 * count
    assert parse_count(f" {count}M ", "--x") == 1024 * 1024 * count


@pytest.mark.parametrize(
    "text", ["", "0", "0k", "-1", "1.5", "0.3k", "12q", "k", "1e3", "_1", "١", "9" * 400]
)
def test_what_is_no_count_is_an_error_with_the_flag(text):
    with pytest.raises(InputError, match="--x"):
        parse_count(text, "--x")
