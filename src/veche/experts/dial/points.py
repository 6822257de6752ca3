"""Which values of a dial are measured: those that were asked for, or a few sensible ones."""

import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

from veche.checkpoint.spec import ModelSpec
from veche.core.errors import InputError, UnsupportedError
from veche.core.language import Language
from veche.experts.dial.phrases import phrase

DialName = Literal["top_k", "rope_theta", "yarn", "temperature", "adaptive"]
NAMES: tuple[DialName, ...] = get_args(DialName)
MOST_POINTS = 33
_FEW = 9
"""Points of a range whose step was not given, at most."""
_NEEDS_EXPERTS = ("top_k", "adaptive")
_UNSCALED = ("default", "yarn")


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """Values of a dial, and why these.

    Attributes:
        name: of the dial.
        base: the checkpoint's own value, which the others are compared with.
        values: to be measured, in ascending order, without the base.
        reason: why these values; empty where the user gave each of them.
    """

    name: DialName
    base: float
    values: tuple[float, ...]
    reason: str = ""


def chosen_points(
    name: str, text: str | None, spec: ModelSpec, *, language: Language = "en"
) -> Points:
    """Return what to measure of a model.

    Args:
        name: of the dial.
        text: `a..b`, `a..b:step`, or values with commas; None takes the defaults.
        spec: the model.
        language: of the reason.

    Raises:
        InputError: there is no such dial, or a value that it cannot have.
        UnsupportedError: the model has no such dial.
    """
    if name not in NAMES:
        raise InputError(
            f"there is no dial {name!r}", hint=f"dials are: {', '.join(NAMES)}, e.g. top_k 4..16"
        )
    dial: DialName = name
    _require_dial(dial, spec)
    if text is None:
        values, reason = _default_values(dial, spec), _default_reason(dial, spec, language)
    else:
        values, reason = _parsed(dial, text, language)
    _require_few(dial, len(values))
    for value in values:
        _require_possible(dial, value, spec)
    base = base_value(dial, spec)
    kept = sorted({value for value in values if dial == "adaptive" or value != base})
    return Points(name=dial, base=base, values=tuple(kept), reason=reason)


def base_value(name: DialName, spec: ModelSpec) -> float:
    """Return the checkpoint's own value of a dial."""
    if name in _NEEDS_EXPERTS:
        return spec.num_experts_per_tok
    return {"rope_theta": spec.rope.rope_theta, "yarn": spec.rope.factor}.get(name, 1.0)


def _require_dial(name: DialName, spec: ModelSpec) -> None:
    if name in _NEEDS_EXPERTS and not spec.is_moe:
        raise UnsupportedError(
            f"this {spec.model_type} model is dense: it has no experts, so no dial {name}",
            hint="veche carve makes experts of a dense model; rope_theta, yarn and temperature "
            "work without",
        )
    if name == "yarn" and spec.rope.rope_type not in _UNSCALED:
        raise UnsupportedError(
            f"this model's positions are scaled by {spec.rope.rope_type!r} already, and YaRN would "
            "replace that",
            hint="turn rope_theta instead",
        )


def _default_values(name: DialName, spec: ModelSpec) -> list[float]:
    base = base_value(name, spec)
    if name in _NEEDS_EXPERTS:
        most = min(spec.num_experts, 2 * spec.num_experts_per_tok)
        return _whole_range(max(1, math.ceil(base / 2)), most)
    if name == "temperature":
        return [0.5, 0.75, 1.25, 1.5]
    return [base * factor for factor in ((2, 4) if name == "yarn" else (0.5, 2, 4))]


def _default_reason(name: DialName, spec: ModelSpec, language: Language) -> str:
    base = f"{base_value(name, spec):g}"
    return phrase(f"default_{name}", language, base=base, experts=spec.num_experts)


def _parsed(name: DialName, text: str, language: Language) -> tuple[list[float], str]:
    """Return the values of a text, and the reason for those that the text does not name."""
    match = re.fullmatch(r"([^.,:]+(?:\.[^.,:]+)?)\.\.([^,:]+)(?::(.+))?", text.strip())
    if match is None:
        return [_number(name, part) for part in text.split(",")], ""
    low, high = (_number(name, part) for part in match.groups()[:2])
    if low > high:
        raise InputError(f"{name} {text}: the range is reversed", hint=f"write {high:g}..{low:g}")
    if match[3] is None:
        return _few_between(name, low, high), phrase("few_between", language, range=text)
    step = _number(name, match[3])
    if step <= 0:
        raise InputError(f"{name} {text}: the step must be above 0", hint="e.g. 4..16:2")
    count = math.floor((high - low) / step + 1e-9) + 1
    _require_few(name, count)
    return [low + index * step for index in range(count)], ""


def _few_between(name: DialName, low: float, high: float) -> list[float]:
    """Return a few values from low to high: whole, geometric or evenly spaced, as suits."""
    if low == high:
        return [low]
    if name in _NEEDS_EXPERTS and low.is_integer() and high.is_integer():
        return _whole_range(int(low), int(high))
    if name in ("rope_theta", "yarn") and low > 0:
        count = min(_FEW, max(2, round(math.log2(high / low)) + 1))
        ratio = (high / low) ** (1 / (count - 1))
        return [*(float(f"{low * ratio**index:.4g}") for index in range(count - 1)), high]
    return [low + (high - low) * index / 4 for index in range(5)]


def _whole_range(low: int, high: int) -> list[float]:
    """Return whole numbers at the smallest step that makes them few, the last one included."""
    step = max(1, math.ceil((high - low) / (_FEW - 1)))
    return [float(value) for value in (*range(low, high, step), high)]


def _number(name: DialName, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(
            f"{name}: {text.strip()[:40]!r} is no number",
            hint="values are a..b, a..b:step, or a list such as 4,8,12",
        )
    return value


def _require_few(name: DialName, count: int) -> None:
    if count > MOST_POINTS:
        raise InputError(
            f"{name}: {count:,} values are too many to measure, at most {MOST_POINTS} are",
            hint="name fewer, or take a larger step, e.g. 4..16:4",
        )


def _require_possible(name: DialName, value: float, spec: ModelSpec) -> None:
    """Refuse a value that the dial cannot have in this model."""
    if name in _NEEDS_EXPERTS:
        is_possible = (name == "adaptive" or value.is_integer()) and 1 <= value <= spec.num_experts
        number = "number" if name == "adaptive" else "whole number"
        wanted = f"a {number} in 1..{spec.num_experts}, the model's number of experts"
    elif name == "yarn":
        is_possible, wanted = value >= 1, "a factor of at least 1"
    else:
        is_possible, wanted = value > 0, "a number above 0"
    if not is_possible:
        raise InputError(f"{name} {value:g} is not {wanted}", hint=f"e.g. {_EXAMPLES[name]}")


_EXAMPLES: dict[DialName, str] = {
    "top_k": "veche dial top_k 4..8 --model FOLDER",
    "rope_theta": "veche dial rope_theta 50000..400000 --model FOLDER",
    "yarn": "veche dial yarn 1..4 --model FOLDER",
    "temperature": "veche dial temperature 0.5..1.5 --model FOLDER",
    "adaptive": "veche dial adaptive 4..8 --model FOLDER",
}
