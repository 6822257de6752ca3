"""What a folder's content is called: one hash of the files that decide what it computes."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

from veche.core.files import sha256_of
from veche.core.progress import Progress, Silent

_OF_CONTENT = ("config.json", "tokenizer.json", "*.safetensors")
"""What decides what a folder computes of a text; chat templates and cards do not."""


def content_hash(folder: Path, *, progress: Progress | None = None) -> str:
    """Return the hash of a checkpoint's config, tokenizer and weights.

    Every byte of the weights is read once: some seconds for each 10 GB.
    """
    files = sorted({file for pattern in _OF_CONTENT for file in folder.glob(pattern)})
    total = sum(file.stat().st_size for file in files)
    with (progress or Silent()).task("read the model's content", total=total) as advance:
        return hash_of(files, advance=advance)


def hash_of(files: Iterable[Path], *, advance: Callable[[int], None] | None = None) -> str:
    """Return the SHA-256 of the names and the SHA-256 of files, in the order given.

    Args:
        files: where they lie does not count.
        advance: called with the number of bytes read, piece by piece.
    """
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{sha256_of(file, advance=advance)}\n".encode())
    return digest.hexdigest()
