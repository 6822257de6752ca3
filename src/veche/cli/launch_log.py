"""`veche launch --parse-log` and `veche calibrations`: predictions beside what engines said."""

from pathlib import Path
from typing import TYPE_CHECKING

from veche.cli.terminal import JsonOption, LanguageOption, chosen_language, print_json, stdout

if TYPE_CHECKING:
    from veche.checkpoint.spec import ModelSpec
    from veche.core.language import Language
    from veche.launch.comparison import Comparison, Line


def compare_with_log(
    spec: "ModelSpec",
    log: Path,
    gpu: str,
    quantization: str | None,
    kv_dtype: str | None,
    language: "Language",
    *,
    as_json: bool,
) -> None:
    """Print prediction against fact, line by line, and keep what the log teaches."""
    from veche.launch.calibrations import learn
    from veche.launch.comparison import case_of, compare
    from veche.launch.gpus import find_gpu
    from veche.launch.log_facts import read_log

    facts = read_log(log)
    case = case_of(
        spec, facts, find_gpu(gpu), quantization_name=quantization, kv_dtype_name=kv_dtype
    )
    comparison = compare(case, facts)
    has_learned = learn(comparison)
    if as_json:
        print_json(
            {"log": str(log), "facts": facts.as_dict(), **comparison.as_dict(),
             "has_learned": has_learned}
        )  # fmt: skip
    else:
        _show(comparison, language, has_learned=has_learned)


def _show(comparison: "Comparison", language: "Language", *, has_learned: bool) -> None:
    from rich.table import Table
    from rich.text import Text

    from veche.cli.phrases import phrase

    case = comparison.case
    stdout.print(
        f"{case.engine} · {case.gpu.name} · {case.quantization} · KV {case.kv_dtype}",
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
    stdout.print(phrase("log_learned" if has_learned else "log_not_learned", language))


def _interval(line: "Line") -> str:
    low, high = (_number(value, line.unit) for value in line.predicted)
    return low if low == high else f"{low} – {high}"


def _number(value: float, unit: str) -> str:
    from veche.core.units import format_bytes

    return format_bytes(round(value)) if unit == "bytes" else f"{value:,.0f} {unit}"


def calibrations(lang: LanguageOption = None, as_json: JsonOption = False) -> None:
    """List what start-up logs have taught veche about this machine."""
    from veche.cli.phrases import phrase
    from veche.core.units import format_bytes
    from veche.launch.calibrations import calibrations as entries_kept
    from veche.launch.calibrations import calibrations_file

    language, entries = chosen_language(lang), entries_kept()
    if as_json:
        print_json({"file": str(calibrations_file()), "entries": entries})
        return
    for entry in entries:
        version = entry["engine_version"] or "?"
        stdout.print(
            f"{entry['machine']} · {entry['num_gpus']} × {entry['gpu']} · {entry['engine']} "
            f"{version}: {format_bytes(entry['overhead_bytes'])}",
            markup=False,
            soft_wrap=True,
        )
    if not entries:
        stdout.print(phrase("no_calibrations", language), markup=False, soft_wrap=True)
