"""Read a text file line by line, in bounded memory, with errors that name the line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from veche.core.errors import InputError
from veche.core.files import open_regular
from veche.core.json_text import parse_json

MAX_LINE_BYTES = 16 << 20
"""No dialogue is longer; a file without line breaks would else be read whole."""
_BOM = b"\xef\xbb\xbf"


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the number and text of each line, without its end; a byte order mark is dropped.

    Raises:
        InputError: the file is missing, unreadable or empty, or a line is too long or not UTF-8.
    """
    is_blank = True
    for number, raw in enumerate(_raw_lines(path), start=1):
        raw = raw.removeprefix(_BOM) if number == 1 else raw
        try:
            text = raw.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{path}, line {number} is not UTF-8 text: {error.reason} at byte {error.start}",
                hint=f"convert it first: iconv -f CP1251 -t UTF-8 {path} (or whatever it is in)",
            ) from error
        is_blank = is_blank and not text.strip()
        yield number, text
    if is_blank:
        raise InputError(f"{path} is empty", hint="write at least one example into it")


def json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where each line of a JSONL file stands ("FILE, line N"), and its object.

    Raises:
        InputError: as `numbered_lines`, or a line is no JSON object.
    """
    for number, text in numbered_lines(path):
        if text.strip():
            where = f"{path}, line {number}"
            yield where, json_object(where, text)


def json_object(where: str, text: str) -> dict[str, Any]:
    """Return the JSON object that a line holds.

    Raises:
        InputError: it holds something else, or a number that JSON has no word for.
    """
    try:
        value = parse_json(text.encode())
    except ValueError as error:
        raise InputError(
            f"{where} is no JSON: {error}",
            hint="each line of such a file is one whole JSON object, without line breaks in it",
        ) from error
    if not isinstance(value, dict):
        raise InputError(f"{where} is a JSON {type(value).__name__}, not an object")
    return value


def _raw_lines(path: Path) -> Iterator[bytes]:
    try:
        with open_regular(path) as file:
            number = 0
            while raw := file.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(raw) > MAX_LINE_BYTES:
                    raise InputError(
                        f"{path}, line {number} is longer than {MAX_LINE_BYTES >> 20} MiB, which "
                        "no example is",
                        hint="write an example a line, with line breaks between them",
                    )
                yield raw
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist", hint="check the path") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", hint="check it") from error
