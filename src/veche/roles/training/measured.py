"""How good a probe or a reader was on what its training left out, in words."""

from collections.abc import Iterator, Mapping
from typing import Any

from veche.core.language import Language
from veche.roles.training.phrases import phrase


def measured_lines(record: Mapping[str, Any], language: Language) -> Iterator[str]:
    """Yield a line for each thing that was measured.

    Args:
        record: of a trained probe or reader.
        language: of the lines.
    """
    for reads, found in record.get("measured", {}).items():
        gain = found["gain_over_surface"]
        yield phrase(
            "scored",
            language,
            reads=phrase(f"reads_{reads}", language),
            auroc=_with_ends(found["auroc"]["stack"], ".3f"),
            gain=_with_ends(gain, "+.3f"),
        )
    if "held_out_accuracy" in record:
        share = f"{record['held_out_accuracy']:.0%}"
        told = {name: record[name] for name in ("intents", "examples")}
        yield phrase("told_apart", language, share=share, **told)


def _with_ends(interval: Mapping[str, float | None], spec: str) -> str:
    mean, low, high = (
        "–" if interval[end] is None else f"{interval[end]:{spec}}"
        for end in ("mean", "low", "high")
    )
    return f"{mean} [{low}, {high}]"
