"""Write a role to a folder: PEFT's files, with the role's YAML and a card beside."""

import shutil
from pathlib import Path

from veche.core.files import (
    atomic_writer,
    disk_error,
    open_regular,
    partial_of,
    read_json_object,
    require_empty,
    sync_folder,
    write_text,
)
from veche.roles.objects import ADAPTER_FILES
from veche.roles.registry import Registry, artefacts_of
from veche.roles.role import Role
from veche.roles.role_card import CARD_FILE, role_card
from veche.roles.role_file import role_text

ROLE_FILE, PROBE_FOLDER = "role.yaml", "probe"


def export_role(registry: Registry, role: Role, out: Path) -> list[str]:
    """Write a role to a new folder, all or nothing; return the names of its files.

    The adapter's files lie in the folder itself, so that PEFT reads it; a steering is
    `steering.safetensors`, and a probe the folder `probe`.

    Raises:
        OutputError: the folder holds something.
        RoleError: a file of the role is missing or damaged.
        DiskError: the disk refuses.
    """
    require_empty(out, advice="name a new folder: --out")
    sources = {artefact.kind: registry.folder(artefact) for artefact in artefacts_of(role)}
    partial = partial_of(out)
    try:
        for kind, source in sources.items():
            place = partial / PROBE_FOLDER if kind == "probe" else partial
            for file in sorted(source.iterdir()):
                with open_regular(file) as original, atomic_writer(place / file.name) as copy:
                    shutil.copyfileobj(original, copy)
        card = role_card(role, base_name=base_name(sources.get("adapter")))
        write_text(partial / CARD_FILE, card)
        write_text(partial / ROLE_FILE, role_text(role))
        partial.replace(out)
        sync_folder(out.parent)
    except OSError as error:
        raise disk_error(error, out) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return sorted(file.relative_to(out).as_posix() for file in out.rglob("*") if file.is_file())


def base_name(adapter: Path | None) -> str:
    """Return what an adapter's config calls its base model; "" where it does not say."""
    if adapter is None:
        return ""
    told = read_json_object(adapter / ADAPTER_FILES[0]).get("base_model_name_or_path")
    return told if isinstance(told, str) and told.isprintable() else ""
