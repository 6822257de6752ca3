"""A new recipe's text: every field of its base that a recipe can change, with what it would do."""

import textwrap
from typing import Any

import yaml

from veche.checkpoint.config import require_unquantised, spec_of
from veche.checkpoint.edit import key_of
from veche.core.language import Language
from veche.planning.bases import load_base
from veche.planning.field_facts import fact_of
from veche.planning.fields import FIELDS
from veche.planning.phrases import phrase
from veche.planning.start import Start, mixture_of

_WIDTH = 100
_COPIES = {"num_experts": 8, "num_experts_per_tok": 2}
"""What a dense base's recipe starts with, as Mixtral is; without experts there is no plan."""


def recipe_template(name: str, base: str, language: Language) -> str:
    """Return YAML that plans as it stands: the base's own values, commented out.

    A dense base is made a mixture of copies of its MLPs.

    Raises:
        ConfigError: the base cannot be read.
        UnsupportedError: it is quantised, or dense and its copies would be another function.
    """
    config = load_base(base)
    start = Start(config=config, spec=spec_of(config, where=base))
    require_unquantised(config, base)
    chosen = {} if start.spec.is_moe else _COPIES
    if chosen:
        start = mixture_of(start, base, **chosen)
    words = ("template_fields",) if chosen else ("template_fields", "template_empty")
    head = {"name": name, "base": base, "mode": "zero", "allow_lossy": False}
    lines = [
        yaml.safe_dump(head, sort_keys=False, allow_unicode=True).rstrip(),
        *_comment(" ".join(phrase(key, language) for key in words), indent=""),
        "fields:",
    ]
    for field in FIELDS:
        value = start.value(field)
        if value is None and field != "rope_scaling":
            continue
        fact = fact_of(key_of(field, start.config, start.spec.family), start.spec.model_type)
        if fact is None or fact.effect == "needs_weights":
            continue
        is_chosen = field in chosen
        effect = phrase(f"effect_{'exact' if is_chosen else fact.effect}", language)
        reason = (
            phrase(f"copies_{field}", language, after=value) if is_chosen else fact.reason(language)
        )
        lines += _comment(f"{effect}: {reason}", indent="  ")
        lines.append(f"  {'' if is_chosen else '# '}{field}: {_inline(value)}")
    return "\n".join([*lines, *([] if chosen else ["  {}"])]) + "\n"


def _inline(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def _comment(text: str, *, indent: str) -> list[str]:
    return [f"{indent}# {line}" for line in textwrap.wrap(text, _WIDTH - len(indent) - 2)]
