"""What `veche dial` prints for people."""

from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from veche.cli.interval_cell import interval_cell
from veche.cli.terminal import stdout
from veche.core.language import Language
from veche.experts.bootstrap import Interval
from veche.experts.dial.figures import Context
from veche.experts.dial.phrases import phrase
from veche.experts.dial.report import DialReport, Row


def show_dial(report: DialReport, picture: Path, language: Language) -> None:
    """Print a table for each context, then what it says."""
    for context, tokens in report.context_tokens.items():
        heading = phrase(
            context,
            language,
            predictions=report.num_predictions,
            windows=report.num_windows,
            tokens=tokens,
        )
        stdout.print(heading)
        stdout.print(_table(report, context, language))
    base = f"{report.base:g}"
    legend = phrase("legend", language, base=base, windows=report.num_windows)
    stdout.print(legend, soft_wrap=True)
    if _has_speed(report):
        stdout.print(phrase("legend_speed", language, rounds=report.rounds), soft_wrap=True)
    if report.is_carved and report.dial in ("top_k", "adaptive"):
        stdout.print(phrase("carved", language), soft_wrap=True)
    if report.dial == "adaptive":
        for context in report.context_tokens:
            stdout.print(verdict(report, context, language), soft_wrap=True)
    stdout.print(phrase("picture", language, path=picture), soft_wrap=True)


def verdict(report: DialReport, context: Context, language: Language) -> str:
    """Say plainly whether adaptive beats fixed top-k at an equal mean."""
    over = [row.contexts[context].over_fixed for row in report.rows]
    known = [interval for interval in over if interval is not None]
    wins = sum(interval.is_below_zero for interval in known)
    losses = sum(interval.is_above_zero for interval in known)
    counts = {
        "adaptive_wins": wins,
        "adaptive_loses": losses,
        "adaptive_ties": len(known) - wins - losses,
    }
    said = [
        phrase(key, language, count=count, total=len(known))
        for key, count in counts.items()
        if count
    ]
    return f"{phrase(f'curve_{context}', language)}: {' '.join(said)}"


def _table(report: DialReport, context: Context, language: Language) -> Table:
    keys = ["nll", "nll_delta"]
    keys += ["experts", "over_fixed"] if report.dial == "adaptive" else ["kl", "top1"]
    keys += ["ece"] if report.dial == "temperature" else []
    keys += ["speed", "speed_ratio"] if _has_speed(report) else []
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=0, pad_edge=False)
    table.add_column(report.dial)
    for key in keys:
        table.add_column(phrase(f"col_{key}", language), justify="right")
    for row in report.rows:
        star = " *" if row.is_base else ""
        table.add_row(f"{row.value:g}{star}", *(_cell(key, row, context) for key in keys))
    return table


def _has_speed(report: DialReport) -> bool:
    return any(row.speed_ratio for row in report.rows)


def _cell(key: str, row: Row, context: Context) -> str:
    """Return one figure; what the base is compared with itself in says nothing."""
    each = row.contexts[context]
    if key == "nll":
        return f"{each.nll.mean:.3f}"
    if key == "ece":
        return f"{each.ece:.3f}"
    if key == "speed":
        return "–" if row.tokens_per_s is None else f"{row.tokens_per_s:.1f}"
    intervals: dict[str, tuple[Interval | None, str]] = {
        "nll_delta": (each.nll_delta, "+.3f"),
        "kl": (each.kl, ".3f"),
        "top1": (each.top1_agreement, ".1%"),
        "experts": (each.experts, ".2f"),
        "over_fixed": (each.over_fixed, "+.3f"),
        "speed_ratio": (row.speed_ratio, ".2f"),
    }
    interval, form = intervals[key]
    return interval_cell(None if row.is_base else interval, form)
