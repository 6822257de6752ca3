"""A new recipe's text: every field of its base that a recipe can change, with what it would do."""

import textwrap
from typing import Any

import yaml

from veche.checkpoint.config import spec_of
from veche.checkpoint.edit import key_of
from veche.core.language import Language
from veche.planning.bases import load_base
from veche.planning.field_facts import fact_of
from veche.planning.fields import FIELDS, value_of
from veche.planning.phrases import phrase
from veche.planning.planner import require_plannable

_WIDTH = 100


def recipe_template(name: str, base: str, language: Language) -> str:
    """Return YAML that plans as it stands: the base's own values, commented out.

    Raises:
        ConfigError: the base cannot be read.
        UnsupportedError: it has no experts, or is quantised.
    """
    config = load_base(base)
    spec = spec_of(config, where=base)
    require_plannable(config, spec, base)
    head = {"name": name, "base": base, "mode": "zero", "allow_lossy": False}
    lines = [
        yaml.safe_dump(head, sort_keys=False, allow_unicode=True).rstrip(),
        *_comment(phrase("template_fields", language), indent=""),
        "fields:",
    ]
    for field in FIELDS:
        value = value_of(spec, field)
        if value is None and field != "rope_scaling":
            continue
        fact = fact_of(key_of(field, config, spec.family), spec.model_type)
        if fact is None or fact.effect == "needs_weights":
            continue
        effect = phrase(f"effect_{fact.effect}", language)
        lines += _comment(f"{effect}: {fact.reason(language)}", indent="  ")
        lines.append(f"  # {field}: {_inline(value)}")
    return "\n".join([*lines, "  {}"]) + "\n"


def _inline(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def _comment(text: str, *, indent: str) -> list[str]:
    return [f"{indent}# {line}" for line in textwrap.wrap(text, _WIDTH - len(indent) - 2)]
