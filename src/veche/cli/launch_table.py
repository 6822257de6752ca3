"""Launch profiles as a table that fits 80 columns, and the recommended command."""

import shlex
from typing import TYPE_CHECKING

from veche.cli.phrases import phrase
from veche.cli.terminal import stdout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from veche.core.language import Language
    from veche.launch.alternatives import Alternative
    from veche.launch.profile import Profile

_NUMBERS = ("weights", "kv_left", "context", "sessions", "first_token", "speed")


def show_profiles(
    name: str, profiles: "Sequence[Profile]", language: "Language", *, share: float | None = None
) -> None:
    """Print the profiles as a table, and the recommended one with its reason and command.

    Args:
        name: what was typed.
        profiles: line by line.
        language: of headings and the legend.
        share: of the card, where the user chose it.
    """
    first = profiles[0]
    engines = list(dict.fromkeys(profile.engine for profile in profiles))
    title = f"{name} · {first.num_gpus} × {first.gpu} · {', '.join(engines)}"
    stdout.print(title, style="bold", markup=False)
    _print_table(profiles, language, has_many_engines=len(engines) > 1)
    stdout.print(_legend(profiles, share, language), style="dim", markup=False)
    for profile in profiles:
        if profile.recommended:
            stdout.print(f"\n★ {profile.reason}", markup=False)
            stdout.print(_command_line(profile), markup=False, soft_wrap=True)
            _show_notes(profile.notes)


def _legend(profiles: "Sequence[Profile]", share: float | None, language: "Language") -> str:
    """Explain the columns: the longest context is that of the largest share of the card."""
    from veche.launch.support import utilizations

    shares = {
        each.engine: share or utilizations(each.engine, each.case.engine_version)[-1]
        for each in profiles
    }
    told = [f"{engine} {value:g}" for engine, value in shares.items() if value < 1]
    largest = phrase("launch_share", language, shares=", ".join(told)) if told else ""
    return phrase("launch_legend", language, largest=largest)


def show_refusal(profiles: "Sequence[Profile]", language: "Language") -> None:
    """Say why the profile that comes nearest does not fit."""
    nearest = max(profiles, key=lambda profile: profile.max_context_tokens)
    types = f"{nearest.engine} {nearest.quantization}/{nearest.kv_dtype}"
    stdout.print(f"\n✗ {types}: {nearest.reason}", markup=False)


def show_alternatives(
    nearest: "Sequence[Alternative]", notes: "Sequence[str]", language: "Language"
) -> None:
    """Print what comes nearest to a wish that does not fit, what it costs, and what to know."""
    from veche.launch.command import checkpoint_notes

    if not nearest:
        stdout.print("\n" + phrase("nothing_nearest", language), style="bold", markup=False)
        return
    stdout.print("\n" + phrase("nearest", language), style="bold", markup=False)
    for place, each in enumerate(nearest, start=1):
        stdout.print(f"{place}. {each.reason}", markup=False)
        stdout.print("   " + _command_line(each.profile), markup=False, soft_wrap=True)
        _show_notes(checkpoint_notes(each.profile.case, language), indent="   ")
    _show_notes(notes)


def _show_notes(notes: "Sequence[str]", indent: str = "") -> None:
    for note in notes:
        stdout.print(f"{indent}· {note}", style="dim", markup=False)


def _print_table(
    profiles: "Sequence[Profile]", language: "Language", *, has_many_engines: bool
) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    gap = 0 if has_many_engines else 1
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, gap, 0, 0), pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column(phrase("col_types", language), no_wrap=True)
    for key in _NUMBERS:
        table.add_column(phrase(f"col_{key}", language), justify="right", no_wrap=True)
    for profile in profiles:
        mark = ("★" if profile.recommended else "✓") if profile.fits else "✗"
        types = f"{profile.quantization}/{profile.kv_dtype}"
        table.add_row(
            Text(mark, style="green" if profile.fits else "red"),
            f"{profile.engine} {types}" if has_many_engines else types,
            *_numbers(profile),
            style="bold" if profile.recommended else "",
        )
    stdout.print(table)


def _numbers(profile: "Profile") -> tuple[str, ...]:
    from veche.launch.gpus import GIB

    low, high = profile.kv_available_bytes
    slow, fast = profile.decode_tokens_per_s
    soon, late = profile.time_to_first_token_s
    runs = profile.max_context_tokens > 0
    return (
        f"{profile.weight_bytes / GIB:.2f}",
        f"{low / GIB:.1f}–{high / GIB:.1f}",
        f"{profile.max_context_tokens:,}",
        f"{profile.max_sessions:,}",
        f"{_seconds(soon)}–{_seconds(late)}" if runs else "–",
        f"{slow:.0f}–{fast:.0f}" if runs else "–",
    )


def _seconds(value: float) -> str:
    """Return two digits that mean something: 0.07, 0.9, 12."""
    return f"{value:.2f}" if value < 0.1 else f"{value:.1f}" if value < 10 else f"{value:.0f}"


def _command_line(profile: "Profile") -> str:
    environment = "".join(f"{name}={shlex.quote(value)} " for name, value in profile.env)
    return environment + shlex.join(profile.command)
