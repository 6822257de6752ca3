"""`veche launch --parse-log` and `veche launch calibrations`: what engines said of themselves."""

from pathlib import Path
from typing import TYPE_CHECKING

from veche.cli.subject import model_in_log, subject
from veche.cli.terminal import print_json, stdout

if TYPE_CHECKING:
    from veche.core.language import Language
    from veche.launch.comparison import Comparison, Line


def compare_with_log(
    model: str | None,
    log: Path,
    gpu: str,
    quantization: str | None,
    kv_dtype: str | None,
    language: "Language",
    *,
    as_json: bool,
) -> None:
    """Print prediction against fact, line by line, and keep what the log teaches.

    Raises:
        InputError: it is no log, or its model is neither given nor known.
    """
    from veche.launch.calibrations import calibrations_file, learn, why_not
    from veche.launch.comparison import case_of, compare
    from veche.launch.gpus import find_gpu
    from veche.launch.log_facts import read_log

    facts = read_log(log)
    meant = subject(model, language) if model else model_in_log(facts.model, language)
    case = case_of(
        meant.spec, facts, find_gpu(gpu), quantization_name=quantization, kv_dtype_name=kv_dtype
    )
    comparison = compare(case, facts)
    reason = why_not(comparison)
    has_learned = learn(comparison)
    if as_json:
        print_json(
            {"log": str(log), "model": meant.name, "facts": facts.as_dict(),
             **comparison.as_dict(), "has_learned": has_learned,
             "why_not": reason,
             "file": str(calibrations_file())}
        )  # fmt: skip
    else:
        _show(meant.name, comparison, reason, language)


def _show(name: str, comparison: "Comparison", reason: str | None, language: "Language") -> None:
    from rich.table import Table
    from rich.text import Text

    from veche.cli.phrases import phrase
    from veche.launch.calibrations import calibrations_file

    case = comparison.case
    stdout.print(
        f"{name} · {case.engine} · {case.gpu.name} · {case.quantization} · KV {case.kv_dtype}",
        style="bold",
        markup=False,
    )
    table = Table(show_edge=False, pad_edge=False)
    for key in ("quantity", "predicted", "fact", "holds"):
        table.add_column(phrase(f"col_{key}", language))
    for line in comparison.lines:
        mark = Text("✓", style="green") if line.holds else Text(f"✗ {line.error:.1%}", style="red")
        table.add_row(line.quantity, _interval(line), _number(line.fact, line.unit), mark)
    stdout.print(table)
    told = phrase("log_learned", language, file=calibrations_file())
    if reason is not None:
        told = phrase("log_not_learned", language, why=phrase(reason, language))
    stdout.print(told, markup=False, soft_wrap=True)


def _interval(line: "Line") -> str:
    low, high = (_number(value, line.unit) for value in line.predicted)
    return low if low == high else f"{low} – {high}"


def _number(value: float, unit: str) -> str:
    from veche.core.units import format_bytes

    return format_bytes(round(value)) if unit == "bytes" else f"{value:,.0f} {unit}"


def show_calibrations(language: "Language", *, forget: bool, as_json: bool) -> None:
    """List what start-up logs have taught veche, or forget it."""
    from veche.cli.phrases import phrase
    from veche.core.units import format_bytes
    from veche.launch.calibrations import calibrations, calibrations_file
    from veche.launch.calibrations import forget as forget_everything

    num_forgotten = forget_everything() if forget else 0
    entries, file = calibrations(), calibrations_file()
    if as_json:
        print_json({"file": str(file), "entries": entries, "num_forgotten": num_forgotten})
        return
    if forget:
        told = phrase("forgotten", language, count=num_forgotten, file=file)
        stdout.print(told, markup=False, soft_wrap=True)
        return
    for entry in entries:
        version = entry["engine_version"] or "?"
        cards = f"{entry['num_gpus']} × {entry['gpu']}"
        where = f"{entry['machine']} · {cards} · {entry['engine']} {version}"
        size = format_bytes(entry["overhead_bytes"])
        told = phrase("calibration", language, where=where, size=size)
        stdout.print(told, markup=False, soft_wrap=True)
    key = "calibrations_kept" if entries else "no_calibrations"
    stdout.print(phrase(key, language, file=file), markup=False, soft_wrap=True)
