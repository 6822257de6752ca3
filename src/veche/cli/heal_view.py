"""What `veche heal` prints for people."""

from rich.box import SIMPLE_HEAD
from rich.table import Table

from veche.cli.interval_cell import interval_cell
from veche.cli.terminal import stdout
from veche.core.language import Language
from veche.core.units import format_bytes
from veche.experts.bootstrap import Interval
from veche.roles.healing.measure import Recovery
from veche.roles.healing.phrases import phrase
from veche.roles.healing.report import HealPlan, HealReport
from veche.roles.healing.settings import DEFAULT_MINUTES


def show_plan(plan: HealPlan, language: Language) -> None:
    """Print what would be done, and what it needs."""
    lesson, settings = plan.lesson, plan.settings
    dials = "".join(f", {name} {value:g}" for name, value in lesson.dials.items())
    lines = [
        phrase("towards", language, student=lesson.student, dials=dials, teacher=lesson.teacher),
        phrase(
            "trained",
            language,
            parts=", ".join(
                phrase("part", language, part=phrase(part, language), count=f"{count:,}")
                for part, count in plan.parts.items()
            ),
        ),
    ]
    if plan.is_fitted:
        lines.append(phrase("fitted_first", language, tokens=f"{settings.fit_tokens:,}"))
    if settings.steps is not None:
        lines.append(
            phrase("amount_steps", language, steps=settings.steps, optimizer=settings.optimizer)
        )
    else:
        minutes = DEFAULT_MINUTES if settings.minutes is None else settings.minutes
        lines.append(
            phrase("amount_minutes", language, minutes=minutes, optimizer=settings.optimizer)
        )
    source = phrase("own_text", language) if plan.text == "own" else plan.text
    lines.append(
        phrase(
            "text",
            language,
            train=f"{plan.train_tokens:,}",
            heldout=f"{plan.heldout_tokens:,}",
            source=source,
        )
    )
    lines.append(_memory(plan, language))
    for line in lines:
        stdout.print(line, soft_wrap=True)


def show_healing(report: HealReport, picture: str | None, language: Language) -> None:
    """Print what was given back."""
    minutes = sum(report.seconds.values()) / 60
    stdout.print(
        phrase("done", language, target=report.target, steps=report.num_steps, minutes=minutes),
        soft_wrap=True,
    )
    stdout.print(_table(report, language))
    recovery = report.recovery
    legend = phrase(
        "legend", language, nll=recovery.source_nll.mean, windows=report.heldout_windows
    )
    stdout.print(legend, soft_wrap=True)
    if not recovery.lost.is_above_zero:
        stdout.print(phrase("not_lost", language), soft_wrap=True)
    if verdict := _verdict(recovery):
        stdout.print(phrase(verdict, language), soft_wrap=True)
    for name, states in report.woke.items():
        before, after = states["before"], states["after"]
        told = phrase(
            "woke",
            language,
            name=name,
            before=f"{before['awake']:,}",
            after=f"{after['awake']:,}",
            new=f"{after['new']:,}",
        )
        stdout.print(told, soft_wrap=True)
    if picture is not None:
        stdout.print(phrase("picture", language, path=picture), soft_wrap=True)


def _verdict(recovery: Recovery) -> str | None:
    """Return the phrase for a healing that did not help."""
    gains = (recovery.nll_gain, recovery.kl_gain)
    if any(gain.is_below_zero for gain in gains):
        return "worse"
    return None if any(gain.is_above_zero for gain in gains) else "no_gain"


def _memory(plan: HealPlan, language: Language) -> str:
    memory, free = plan.memory, plan.free_bytes
    return phrase(
        "memory",
        language,
        peak=format_bytes(memory.peak),
        weights=format_bytes(memory.weights),
        states=format_bytes(memory.states),
        activations=format_bytes(memory.activations),
        fitting=format_bytes(memory.fitting),
        free=phrase("unknown", language) if free is None else format_bytes(free),
        disk=format_bytes(memory.disk),
    )


def _table(report: HealReport, language: Language) -> Table:
    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=0, pad_edge=False)
    table.add_column(phrase("col_figure", language))
    columns = ["col_before", *(["col_fitted"] if report.fitted else []), "col_after"]
    for name in columns:
        table.add_column(phrase(name, language), justify="right")
    stages: list[Recovery] = [*([report.fitted] if report.fitted else []), report.recovery]
    first = stages[0]
    rows: list[tuple[str, str, list[Interval | None]]] = [
        ("row_delta", "+.3f", [first.lost, *(stage.left for stage in stages)]),
        ("row_kl", ".3f", [first.kl[0], *(stage.kl[1] for stage in stages)]),
        ("row_top1", ".1%", [first.top1[0], *(stage.top1[1] for stage in stages)]),
        ("row_recovered", ".1%", [None, *(stage.recovered for stage in stages)]),
    ]
    for name, form, intervals in rows:
        table.add_row(phrase(name, language), *(interval_cell(each, form) for each in intervals))
    return table
