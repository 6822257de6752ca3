"""Bring a role in: its YAML, a folder that was exported, or a PEFT folder of anybody's."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from veche.checkpoint.identity import content_hash
from veche.core.errors import InputError, RoleError
from veche.core.files import read_json_object
from veche.core.language import LANGUAGES
from veche.core.progress import Progress
from veche.roles.adapter_fit import invocation_text, require_same_tokens, require_shapes
from veche.roles.objects import ADAPTER_FILES, STEERING_FILE
from veche.roles.registry import Registry, artefacts_of
from veche.roles.role import Role, RoleKind
from veche.roles.role_export import PROBE_FOLDER, ROLE_FILE, base_name
from veche.roles.role_file import is_license, is_name, read_role, require_name, version_hash
from veche.roles.versions import RoleVersion

if TYPE_CHECKING:
    from veche.engines.chat_format import ChatFormat

Statement = tuple[str, Mapping[str, str]]
"""Something that must be known of what came in: a key of a phrase, and its values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportWish:
    """What the user says of what is imported; None leaves it to the files.

    Attributes:
        name: of the role.
        kind: of a role that is new.
        base: a folder with the model that adapter and steering are for.
        invocation: text from which the adapter acts.
        license: SPDX identifier of the adapter.
        note: of the version.
    """

    name: str | None = None
    kind: RoleKind = "drafter"
    base: Path | None = None
    invocation: str | None = None
    license: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What came in.

    Attributes:
        role: as it was saved.
        version: of it.
        statements: what must be known of its adapter.
    """

    role: Role
    version: RoleVersion
    statements: tuple[Statement, ...]


def import_role(
    registry: Registry, source: Path, wish: ImportWish, *, progress: Progress | None = None
) -> Imported:
    """Bring a role in, as a new version.

    A PEFT folder becomes the adapter of the role `wish.name`, whose prompt and dials stay, or of
    a new role without a prompt. What the user says goes before what the files say.

    Raises:
        RoleError: the YAML is wrong, files are missing, or they are not what it says.
        CheckpointError: files are damaged, pickles, or of another model than `wish.base`.
        UnsupportedError: the adapter changes more than attention.
        InputError: the invocation text is not known, or does not become the adapter's tokens.
        DiskError: the disk refuses.
    """
    chat = None if wish.base is None else _chat_format(wish.base)
    if not source.is_dir():
        role = _named(read_role(source), wish)
    elif (source / ROLE_FILE).is_file():
        role = _named(read_role(source / ROLE_FILE), wish)
        _keep_beside(registry, source, role)
    else:
        role = _with_adapter(registry, source, wish, chat)
    if wish.invocation is not None:
        role = replace(role, invocation=wish.invocation)
    if role.adapter is not None:
        _require_fit(registry, role, wish, chat)
    base_hash = None if wish.base is None else content_hash(wish.base, progress=progress)
    statements = _statements(registry, role, base_hash)
    role = _made_for(role, base_hash)
    note = wish.note or f"imported from {source.resolve().name}"
    return Imported(role=role, version=registry.save(role, note=note), statements=tuple(statements))


def _named(role: Role, wish: ImportWish) -> Role:
    if wish.name is None:
        return role
    require_name(wish.name)
    return replace(role, name=wish.name)


def _keep_beside(registry: Registry, source: Path, role: Role) -> None:
    """Keep what lies beside a role's YAML; refuse what is not what the YAML says.

    What does not lie there may be in the registry already: saving finds out.
    """
    for artefact in artefacts_of(role):
        place, sign = {
            "adapter": (source, source / ADAPTER_FILES[0]),
            "steering": (source / STEERING_FILE, source / STEERING_FILE),
            "probe": (source / PROBE_FOLDER, source / PROBE_FOLDER),
        }[artefact.kind]
        if not sign.exists():
            continue
        found = registry.keep(place, artefact.kind).content_hash
        if found != artefact.content_hash:
            raise RoleError(
                f"the {artefact.kind} in {source} is {found[:12]}…, and {ROLE_FILE} says "
                f"{artefact.content_hash[:12]}…",
                hint="these files do not belong together: export the role again",
            )


def _with_adapter(
    registry: Registry, source: Path, wish: ImportWish, chat: "ChatFormat | None"
) -> Role:
    """Put an adapter into the role that is named, or into a new one."""
    folder_name = source.resolve().name
    name = wish.name or (folder_name if is_name(folder_name) else None)
    if name is None:
        raise RoleError(
            f"{str(source)!r} says no name of a role", hint="give it one: --name strict-logician"
        )
    require_name(name)
    license_ = wish.license or _license_beside(source)
    adapter = registry.keep(source, "adapter", license=license_)
    ids = _invocation_ids(registry.folder(adapter))
    invocation = "" if wish.invocation is not None else _derived(source, ids, chat)
    if name in registry.names():
        before = registry.get(name)
        parents = (version_hash(before),)
        return replace(before, adapter=adapter, invocation=invocation, parents=parents)
    return Role(
        name=name,
        kind=wish.kind,
        title=dict.fromkeys(LANGUAGES, name.replace("-", " ").capitalize()),
        prompt=dict.fromkeys(LANGUAGES, ""),
        invocation=invocation,
        adapter=adapter,
    )


def _derived(source: Path, ids: tuple[int, ...], chat: "ChatFormat | None") -> str:
    if not ids:
        return ""
    if chat is None:
        raise InputError(
            f"the adapter in {source} waits for its invocation tokens {list(ids)}, and nothing "
            "says which text becomes them",
            hint="name its model, whose tokenizer knows: --base MODEL; or the text: --invocation",
        )
    return invocation_text(ids, chat)


def _require_fit(
    registry: Registry, role: Role, wish: ImportWish, chat: "ChatFormat | None"
) -> None:
    """Refuse an adapter of another model, or one that would not find its invocation."""
    if role.adapter is None or wish.base is None or chat is None:
        return
    folder = registry.folder(role.adapter)
    require_shapes(folder, wish.base)
    if ids := _invocation_ids(folder):
        require_same_tokens(role.invocation, ids, chat)


def _invocation_ids(adapter: Path) -> tuple[int, ...]:
    return tuple(read_json_object(adapter / ADAPTER_FILES[0]).get("alora_invocation_tokens") or ())


def _license_beside(source: Path) -> str | None:
    """Return the licence that a model card in the folder says."""
    from veche.surgery.model_card import front_matter

    told = front_matter(source).get("license")
    return told if isinstance(told, str) and is_license(told) else None


def _statements(registry: Registry, role: Role, base_hash: str | None) -> list[Statement]:
    if role.adapter is None:
        return []
    said: list[Statement] = []
    before = role.adapter.base_hash
    if before is None and base_hash is None:
        named = base_name(registry.folder(role.adapter)) or "?"
        said.append(("base_unknown", {"named": named}))
    elif None not in (before, base_hash) and before != base_hash:
        said.append(("base_replaced", {"before": str(before)[:12], "now": str(base_hash)[:12]}))
    if role.adapter.license is None:
        said.append(("license_unknown", {}))
    return said


def _made_for(role: Role, base_hash: str | None) -> Role:
    """Return the role with what it has declared to be of a model."""
    if base_hash is None:
        return role
    adapter, steering = role.adapter, role.steering
    if adapter is not None:
        role = replace(role, adapter=replace(adapter, base_hash=base_hash))
    if steering is not None:
        artefact = replace(steering.artefact, base_hash=base_hash)
        role = replace(role, steering=replace(steering, artefact=artefact))
    return role


def _chat_format(base: Path) -> "ChatFormat":
    from veche.core.extras import require_extra

    require_extra("model")
    from veche.engines.chat_format import chat_format
    from veche.surgery.loading import load_tokenizer

    return chat_format(load_tokenizer(base))
