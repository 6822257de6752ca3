"""Texts of others reach a terminal as texts; results reach a stdout that takes them, or exit 1."""

import io
import json
import os
import subprocess
import sys

import pytest
from rich.table import Table
from rich.text import Text

from veche.cli.terminal import PlainConsole, print_error, print_json, printable
from veche.core.errors import InputError

_RUN = "from veche.cli.main import run; run()"
_EVIL = "\x1b[2J\x1b]0;owned\x07[/red][bold]\x9b31m\u202e\r:smile:"


def shown(renderable, **options):
    console = PlainConsole()
    console.file = io.StringIO()
    console.print(renderable, **options)
    return console.file.getvalue()


def test_a_text_is_shown_as_it_is_whatever_is_in_it():
    table = Table(title=None)
    table.add_column(_EVIL)
    table.add_row(Text(_EVIL))
    for renderable in (_EVIL, Text(_EVIL), table):
        out = shown(renderable, width=200)
        assert not set(out) & set("\x1b\x07\x9b\u202e\r")
        assert "[/red][bold]" in out
        assert "\\x1b[2J" in out
        assert (":smile:" in out) != isinstance(renderable, Table)  # its columns are too narrow


def test_colours_of_our_own_still_work():
    console = PlainConsole()
    console._color_system, console._force_terminal = None, True
    console.file = io.StringIO()
    styled = PlainConsole.__mro__[1](force_terminal=True, color_system="standard")
    console._color_system = styled._color_system
    console.print("a\x1bb", style="red")
    assert console.file.getvalue() == "\x1b[31ma\\x1bb\x1b[0m\n"


def test_line_breaks_and_tabs_are_no_harm():
    assert printable("a\n\tb") == "a\n\tb"


def test_numbers_that_are_none_are_null(capsys):
    print_json({"a": [float("nan"), 1.5], "b": {"c": float("-inf")}, "d": (float("inf"),)})
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {
        "a": [None, 1.5], "b": {"c": None}, "d": [None],
    }  # fmt: skip


def test_an_error_with_such_a_name_is_harmless_both_ways(capsys):
    for as_json in (False, True):
        print_error(InputError(f"no {_EVIL}", hint=_EVIL), as_json=as_json)
        said = capsys.readouterr()
        assert not set(said.out + said.err) & set("\x1b\x07\x9b\r")


@pytest.mark.parametrize("form", [(), ("--json",), ("--markdown",), ("--html",)], ids=str)
def test_a_recipe_with_such_a_name(veche, tmp_path, form):
    recipe = tmp_path / "r.yaml"
    content = {"name": _EVIL, "base": "qwen3-30b-a3b", "fields": {"use_cache": False}}
    recipe.write_text(json.dumps(content))
    done = veche("plan", recipe, *form)
    assert not set(done.out + done.err) & set("\x1b\x07\x9b\r")


def test_a_card_with_such_a_name(veche, tmp_path, monkeypatch):
    monkeypatch.setenv("VECHE_HOME", str(tmp_path))
    card = {"visible_gib": 40, "bandwidth_gb_s": 500, "tflops": {"bf16": 50}}
    content = {"[/red]\x1b[2J": card | {"compute_capability": "8.6", "title": "[/red]"}}
    (tmp_path / "gpus.yaml").write_text(json.dumps(content))
    done = veche("gpus")
    assert done.code == 0
    assert "[/red]\\x1b[2J" in done.out
    assert veche("launch", "agi-fits", "--gpu", "[/red]\x1b[2J").code == 0


class TestStdout:
    """A standard output that is closed or full: exit 1 or 2, and a word on stderr."""

    def run(self, words, shell, **environment):
        program = f'"{sys.executable}" -c "{_RUN}" {words} {shell}'
        return subprocess.run(
            ["/bin/sh", "-c", program], capture_output=True, text=True, check=False,
            env=os.environ | environment,
        )  # fmt: skip

    @pytest.mark.parametrize("words", ["launch agi", "plan agi --json", "launch nosuch", "--help"])
    def test_closed(self, words):
        done = self.run(words, ">&-")
        assert done.returncode == 2
        assert "the standard output is closed" in done.stderr
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize(("words", "code"), [("plan agi --json", 0), ("launch nosuch", 2)])
    def test_a_closed_stderr_changes_nothing_else(self, words, code):
        done = self.run(words, "2>&-")
        assert done.returncode == code
        assert ("{" in done.stdout) == (code == 0)

    def test_both_closed(self):
        assert self.run("plan agi", ">&- 2>&-").returncode == 2

    @pytest.mark.parametrize("unbuffered", ["", "1"])
    @pytest.mark.parametrize(
        "words", ["launch nosuch --json", "launch nosuch", "frobnicate --json"]
    )
    def test_full_while_an_error_is_told(self, words, unbuffered):
        done = self.run(words, ">/dev/full", PYTHONUNBUFFERED=unbuffered)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        assert bool(done.stderr) or not unbuffered

    @pytest.mark.parametrize("words", ["launch nosuch --json", "launch nosuch", "plan agi"])
    def test_both_full(self, words):
        done = self.run(words, ">/dev/full 2>/dev/full", PYTHONUNBUFFERED="1")
        assert done.returncode in (1, 2)
