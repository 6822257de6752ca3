"""A plan as rows of text, for terminals, Markdown and HTML alike."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from veche.core.language import Language
from veche.core.units import format_bytes, format_count, grouped
from veche.planning.breakdown import Breakdown, breakdown_of
from veche.planning.phrases import phrase
from veche.planning.plan import BuildPlan, FieldChange

SHOWN_QUANTIZATIONS = ("bf16", "fp8-block", "int8", "awq-int4", "nvfp4", "Q8_0", "Q4_K_M")
"""Of those in `Breakdown.weight_bytes`, the ones that tables for people have."""

_Show = Callable[[float, Language], str]
COSTS: tuple[tuple[str, _Show], ...] = (
    ("parameters", format_count),
    ("active_parameters", format_count),
    ("weight_bytes", format_bytes),
    ("kv_bytes_per_token", format_bytes),
    ("flops_per_token", format_count),
)
"""What a reader looks at first: fields of `Costs`, and how each is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldRow:
    """A field that changes, or that departs from what was asked for.

    Attributes:
        name: of the field.
        values: `base → target`.
        effect: its class, for styles.
        effect_text: its class in words.
        reason: why, and what was asked for where the recipe departs from it.
        wish: what the recipe hopes for.
        read_by: lines of engines that read it.
    """

    name: str
    values: str
    effect: str
    effect_text: str
    reason: str
    wish: str
    read_by: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRow:
    """A cost before and after; `group` names the table that it belongs to."""

    group: str
    label: str
    before: float
    after: float
    language: Language
    show: _Show

    @property
    def cells(self) -> tuple[str, str, str]:
        """Label, before, and after with its ratio."""
        ratio = f" (x{self.after / self.before:.2f})" if self.before else ""
        before, after = (self.show(value, self.language) for value in (self.before, self.after))
        return self.label, before, after + ratio


def field_rows(plan: BuildPlan, language: Language) -> list[FieldRow]:
    """Return a row for each field that is worth one."""
    return [_field_row(change, language) for change in plan.fields if change.is_told]


def quiet_fields(plan: BuildPlan) -> list[str]:
    """Return the names of the fields that stay as they are."""
    return [change.name for change in plan.fields if not change.is_told]


def cost_rows(plan: BuildPlan, language: Language) -> list[CostRow]:
    """Return the costs in all: what a reader looks at first."""
    return [
        CostRow(
            group="costs",
            label=phrase(f"cost_{name}", language, context=plan.before.flops_context_tokens),
            before=getattr(plan.before, name),
            after=getattr(plan.after, name),
            language=language,
            show=show,
        )
        for name, show in COSTS
    ]


def detail_rows(plan: BuildPlan, language: Language) -> list[CostRow]:
    """Return the costs taken apart: parameters by group, weights by type, KV cache, FLOPs."""
    before, after = breakdown_of(plan.base_spec), breakdown_of(plan.target_spec)
    return [
        *_rows("by_group", before.parameters, after.parameters, format_count, language),
        *_rows(
            "by_quantization",
            {name: sum(before.weight_bytes[name].values()) for name in SHOWN_QUANTIZATIONS},
            {name: sum(after.weight_bytes[name].values()) for name in SHOWN_QUANTIZATIONS},
            format_bytes,
            language,
        ),
        *_rows(
            "kv_cache",
            _kv(before, after, language),
            _kv(after, before, language),
            format_bytes,
            language,
        ),
        *_rows(
            "flops",
            _flops(before, after, language),
            _flops(after, before, language),
            format_count,
            language,
        ),
    ]


def short_value(value: Any) -> str:
    """Return a field's value as it fits a line."""
    if isinstance(value, dict) and "factor" in value:
        return f"{value.get('rope_type')} x{value['factor']:g}"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return "-" if value is None else str(value)


def _field_row(change: FieldChange, language: Language) -> FieldRow:
    reason = change.reason
    if change.instead_of is not None:
        wanted = phrase("instead_of", language, wanted=short_value(change.instead_of))
        reason = f"{wanted}; {reason}"
    effect = phrase(f"effect_{change.effect}", language)
    if change.is_lossy:
        effect += f" ({phrase('lossy_mark', language)})"
    return FieldRow(
        name=change.name,
        values=f"{short_value(change.base)} → {short_value(change.target)}",
        effect=change.effect.value,
        effect_text=effect,
        reason=reason,
        wish=change.wish,
        read_by=change.read_by,
    )


def _rows(
    group: str,
    before: dict[str, int],
    after: dict[str, int],
    show: _Show,
    language: Language,
) -> list[CostRow]:
    """Return a row for each key of either side, in their order; names of groups are translated."""
    names = dict.fromkeys([*before, *after])
    return [
        CostRow(
            group=group,
            label=phrase(f"group_{name}", language) if group == "by_group" else name,
            before=before.get(name, 0),
            after=after.get(name, 0),
            language=language,
            show=show,
        )
        for name in names
    ]


def _kv(own: Breakdown, other: Breakdown, language: Language) -> dict[str, int]:
    """Return the KV cache of whole sequences, at the lengths that both models have."""
    return {
        f"{dtype}, {grouped(tokens, language)}": own.kv_bytes_per_token[dtype] * tokens
        for dtype in own.kv_bytes
        for tokens in sorted({*own.kv_bytes[dtype], *other.kv_bytes[dtype]})
        if tokens >= 131_072 or tokens == max(own.kv_bytes[dtype])
    }


def _flops(own: Breakdown, other: Breakdown, language: Language) -> dict[str, int]:
    return {
        grouped(tokens, language): sum(own.flops_per_token[tokens].values())
        for tokens in sorted({*own.flops_per_token} & {*other.flops_per_token})
    }
