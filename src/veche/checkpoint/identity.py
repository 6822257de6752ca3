"""What a checkpoint's content is called: one hash of all that decides what it computes."""

import hashlib
from pathlib import Path

from veche.core.files import sha256_of
from veche.core.progress import Progress, Silent

_OF_CONTENT = ("config.json", "tokenizer.json", "*.safetensors")
"""What decides what a folder computes of a text; chat templates and cards do not."""


def content_hash(folder: Path, *, progress: Progress | None = None) -> str:
    """Return the SHA-256 of the names and the SHA-256 of a folder's config, tokenizer and weights.

    Every byte of the weights is read once: some seconds for each 10 GB.
    """
    files = sorted({file for pattern in _OF_CONTENT for file in folder.glob(pattern)})
    digest = hashlib.sha256()
    total = sum(file.stat().st_size for file in files)
    with (progress or Silent()).task("read the model's content", total=total) as advance:
        for file in files:
            digest.update(f"{file.name}\0{sha256_of(file, advance=advance)}\n".encode())
    return digest.hexdigest()
