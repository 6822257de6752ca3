"""Numbers as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veche.core.errors import InputError
from veche.core.units import format_bytes, format_count, grouped, parse_count


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


@pytest.mark.parametrize("number", [0, 1, 999, 1000, 1023, 1024, 30_532_122_624, 10**15])
def test_russian_numbers_say_the_same(number):
    units = {"Б": "B", "КиБ": "KiB", "МиБ": "MiB", "ГиБ": "GiB", "ТиБ": "TiB"}
    words = {"тыс.": "K", "млн": "M", "млрд": "B", "трлн": "T"}
    for show, names in ((format_bytes, units), (format_count, words)):
        value, _, unit = show(number, "ru").partition(" ")
        assert f"{value.replace(',', '.')} {names.get(unit, unit)}".strip() == show(number)
    assert int("".join(grouped(number, "ru").split())) == number
    assert int(grouped(number).replace(",", "")) == number
