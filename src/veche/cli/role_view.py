"""Roles on the terminal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from veche.core.language import Language, Phrase
    from veche.roles.role import Role
    from veche.roles.versions import RoleVersion

_WORDS: "dict[str, Phrase]" = {
    "name": {"en": "name", "ru": "имя"},
    "kind": {"en": "kind", "ru": "род"},
    "title": {"en": "title", "ru": "название"},
    "version": {"en": "version", "ru": "версия"},
    "artefacts": {"en": "has", "ru": "имеет"},
    "prompt": {"en": "prompt", "ru": "наказ"},
    "sampling": {"en": "sampling", "ru": "выбор токенов"},
    "invocation": {"en": "invocation", "ru": "призыв"},
    "experts": {"en": "active experts", "ru": "активных экспертов"},
    "adapter": {"en": "adapter", "ru": "адаптер"},
    "steering": {"en": "steering", "ru": "сдвиг"},
    "probe": {"en": "probe", "ru": "зонд"},
    "license": {"en": "licence", "ru": "лицензия"},
    "parents": {"en": "made from", "ru": "сделана из"},
    "in_use": {"en": "in use", "ru": "в работе"},
    "created": {"en": "created", "ru": "создана"},
    "note": {"en": "note", "ru": "заметка"},
    "broken": {"en": "broken: {reason}", "ru": "неисправна: {reason}"},
    "unproven": {
        "en": "whether the {kind} of role {name} was made with this model, nobody can tell",
        "ru": "сделан ли {kind} роли {name} с этой моделью, неизвестно",
    },
    "saved": {
        "en": "saved: version {number} of role {name}, now in use",
        "ru": "сохранено: версия {number} роли {name}, теперь в работе",
    },
    "used": {
        "en": "version {number} of role {name} is in use",
        "ru": "версия {number} роли {name} в работе",
    },
    "removed": {
        "en": "version {number} of role {name} is removed",
        "ru": "версия {number} роли {name} удалена",
    },
    "all_removed": {
        "en": "all own versions of role {name} are removed",
        "ru": "все собственные версии роли {name} удалены",
    },
    "freed": {
        "en": "artefacts that nothing used any more, and that are gone: {num}",
        "ru": "удалено обученных частей, которые больше никому не нужны: {num}",
    },
    "base_unknown": {
        "en": "which model this adapter was made with, nobody says; its config names {named}. "
        "Tell it with --base MODEL: then another model is refused",
        "ru": "с какой моделью сделан этот адаптер, неизвестно; в его config назван {named}. "
        "Укажите её: --base MODEL, и чужая модель будет отвергнута",
    },
    "base_replaced": {
        "en": "the files say that the adapter was made with the model {before}…; by --base, it "
        "counts as made for {now}… from now on",
        "ru": "файлы говорят, что адаптер сделан с моделью {before}…; по --base он теперь "
        "считается сделанным для {now}…",
    },
    "license_unknown": {
        "en": "nobody says under which licence this adapter is: --license SPDX",
        "ru": "лицензия этого адаптера не указана: --license SPDX",
    },
    "no_prompt": {"en": "none", "ru": "нет"},
}


def say(key: str, language: "Language", **values: object) -> str:
    """Return a word of these views."""
    return _WORDS[key][language].format(**values)


def show_list(console: Console, rows: Sequence[Mapping[str, Any]], language: "Language") -> None:
    """Print one line a role."""
    table = Table(box=None, pad_edge=False)
    for key in ("name", "kind", "version", "artefacts", "title"):
        table.add_column(say(key, language), no_wrap=key == "name")
    for row in rows:
        if "error" in row:
            table.add_row(row["name"], "", "", "", say("broken", language, reason=row["error"]))
            continue
        has = ", ".join(say(kind, language) for kind in row["artefacts"])
        number = str(row["version"])
        table.add_row(row["name"], row["kind"], number, has, row["title"][language])
    console.print(table)


def show_role(
    console: Console,
    role: "Role",
    versions: "Sequence[RoleVersion]",
    files: Mapping[str, str],
    language: "Language",
) -> None:
    """Print a role, then its versions."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, text in _facts(role, files, language):
        if text:
            table.add_row(say(key, language), text)
    console.print(table)
    console.print()
    show_versions(console, versions, language)


def show_versions(
    console: Console, versions: "Sequence[RoleVersion]", language: "Language"
) -> None:
    """Print one line a version."""
    table = Table(box=None, pad_edge=False)
    for key in ("version", "created", "in_use", "note"):
        table.add_column(say(key, language))
    table.add_column("SHA-256")
    for version in versions:
        mark = "✓" if version.is_in_use else ""
        table.add_row(
            str(version.number), version.created, mark, version.note, version.content_hash[:12]
        )
    console.print(table)


def _facts(role: "Role", files: Mapping[str, str], language: "Language") -> list[tuple[str, str]]:
    sampling = role.sampling
    dials = {
        name: getattr(sampling, name)
        for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
    }
    steering = role.steering
    return [
        ("name", role.name),
        ("kind", role.kind),
        ("title", role.title[language]),
        ("prompt", role.prompt[language] or say("no_prompt", language)),
        ("invocation", repr(role.invocation) if role.invocation else ""),
        (
            "sampling",
            ", ".join(f"{name} {value:g}" for name, value in dials.items() if value is not None),
        ),
        ("experts", "" if role.num_experts_per_tok is None else str(role.num_experts_per_tok)),
        ("adapter", files.get("adapter", "")),
        (
            "steering",
            f"{files['steering']} × {steering.strength:g}"
            if steering and "steering" in files
            else "",
        ),
        ("probe", files.get("probe", "")),
        ("license", role.license),
        ("parents", ", ".join(parent[:12] for parent in role.parents)),
    ]
