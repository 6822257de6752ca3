"""What the documentation promises: links that lead somewhere, commands that exist."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
import typer

from veche.cli.main import app

ROOT = Path(__file__).parents[2]
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")})
COMMAND = typer.main.get_command(app)
_USAGE_ERROR = typer.BadParameter.__mro__[1]

_FENCE = re.compile(r"^ *(`{3,}|~{3,})([\w-]*)[^\n]*\n(.*?)^ *\1 *$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
_HTML_LINK = re.compile(r"(?:href|src)=\"([^\"]+)\"")
_EXTERNAL = re.compile(r"^[a-z][a-z0-9+.-]*:|^//", re.IGNORECASE)
_SHELLS = {"console", "sh", "bash", "shell"}
_SEPARATORS = {"|", "||", "&", "&&", ";", "(", ")"}
_ASSIGNMENT = re.compile(r"^[A-Za-z_]\w*=")

every_page = pytest.mark.parametrize(
    "page", PAGES, ids=[page.relative_to(ROOT).as_posix() for page in PAGES]
)


def links_of(text: str) -> list[str]:
    """Return the targets of a page's links; code is not looked at."""
    prose = re.sub(r"`[^`\n]*`", "", _FENCE.sub("", text))
    found = [first or second for first, second in _LINK.findall(prose)]
    return found + _HTML_LINK.findall(prose)


def anchors_of(text: str) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    anchors: set[str] = set(re.findall(r"(?:id|name)=\"([^\"]+)\"", text))
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", _FENCE.sub("", text), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        number = 0
        while (name := slug if number == 0 else f"{slug}-{number}") in anchors:
            number += 1
        anchors.add(name)
    return anchors


def veche_calls(text: str) -> Iterator[list[str]]:
    """Yield the arguments of every call of veche in a page's shell blocks."""
    for _, language, block in _FENCE.findall(text):
        if language in _SHELLS:
            for line in _shell_lines(block, has_prompts=language == "console"):
                yield from _calls_in(line)


def _shell_lines(block: str, *, has_prompts: bool) -> Iterator[str]:
    """Yield whole commands: continued lines and quotes that span lines are joined."""
    kept = ""
    for line in block.splitlines():
        if has_prompts and not kept:
            if not line.lstrip().startswith("$ "):
                continue
            line = line.lstrip()[2:]
        kept += line
        if kept.endswith("\\"):
            kept = kept[:-1] + " "
            continue
        try:
            shlex.split(kept, comments=True)
        except ValueError:
            kept += "\n"
            continue
        yield kept
        kept = ""
    assert not kept, f"a quotation is not closed: {kept!r}"


def _calls_in(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    command: list[str] = []
    for token in [*lexer, ";"]:
        if token not in _SEPARATORS:
            command.append(token)
            continue
        while command and (_ASSIGNMENT.match(command[0]) or command[0] in ("time", "$")):
            command.pop(0)
        if command and Path(command[0]).name == "veche":
            yield _without_redirections(command[1:])
        command = []


def _without_redirections(arguments: list[str]) -> list[str]:
    for index, token in enumerate(arguments):
        if set(token) <= set("<>&"):
            end = index - 1 if index and arguments[index - 1] in ("1", "2") else index
            return arguments[:end] + _without_redirections(arguments[index + 2 :])
    return arguments


def parse(arguments: list[str]) -> None:
    """Let the command line parse the arguments as far as it can without running anything."""
    command, name = COMMAND, "veche"
    try:
        while hasattr(command, "commands"):
            if not arguments or arguments[0].startswith("-"):
                command.make_context(name, list(arguments), ignore_unknown_options=False)
                return
            if arguments[0] not in command.commands:
                raise AssertionError(f"{name} has no command {arguments[0]!r}")
            name, command, arguments = arguments[0], command.commands[arguments[0]], arguments[1:]
        command.make_context(name, list(arguments))
    except typer.Exit:
        return
    except _USAGE_ERROR as error:
        if type(error).__name__ != "NoArgsIsHelpError":
            raise AssertionError(f"{name} {shlex.join(arguments)}: {error}") from error


@every_page
def test_relative_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    broken = []
    for link in links_of(text):
        if _EXTERNAL.match(link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (ROOT / path.lstrip("/") if path.startswith("/") else page.parent / path).resolve()
        target = page if not path else target
        if not target.exists() or (
            anchor and anchor not in anchors_of(target.read_text(encoding="utf-8"))
        ):
            broken.append(link)
    assert broken == []


@every_page
def test_the_commands_that_it_shows_exist(page, capsys):
    for arguments in veche_calls(page.read_text(encoding="utf-8")):
        parse(arguments)


def missing_options(page: str) -> list[str]:
    """Return the commands and long options that a page with a section a command leaves out."""
    parts = re.split(r"^## ", page, flags=re.MULTILINE)[1:]
    sections = {part.split("\n", 1)[0]: part for part in parts}
    missing = []
    for name, command in COMMAND.commands.items():
        section = sections.get(name)
        if section is None:
            missing.append(name)
            continue
        for inner in getattr(command, "commands", {"": command}).values():
            known = {option for parameter in inner.params for option in parameter.opts}
            missing += [
                f"{name}: {option}"
                for option in sorted(known)
                if option.startswith("--")
                and option != "--help"
                and not re.search(re.escape(option) + r"(?![\w-])", section)
            ]
    return missing


def test_the_reference_names_every_command_and_option():
    page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    assert missing_options(page) == []


class TestTheChecksThemselves:
    def test_a_command_and_an_option_that_are_left_out_are_found(self):
        page = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
        assert missing_options(page.replace("## doctor", "## physician")) == ["doctor"]
        assert missing_options(page.replace("`--fit-top-k N`", "`--fit`")) == ["carve: --fit-top-k"]

    def test_calls_are_found_in_every_disguise(self):
        text = (
            "```sh\nVECHE_HOME=/x .venv/bin/veche plan agi --json | jq . > out # veche no\n"
            "veche ask m \\\n  'two\nlines' && veche doctor 2> log\n```\n"
            "```console\n$ veche demo\nveche said something\n```\n"
            "```python\nveche nonsense\n```\n"
        )
        assert list(veche_calls(text)) == [
            ["plan", "agi", "--json"],
            ["ask", "m", "two\nlines"],
            ["doctor"],
            ["demo"],
        ]

    @pytest.mark.parametrize(
        "line",
        [
            "plan agi --set num_experts_per_tok=8 --lang ru",
            "experts report run --out e.html",
            "--version",
            "build --help",
            "launch agi --gpus 2",
        ],
    )
    def test_a_real_call_parses(self, line, capsys):
        parse(shlex.split(line))

    @pytest.mark.parametrize(
        "line",
        [
            "frobnicate",
            "plan agi --colour",
            "plan",
            "build agi --source x",
            "experts shew run",
            "launch agi --gpus many",
            "--colour",
        ],
    )
    def test_an_imagined_call_does_not(self, line, capsys):
        with pytest.raises(AssertionError):
            parse(shlex.split(line))

    def test_links_and_anchors(self):
        text = (
            "# A `b`: c\n## Что это?\n## A b c\n[x](a.md#y) ![i](<p.png>) `[no](no.md)`\n"
            '```\n[no](no.md)\n# no\n```\n[ref]: other.md\n<a href="z.md">z</a>\n'
        )
        assert links_of(text) == ["a.md#y", "p.png", "other.md", "z.md"]
        assert anchors_of(text) == {"a-b-c", "что-это", "a-b-c-1"}
