"""The model card of a grown model: README.md with the header that the hub reads.

Source of the header's keys: https://huggingface.co/docs/hub/model-cards, "Model card metadata".
"""

import re
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from veche import __version__
from veche.core.files import open_regular
from veche.planning.markdown_page import plan_markdown
from veche.planning.plan import BuildPlan
from veche.surgery.grow import steps_of_plan
from veche.surgery.hub_cache import hub_id_of
from veche.surgery.names import CARD_NAME, GROWTH_NAME, HASHES_NAME, PLAN_NAME, SOURCE_CARD_NAME

VERIFICATION_MARK = "<!-- veche: verification -->"
"""Where `veche verify --card` puts its figures."""
_CARRIED = ("license", "license_name", "license_link", "language", "pipeline_tag", "base_model")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_MAX_HUB_ID = 193
_MAX_CARD_BYTES, _MAX_HEADER_LETTERS = 1 << 20, 1 << 18
_FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)\r?\n---\r?\n", re.DOTALL)


def model_card(plan: BuildPlan, source: Path) -> str:
    """Return the card of the model that `plan` makes of the checkpoint in `source`."""
    header = yaml.safe_dump(_header(plan, source), allow_unicode=True, sort_keys=False)
    title, _, details = plan_markdown(replace(plan, base=_base_name(plan, source)), "en").partition(
        "\n\n"
    )
    parts = (
        f"---\n{header}---\n",
        f"{title}\n",
        (
            f"Made by veche {__version__} in mode `{plan.mode}` with seed {plan.seed}. "
            f"{_promise(plan)}\n"
        ),
        "## Operations\n",
        _operations(plan),
        "## Verification\n",
        (
            f"{VERIFICATION_MARK}\nNot measured yet: `veche verify SOURCE THIS_FOLDER --card`.\n"
            f"{VERIFICATION_MARK}\n"
        ),
        "## Files\n",
        (
            f"`{PLAN_NAME}` is the plan, `{GROWTH_NAME}` says which parts are new, `{HASHES_NAME}` "
            f"has SHA-256 of the source's files and of these; `{SOURCE_CARD_NAME}`, if there, is "
            "the source's card. Licence and tokenizer are the source's.\n"
        ),
        "## What changed\n",
        details,
    )
    return "\n".join(parts)


def front_matter(folder: Path) -> dict[str, Any]:
    """Return the header of a folder's model card; empty where there is none that can be read.

    NOTE: every value is a text, as it is written: BaseLoader makes no dates, no numbers, no objects
    and not False of `language: no`.
    """
    try:
        with open_regular(folder / CARD_NAME) as file:
            raw = file.read(_MAX_CARD_BYTES)
        match = _FRONT_MATTER.match(raw.decode("utf-8-sig", errors="replace"))
        is_short = match is not None and len(match[1]) <= _MAX_HEADER_LETTERS
        value = yaml.load(match[1], yaml.BaseLoader) if match and is_short else None  # noqa: S506
    except (OSError, yaml.YAMLError, RecursionError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def carried_header(source: Path) -> dict[str, Any]:
    """Return what of a folder's header holds for what is made of it: licence, languages, base."""
    found = front_matter(source)
    return {key: copy(found[key]) for key in _CARRIED if _is_plain(found.get(key))}


def _header(plan: BuildPlan, source: Path) -> dict[str, Any]:
    header = carried_header(source)
    if base := _hub_id(plan, source):
        header["base_model"] = base
    return {
        **header,
        "library_name": "transformers",
        "tags": ["veche", "moe", "model-growth"],
    }


def _is_plain(value: Any) -> bool:
    """Whether the hub may be told it: a text, or texts."""
    texts = value if isinstance(value, list) else [value]
    return all(isinstance(text, str) and text and text.isprintable() for text in texts)


def _hub_id(plan: BuildPlan, source: Path) -> str:
    """Return the base's name on the hub, if the plan or the hub's own cache says it, else ""."""
    if len(plan.base) <= _MAX_HUB_ID and _HUB_ID.fullmatch(plan.base):
        is_folder = Path(plan.base).exists() or source.resolve().match(plan.base)
        if not is_folder:
            return plan.base
    return hub_id_of(source)


def _base_name(plan: BuildPlan, source: Path) -> str:
    """Return how the card calls the base: a folder by its last name alone."""
    if hub_id := _hub_id(plan, source):
        return hub_id
    return Path(plan.base).name or plan.base


def _promise(plan: BuildPlan) -> str:
    lossy = ", ".join(f"`{change.name}`" for change in plan.lossy_fields)
    if lossy:
        return f"Its new weights change no answer; {lossy} do, until the model is trained."
    return "It computes the function that its base computes, until it is trained."


def _operations(plan: BuildPlan) -> str:
    lines = [
        f"- **{step.operation.name}**: {step.operation.law} "
        f"([source]({step.operation.reference_url}))"
        for step in steps_of_plan(plan)
    ]
    return "\n".join(lines or ["None: only config.json differs."]) + "\n"
