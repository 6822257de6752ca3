"""A plan as a Markdown page."""

from collections.abc import Iterable, Sequence
from itertools import groupby

from veche.core.language import Language
from veche.planning.phrases import phrase
from veche.planning.plan import BuildPlan
from veche.planning.summary import cost_rows, detail_rows, field_rows, quiet_fields
from veche.planning.tensor_parallel import feasible_fp8_tensor_parallel, feasible_tensor_parallel


def plan_markdown(plan: BuildPlan, language: Language) -> str:
    """Return the page: every change with its reason and readers, costs, what is to be decided."""

    def say(key: str, **values: object) -> str:
        return phrase(key, language, **values)

    parts = [f"# {_one_line(say('title', recipe=plan.recipe, base=plan.base))}"]
    parts += [_conflicts(plan, language)] if plan.conflicts else []
    head = [say(f"col_{key}") for key in ("field", "values", "class", "reason", "wish")]
    rows = field_rows(plan, language)
    parts.append(
        _table(
            [*head, say("read_by")],
            [
                (
                    f"`{row.name}`",
                    row.values,
                    row.effect_text,
                    row.reason,
                    row.wish,
                    "<br>".join(f"`{each}`" for each in row.read_by) or say("nobody"),
                )
                for row in rows
            ],
        )
    )
    if quiet := quiet_fields(plan):
        parts.append(say("unchanged_rest", fields=", ".join(f"`{name}`" for name in quiet)))
    operations = ", ".join(f"`{name}`" for name in plan.operations)
    parts.append(say("moves", operations=operations) if operations else say("moves_nothing"))
    columns = (say("cost_before"), say("cost_after"))
    costs = [row.cells for row in cost_rows(plan, language)]
    parts.append(_table((say("cost_title"), *columns), costs))
    for group, members in groupby(detail_rows(plan, language), key=lambda row: row.group):
        parts.append(_table((say(group), *columns), [row.cells for row in members]))
    parts.append(cards_line(plan, language))
    return "\n\n".join(parts) + "\n"


def cards_line(plan: BuildPlan, language: Language) -> str:
    """Return the sentence about how many cards can share the model, before and after."""
    before, after = plan.base_spec, plan.target_spec
    numbers = {
        "before": feasible_tensor_parallel(before),
        "after": feasible_tensor_parallel(after),
        "fp8_before": feasible_fp8_tensor_parallel(before),
        "fp8_after": feasible_fp8_tensor_parallel(after),
    }
    texts = {key: ", ".join(map(str, value)) or "-" for key, value in numbers.items()}
    return phrase("cards", language, **texts)


def _conflicts(plan: BuildPlan, language: Language) -> str:
    lines = []
    for conflict in plan.conflicts:
        lines.append(f"**{phrase('conflict_title', language)}:** {conflict.reason}")
        lines += [f"- `{way.flag}`: {way.description}" for way in conflict.resolutions]
        lines.append("")
    return "\n".join([*lines, phrase("cannot_build", language)])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(text: str) -> str:
    return _one_line(text).replace("|", "\\|")


def _one_line(text: str) -> str:
    """Return a text of somebody's that neither ends its line, drives a terminal, nor hides text."""
    line = text.replace("\n", " ").replace("<!--", "&lt;!--")
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)
