"""Which model routed: its content's hash, and where its experts are."""

from pathlib import Path

from veche.checkpoint.config import read_config, spec_of
from veche.checkpoint.identity import content_hash
from veche.core.files import sha256_of
from veche.core.progress import Progress
from veche.experts.recording import Source

_CONFIG = "config.json"


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
        identity=content_hash(path, progress=progress),
        layers=tuple(
            layer for layer in range(spec.num_hidden_layers) if spec.is_sparse_layer(layer)
        ),
        has_equal_weights=spec.has_equal_routing_weights,
    )
