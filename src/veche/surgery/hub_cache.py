"""What the layout of the hub's cache tells of a checkpoint in it.

models--ORG--NAME/snapshots/REVISION/FILE -> ../../blobs/HASH, where a large file's HASH is its
SHA-256 (https://huggingface.co/docs/huggingface_hub/guides/manage-cache).
"""

import re
from pathlib import Path

_MODEL = re.compile(r"models--([A-Za-z0-9][\w.-]*?)--([\w.-]+)")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def hub_id_of(folder: Path) -> str:
    """Return ORG/NAME of a folder in the cache; "" elsewhere."""
    found = [match for part in folder.resolve().parts if (match := _MODEL.fullmatch(part))]
    return f"{found[-1][1]}/{found[-1][2]}" if found else ""


def told_sha256(file: Path) -> str | None:
    """Return the SHA-256 that the cache tells of a file, unread; None elsewhere.

    Whether the file still has it, `veche verify --hashes SOURCE TARGET` finds out.
    """
    blob = file.resolve()
    is_told = file.is_symlink() and blob.parent.name == "blobs" and hub_id_of(blob.parent)
    return blob.name if is_told and _SHA256.fullmatch(blob.name) else None
