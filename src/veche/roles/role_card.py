"""The card of a role that is written out: README.md with the header that the hub reads.

Source of the header's keys: https://huggingface.co/docs/hub/model-cards, "Model card metadata".
"""

import re
from typing import Any

import yaml

from veche import __version__
from veche.roles.role import Artefact, Role
from veche.roles.role_file import version_hash

CARD_FILE = "README.md"
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def role_card(role: Role, *, base_name: str) -> str:
    """Return a role's card.

    Args:
        role: that is written out.
        base_name: what the adapter's config calls its base model; "" without one.
    """
    header = yaml.safe_dump(_header(role, base_name), allow_unicode=True, sort_keys=False)
    return "\n".join(
        (
            f"---\n{header}---\n",
            f"# {role.title['en']}\n",
            (
                f"A role of kind `{role.kind}`, written by veche {__version__}. `role.yaml` is "
                "all of it; bring it in with\n"
            ),
            "```sh\nveche role import THIS_FOLDER\n```\n",
            *_prompts(role),
            *_adapter(role, base_name),
            "## Lineage\n",
            _lineage(role),
        )
    )


def _header(role: Role, base_name: str) -> dict[str, Any]:
    adapter = role.adapter
    license_ = role.license if adapter is None else adapter.license
    header: dict[str, Any] = {} if license_ is None else {"license": license_.lower()}
    if adapter is not None:
        header["library_name"] = "peft"
        if _HUB_ID.fullmatch(base_name):
            header["base_model"] = base_name
            header["base_model_relation"] = "adapter"
    return header | {"tags": ["veche", "role", *(["lora"] if adapter is not None else [])]}


def _prompts(role: Role) -> list[str]:
    texts = dict.fromkeys(text for text in role.prompt.values() if text.strip())
    if not texts:
        return []
    quoted = ["\n".join(f"> {line}" for line in text.splitlines()) + "\n" for text in texts]
    return ["## Prompt\n", *quoted]


def _adapter(role: Role, base_name: str) -> list[str]:
    if role.adapter is None:
        return []
    lines = [
        "## Adapter\n",
        (
            "`adapter_config.json` and `adapter_model.safetensors` are a PEFT folder: "
            "`PeftModel.from_pretrained(base, THIS_FOLDER)`.\n"
        ),
    ]
    if role.invocation:
        lines.append(
            f"The prompt of this role begins with {role.invocation!r}. If "
            "`alora_invocation_tokens` are in the config, the adapter acts from there on, and what "
            "stands before is read by the base model alone.\n"
        )
    name = f" `{base_name}`" if base_name else ""
    made = role.adapter.base_hash
    told = f"content hash `{made}`" if made else "nobody says which content it had"
    return [*lines, f"Base model:{name}, {told}.\n"]


def _lineage(role: Role) -> str:
    rows = [("this version", version_hash(role))]
    rows += [("made from", parent) for parent in role.parents]
    steering = None if role.steering is None else role.steering.artefact
    things = (role.adapter, steering, role.probe)
    rows += [(_with_license(item), item.content_hash) for item in things if item is not None]
    lines = ["| what | SHA-256 |", "|---|---|", *(f"| {what} | `{sha}` |" for what, sha in rows)]
    return "\n".join([*lines, "", f"Licence of the definition: {role.license}.", ""])


def _with_license(artefact: Artefact) -> str:
    return f"{artefact.kind}, licence {artefact.license or 'not said'}"
