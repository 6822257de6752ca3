"""The reference page of config.json's fields; `python -m veche.planning.field_page` prints it."""

import sys
from collections.abc import Iterable

from veche.checkpoint.families import FAMILIES
from veche.planning.field_facts import FieldFact, FieldReader, facts_for

_COMMAND = "python -m veche.planning.field_page > docs/reference/fields.md"
_HEAD = f"""# Fields of config.json

Generated: `{_COMMAND}`

What each field does when the model runs, family by family, and which line of which engine says so.

| effect | meaning |
|---|---|
| inert | no engine computes with it when the model runs |
| training only | training reads it, running the model does not |
| config only | no weight changes; *lossy* where the numbers that the model computes do |
| exact | needs new weights, which veche makes without changing the function |
| needs weights | needs other tensors, and this version of veche has no exact operation for it |

An engine's name is followed by the versions in which the line was found, and in brackets by the
version of the line number. Opened were transformers 4.51.3, 4.57.1, 5.0.0 and 5.23.0, vLLM 0.10.2
and 0.19.0 to 0.33.0, SGLang 0.5.23, and llama.cpp at 0c1e57098; between two of them a range is
inferred. *Not read* marks a line that shows what an engine does instead. Paths are shortened to
their ends. Where no line stands, nobody was found to read the field. A version beside a field's
name is one of transformers. What the table says of transformers is tested on tiny models.
"""
_TABLE_HEAD = "| field | effect | why | read by |\n|---|---|---|---|\n"
_PATH_PARTS = 2


def fields_page() -> str:
    """Return the page as Markdown."""
    tables = {family: facts_for(family) for family in FAMILIES}
    shared = [
        fact
        for fact in tables[next(iter(FAMILIES))]
        if all(
            any(_content(fact) == _content(other) for other in facts) for facts in tables.values()
        )
    ]
    contents = [_content(fact) for fact in shared]
    parts = [_HEAD, _section("All families", shared)]
    for family, facts in tables.items():
        own = [fact for fact in facts if _content(fact) not in contents]
        parts.append(_section(family, own))
    return "\n".join(parts)


def _content(fact: FieldFact) -> tuple[object, ...]:
    """Return what a row says, whatever the family."""
    return (fact.field, *_merging_content(fact))


def _merging_content(fact: FieldFact) -> tuple[object, ...]:
    return (fact.effect, fact.is_lossy, fact.versions, fact.reason("en"), fact.readers)


def _section(title: str, facts: Iterable[FieldFact]) -> str:
    """Return a table in which fields with the same story share a row."""
    rows: dict[tuple[object, ...], list[FieldFact]] = {}
    for fact in facts:
        rows.setdefault(_merging_content(fact), []).append(fact)
    return f"## {title}\n\n{_TABLE_HEAD}{''.join(_row(same) for same in rows.values())}"


def _row(facts: list[FieldFact]) -> str:
    first = facts[0]
    names = ", ".join(f"`{fact.field}`" for fact in facts)
    if first.versions:
        names += f" {_readable(first.versions)}"
    effect = first.effect.replace("_", " ") + (", lossy" if first.is_lossy else "")
    readers = "<br>".join(_reader(reader) for reader in first.readers)
    cells = (names, effect, first.reason("en"), readers)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _reader(reader: FieldReader) -> str:
    path = "/".join(reader.where.split("/")[-_PATH_PARTS:])
    versions = "" if reader.versions == reader.at else f" {_readable(reader.versions)}"
    mark = "" if reader.is_read else ", *not read*"
    return f"{reader.engine}{versions} [{reader.at}]: `{path}`{mark}"


def _readable(versions: str) -> str:
    return versions.replace(">=", "≥ ").replace("<", "< ").replace(",", ", ")


if __name__ == "__main__":
    sys.stdout.write(fields_page())
