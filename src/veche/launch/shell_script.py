"""Emit a shell script that starts an engine."""

import shlex
from collections.abc import Sequence

from veche.core.language import Language
from veche.launch.profile import Profile
from veche.launch.serving_file import groups_of, heading, with_absolute_model

PROGRAM_WORDS = {"python": 3}
"""Leading words that are the program: `python -m module`; elsewhere the first word."""


def shell_script(profile: Profile, language: Language = "en", *, before: Sequence[str] = ()) -> str:
    """Return a bash script; what it is called with is added to the engine's arguments.

    Args:
        profile: what to start.
        language: of the comments.
        before: lines to run first.
    """
    why = dict(profile.comments)
    lines = ["#!/usr/bin/env bash", *comment_lines(heading(profile, language)), "set -euo pipefail"]
    for name, value in profile.env:
        lines += comment_lines([why[name]] if name in why else [])
        lines.append(f"export {name}={shlex.quote(value)}")
    lines += [*before, "", "arguments=("]
    command = with_absolute_model(profile)
    size = PROGRAM_WORDS.get(command[0], 1)
    for group in groups_of(command[size:], profile.comments):
        lines += [f"  {line}" for line in comment_lines([group.comment] if group.comment else [])]
        lines.append("  " + shlex.join(group.words))
    program = shlex.join(command[:size])
    return "\n".join([*lines, ")", f'exec {program} "${{arguments[@]}}" "$@"', ""])


def comment_lines(texts: Sequence[str]) -> list[str]:
    """Return comments; a line break inside one cannot end it."""
    return [f"# {line}" for text in texts for line in text.splitlines()]
