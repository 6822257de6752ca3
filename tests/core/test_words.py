"""Units, languages, extras, errors, home: what every part of veche says in the same words."""

import inspect
import re
from importlib.metadata import metadata, requires
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veche.core import errors, extras
from veche.core.errors import MissingExtraError, VecheError
from veche.core.extras import require_extra
from veche.core.language import LANGUAGES, language_from_environment, spoken
from veche.core.paths import home
from veche.core.progress import Silent
from veche.core.units import format_bytes, format_count

PREFIXES = {"B": 0, "KiB": 1, "MiB": 2, "GiB": 3, "TiB": 4}
POWERS = {"": 0, "K": 1, "M": 2, "B": 3, "T": 4}


class TestUnits:
    @pytest.mark.parametrize(
        ("value", "text"),
        [(0, "0 B"), (1023, "1023 B"), (1024, "1.00 KiB"), (61_064_245_248, "56.87 GiB"),
         (1 << 50, "1024.00 TiB"), (-2048, "-2.00 KiB")],
    )  # fmt: skip
    def test_bytes_are_binary(self, value, text):
        assert format_bytes(value) == text

    @pytest.mark.parametrize(
        ("value", "text"),
        [(0, "0"), (999, "999"), (1000, "1.00 K"), (30_532_122_624, "30.53 B"),
         (5e15, "5000.00 T")],
    )  # fmt: skip
    def test_counts_are_decimal(self, value, text):
        assert format_count(value) == text

    @given(value=st.integers(0, 2**60))
    def test_what_is_read_back_is_the_number_up_to_its_rounding(self, value):
        for text, base, powers in (
            (format_bytes(value), 1024, PREFIXES),
            (format_count(value), 1000, POWERS),
        ):
            number, _, unit = text.partition(" ")
            scale = base ** powers[unit]
            assert abs(float(number) * scale - value) <= 0.00501 * scale * (scale > 1)


class TestLanguage:
    @pytest.mark.parametrize(
        ("variables", "language"),
        [
            ({"LC_ALL": "ru_RU.UTF-8", "LANG": "en_US.UTF-8"}, "ru"),
            ({"LC_ALL": "en_US.UTF-8", "LANG": "ru_RU.UTF-8"}, "en"),
            ({"LC_MESSAGES": "ru_UA.UTF-8", "LANG": "en_US.UTF-8"}, "ru"),
            ({"LANG": "RU"}, "ru"),
            ({"LC_ALL": "", "LANG": "ru_RU.KOI8-R"}, "ru"),
            ({"LANG": "C"}, "en"),
            ({"LANG": "uk_UA.UTF-8"}, "en"),
        ],
    )
    def test_the_first_variable_that_is_set_decides(self, monkeypatch, variables, language):
        for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        assert language_from_environment() == language

    def test_without_any_variable_there_is_a_language(self, monkeypatch):
        for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
            monkeypatch.delenv(name, raising=False)
        assert language_from_environment() in LANGUAGES

    def test_a_phrase_is_filled_in_its_language(self):
        table = {"sum": {"en": "{a} and {b:.1f}", "ru": "{b:.1f} и {a}"}}
        assert spoken(table, "sum", "en", a="x", b=1) == "x and 1.0"
        assert spoken(table, "sum", "ru", a="x", b=1) == "1.0 и x"


class TestExtras:
    @pytest.mark.parametrize("extra", sorted(extras._NEEDED))
    def test_an_installed_extra_is_accepted(self, extra):
        pytest.importorskip("gguf")
        require_extra(extra)

    def test_a_missing_package_names_the_line_that_installs_it(self, monkeypatch):
        monkeypatch.setitem(extras._NEEDED, "model", ("json", "no_such_package"))
        with pytest.raises(MissingExtraError, match="'no_such_package'") as caught:
            require_extra("model")
        assert caught.value.hint == "pip install 'veche[model]'"
        assert caught.value.exit_code == 2

    @pytest.mark.parametrize("extra", sorted(extras._NEEDED))
    def test_an_extra_really_brings_the_packages_that_are_asked_for(self, extra):
        assert set(extras._NEEDED[extra]) <= _brought_by(extra)


def _brought_by(extra):
    """The packages of an extra, and of veche's extras that it names."""
    found = set()
    for line in requires("veche") or ():
        if f"extra == '{extra}'" not in line.replace('"', "'"):
            continue
        name = re.match(r"[\w.-]+", line).group()
        if name == "veche":
            inner = re.search(r"\[([^]]*)]", line).group(1)
            found |= {package for each in inner.split(",") for package in _brought_by(each.strip())}
        found.add(name.lower())
    return found


ERRORS = [item for _, item in inspect.getmembers(errors, inspect.isclass)]


class TestErrors:
    def test_the_drawing_shows_every_error_at_its_place(self):
        drawn = re.findall(r"^([│├└─ ]*)(\w+Error)\b", errors.__doc__, re.MULTILINE)
        assert {name for _, name in drawn} == {item.__name__ for item in ERRORS}
        parents = [VecheError]
        for branch, name in drawn[1:]:
            error, depth = getattr(errors, name), len(branch) // 4
            parents = [*parents[:depth], error]
            assert error.__base__ is parents[depth - 1], name

    def test_the_exit_codes_are_those_of_the_drawing(self):
        for branch in re.finditer(r"(\w+Error) +exit (\d+)", errors.__doc__):
            assert getattr(errors, branch.group(1)).exit_code == int(branch.group(2))

    def test_an_error_says_what_and_what_next(self):
        error = VecheError("what", hint="next")
        assert (str(error), error.message, error.hint) == ("what", "what", "next")


class TestHome:
    def test_it_is_where_the_user_says(self, monkeypatch, tmp_path):
        monkeypatch.setenv("VECHE_HOME", str(tmp_path))
        assert home() == tmp_path
        monkeypatch.setenv("VECHE_HOME", "~/v")
        assert home() == Path.home() / "v"

    @pytest.mark.parametrize("value", [None, ""])
    def test_otherwise_it_is_the_platforms(self, monkeypatch, value):
        monkeypatch.delenv("VECHE_HOME")
        if value is not None:
            monkeypatch.setenv("VECHE_HOME", value)
        assert home().is_absolute()
        assert home().name == "veche"


def test_progress_that_nobody_watches_does_nothing(capsys):
    progress = Silent()
    progress.say("x")
    with progress.task("y", 3) as advance:
        advance(3)
    assert capsys.readouterr() == ("", "")


def test_the_package_is_described():
    assert metadata("veche")["License-Expression"] == "Apache-2.0"
