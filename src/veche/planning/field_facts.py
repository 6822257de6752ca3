"""What every field of config.json does in each family, with the line that reads it."""

import json
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

from veche.checkpoint.families import FAMILIES
from veche.core.language import Language, Phrase

FactEffect = Literal["inert", "training_only", "config_only", "exact", "needs_weights"]
"""The classes of `plan.Effect` that hold for every change of a field, and `needs_weights`: the
field sets tensor shapes, and no operation of this version makes the change exactly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldReader:
    """A line of an engine that decides about a field.

    Attributes:
        engine: transformers, vllm, sglang or llama.cpp.
        versions: where that line is found, such as ">=4.57,<5.0"; the ends are versions that were
            opened, so the true limits may lie further apart. llama.cpp's is a commit.
        at: the version in which the line has the number that `where` gives.
        where: path and line number in the engine's repository.
        code: the line, or the part of it that matters.
        is_read: False where the line shows that the engine does not read the field.
    """

    engine: str
    versions: str
    at: str
    where: str
    code: str
    is_read: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldFact:
    """What a field does in one family when the model runs.

    Attributes:
        field: the key of config.json.
        model_type: the family.
        effect: what changing it does.
        reasons: why, in every language.
        conditions: when that holds, or who differs, in every language; None if nothing limits it.
        is_lossy: whether the numbers that the model computes change, though no weight does.
        versions: the versions of transformers for which this holds; "" for all.
        readers: who reads it; empty where nobody was found to.
    """

    field: str
    model_type: str
    effect: FactEffect
    reasons: Phrase
    conditions: Phrase | None = None
    is_lossy: bool = False
    versions: str = ""
    readers: tuple[FieldReader, ...] = ()

    def reason(self, language: Language) -> str:
        """Return why, and when, in one text."""
        reason = self.reasons[language]
        return f"{reason} ({self.conditions[language]})" if self.conditions else reason

    @property
    def sources(self) -> tuple[str, ...]:
        """Who reads it, as `engine version path:line`."""
        return tuple(
            f"{each.engine} {each.at} {each.where}" for each in self.readers if each.is_read
        )

    def holds_in(self, version: str) -> bool:
        """Return whether this is so in a version of transformers."""
        return is_within(version, self.versions)


def fact_of(field: str, model_type: str, *, version: str | None = None) -> FieldFact | None:
    """Return what `field` does in a family, or None if config.json has no such field there.

    Args:
        field: the key as config.json spells it.
        model_type: the family.
        version: of transformers; the newest if not given.
    """
    for item in _items().get((field, model_type), ()):
        is_newest = "<" not in item.get("versions", "")
        if is_newest if version is None else is_within(version, item.get("versions", "")):
            return _fact_from(item, field, model_type)
    return None


def known_fields() -> frozenset[str]:
    """Return every field that some family has."""
    return frozenset(field for field, _ in _items())


def facts_for(model_type: str) -> tuple[FieldFact, ...]:
    """Return the facts of a family, of all versions, in the order of presentation."""
    return tuple(
        _fact_from(item, field, model_type)
        for (field, family), items in _items().items()
        if family == model_type
        for item in items
    )


def is_within(version: str, versions: str) -> bool:
    """Return whether a version lies in a range such as ">=4.57,<5.0"; "" is every version."""
    number = _number_of(version)
    for bound in filter(None, versions.split(",")):
        limit = _number_of(bound)
        size = max(len(number), len(limit))
        padded, padded_limit = (n + (0,) * (size - len(n)) for n in (number, limit))
        is_inside = padded < padded_limit if bound.startswith("<") else padded >= padded_limit
        if not is_inside:
            return False
    return True


def _number_of(version: str) -> tuple[int, ...]:
    """Return the numbers of "5.23.0" or of ">=5.23"; what follows them is not looked at."""
    match = re.search(r"\d+(\.\d+)*", version)
    if match is None:
        raise ValueError(f"{version!r} has no number")
    return tuple(int(part) for part in match[0].split("."))


@cache
def _items() -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Read the table once, when somebody first asks."""
    file = resources.files("veche.planning") / "field_facts.json"
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for item in json.loads(file.read_text(encoding="utf-8"))["facts"]:
        families = list(FAMILIES) if item["families"] == ["*"] else item["families"]
        for field in item["fields"]:
            for family in families:
                found.setdefault((field, family), []).append(item)
    return found


def _fact_from(item: dict[str, Any], field: str, model_type: str) -> FieldFact:
    readers = tuple(
        FieldReader(**{key: value for key, value in reader.items() if key != "families"})
        for reader in item["readers"]
        if model_type in reader.get("families", (model_type,))
    )
    return FieldFact(
        field=field,
        model_type=model_type,
        effect=item["effect"],
        reasons=item["reason"],
        conditions=item.get("condition"),
        is_lossy=item.get("is_lossy", False),
        versions=item.get("versions", ""),
        readers=readers,
    )
