"""Which model routed: its content's hash, and where its experts are."""

import hashlib
from pathlib import Path

from veche.checkpoint.config import read_config, spec_of
from veche.core.files import sha256_of
from veche.core.progress import Progress, Silent
from veche.experts.recording import Source

_CONFIG = "config.json"
_OF_CONTENT = (_CONFIG, "tokenizer.json", "*.safetensors")
"""What decides how a folder routes a text; chat templates and cards do not."""


def source_of(model: str, *, progress: Progress | None = None) -> Source:
    """Return what is kept of a model: of a folder or a file its hash, of anything else the name.

    Every byte of the weights is read once: some seconds for each 10 GB.

    Raises:
        ConfigError: config.json is not that of a known model.
    """
    path = Path(model)
    if path.is_file():
        return Source(model=path.name, identity=sha256_of(path))
    if not (path / _CONFIG).is_file():
        return Source(model=model)
    spec = spec_of(read_config(path / _CONFIG), where=str(path / _CONFIG))
    return Source(
        model=path.resolve().name,
        identity=_identity(path, progress or Silent()),
        layers=tuple(
            layer for layer in range(spec.num_hidden_layers) if spec.is_sparse_layer(layer)
        ),
        has_equal_weights=spec.has_equal_routing_weights,
    )


def _identity(folder: Path, progress: Progress) -> str:
    """Return the SHA-256 of the names and SHA-256 of the files that decide what it computes."""
    files = sorted({file for pattern in _OF_CONTENT for file in folder.glob(pattern)})
    digest = hashlib.sha256()
    total = sum(file.stat().st_size for file in files)
    with progress.task("read the model's content", total=total) as advance:
        for file in files:
            digest.update(f"{file.name}\0{sha256_of(file, advance=advance)}\n".encode())
    return digest.hexdigest()
