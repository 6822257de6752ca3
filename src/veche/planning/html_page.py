"""A plan as an HTML page with charts, in one file that loads nothing."""

import json
from collections.abc import Iterable, Sequence
from functools import partial
from html import escape
from itertools import groupby

from veche.core.language import Language
from veche.core.units import format_bytes, format_count, grouped
from veche.planning.breakdown import SHOWN_KV_DTYPES, Breakdown, breakdown_of
from veche.planning.charts import Bar, stacked_bars
from veche.planning.markdown_page import cards_line
from veche.planning.phrases import phrase
from veche.planning.plan import BuildPlan
from veche.planning.summary import (
    SHOWN_QUANTIZATIONS,
    cost_rows,
    detail_rows,
    field_rows,
    quiet_fields,
)

CHART_CONTEXT_TOKENS = 131_072
_GROUPS = ("experts", "attention", "embeddings", "shared_experts", "dense_mlp", "router", "norms")
_STYLE = """
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 20%, transparent); }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid
  var(--line); }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code, pre { font-family: ui-monospace, monospace; font-size: .9em; }
pre { overflow-x: auto; border: 1px solid var(--line); padding: 1rem; }
svg { width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: currentColor; }
.conflict { border-left: 4px solid #ff725c; padding-left: 1rem; }
.effect { white-space: nowrap; font-weight: 600; } .wish { font-style: italic; }
.small { font-size: .8em; opacity: .75; overflow-wrap: anywhere; }
"""


def plan_html(plan: BuildPlan, language: Language) -> str:
    """Return the page: changes, what is to be decided, costs, charts, the result's config.json."""
    title = phrase("title", language, recipe=plan.recipe, base=plan.base)
    body = [
        f"<h1>{escape(title)}</h1>",
        *_conflicts(plan, language),
        _fields(plan, language),
        *_charts(plan, language),
        *_costs(plan, language),
        f"<p>{escape(cards_line(plan, language))}</p>",
        f"<h2>{escape(phrase('config_title', language))}</h2>",
        f"<pre>{escape(json.dumps(plan.target_config, indent=2, ensure_ascii=False))}</pre>",
    ]
    return (
        f'<!doctype html>\n<html lang="{language}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _conflicts(plan: BuildPlan, language: Language) -> list[str]:
    found = []
    for conflict in plan.conflicts:
        ways = "".join(
            f"<li><code>{escape(way.flag)}</code>: {escape(way.description)}</li>"
            for way in conflict.resolutions
        )
        head = f"{phrase('conflict_title', language)}: {conflict.reason}"
        found.append(f'<div class="conflict"><b>{escape(head)}</b><ul>{ways}</ul></div>')
    return found


def _fields(plan: BuildPlan, language: Language) -> str:
    rows = [
        (
            f"<code>{escape(row.name)}</code><br>{escape(row.values)}",
            f'<span class="effect">{escape(row.effect_text)}</span>',
            f'{escape(row.reason)}<br><span class="wish">{escape(row.wish)}</span>'
            + _readers(row.read_by, language),
        )
        for row in field_rows(plan, language)
    ]
    keys = ("col_field", "col_class", "col_reason")
    table = _table([phrase(key, language) for key in keys], rows)
    quiet = phrase("unchanged_rest", language, fields=", ".join(quiet_fields(plan)))
    return f"{table}<p>{escape(quiet)}</p>"


def _readers(read_by: Sequence[str], language: Language) -> str:
    """Return the lines that read a field, folded away; or that there are none."""
    if not read_by:
        return f'<div class="small">{escape(phrase("read_by_nobody", language))}</div>'
    lines = "<br>".join(map(escape, read_by))
    title = escape(phrase("read_by", language))
    return f'<details class="small"><summary>{title}</summary>{lines}</details>'


def _costs(plan: BuildPlan, language: Language) -> list[str]:
    columns = [phrase(key, language) for key in ("cost_before", "cost_after")]
    found = []
    rows = [*cost_rows(plan, language), *detail_rows(plan, language)]
    for group, members in groupby(rows, key=lambda row: row.group):
        head = phrase("cost_title" if group == "costs" else group, language)
        cells = [[escape(cell) for cell in row.cells] for row in members]
        found.append(_table([head, *columns], cells, is_numeric=True))
    return found


def _charts(plan: BuildPlan, language: Language) -> list[str]:
    before, after = breakdown_of(plan.base_spec), breakdown_of(plan.target_spec)
    names = {
        group: phrase(f"group_{group}", language)
        for group in _GROUPS
        if before.parameters.get(group) or after.parameters.get(group)
    }
    parameters = phrase("chart_parameters", language)
    bars = [
        Bar(label=phrase(f"cost_{when}", language), parts=side.parameters)
        for when, side in (("before", before), ("after", after))
    ]
    tokens = grouped(CHART_CONTEXT_TOKENS, language)
    storage = phrase("chart_bytes", language, tokens=tokens)
    cache = {"kv": phrase("chart_cache", language)}
    return [
        f"<h2>{escape(parameters)}</h2>",
        stacked_bars(parameters, bars, names, partial(format_count, language=language)),
        f"<h2>{escape(storage)}</h2>",
        stacked_bars(
            storage,
            _storage(before, after, language),
            {**names, **cache},
            partial(format_bytes, language=language),
        ),
    ]


def _storage(before: Breakdown, after: Breakdown, language: Language) -> list[Bar]:
    """Return a bar for each quantisation and each KV type, before and after."""
    sides = (("chart_before", before), ("chart_after", after))
    weights = [
        Bar(label=phrase(key, language, name=name), parts=side.weight_bytes[name])
        for name in SHOWN_QUANTIZATIONS
        for key, side in sides
    ]
    caches = [
        Bar(
            label=phrase(key, language, name=phrase("chart_kv", language, dtype=dtype)),
            parts={"kv": side.kv_bytes_per_token[dtype] * CHART_CONTEXT_TOKENS},
        )
        for dtype in SHOWN_KV_DTYPES
        for key, side in sides
    ]
    return [*weights, *caches]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, is_numeric: bool = False) -> str:
    """Return a table; the cells are HTML already, the headings are not."""
    style = ' class="number"' if is_numeric else ""
    lines = [
        "<tr>"
        + "".join(f"<td{style if index else ''}>{cell}</td>" for index, cell in enumerate(row))
        + "</tr>"
        for row in rows
    ]
    titles = "".join(
        f"<th{style if index else ''}>{escape(title)}</th>" for index, title in enumerate(head)
    )
    return f"<table><tr>{titles}</tr>{''.join(lines)}</table>"
