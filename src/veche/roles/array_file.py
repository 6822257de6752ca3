"""Named arrays in one safetensors file that says of which format it is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veche.core.errors import CheckpointError, MissingExtraError


def array_bytes(arrays: Mapping[str, NDArray[Any]], *, format: str) -> bytes:  # noqa: A002
    """Return the file's content.

    Raises:
        MissingExtraError: safetensors is not installed.
    """
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    raw: bytes = _safetensors().save(whole, metadata={"format": format})
    return raw


def read_arrays(
    path: Path,
    *,
    format: str,  # noqa: A002
    hint: str,
) -> dict[str, NDArray[Any]]:
    """Return the arrays of a file, by name.

    Args:
        path: the file.
        format: that it must be of.
        hint: what to do where it is damaged.

    Raises:
        CheckpointError: it is missing, damaged, or of another format.
        MissingExtraError: safetensors is not installed.
    """
    _safetensors()
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise CheckpointError(f"{path} does not exist", hint=hint)
    try:
        with safe_open(path, framework="numpy") as file:
            if (file.metadata() or {}).get("format") != format:
                raise CheckpointError(f"{path} is no {format} of veche", hint=hint)
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, TypeError, AttributeError) as error:
        # numpy lacks types that safetensors has: bfloat16 is a TypeError, float8 the other one
        raise damaged(path, str(error).splitlines()[0], hint) from error


def damaged(path: Path, reason: str, hint: str) -> CheckpointError:
    """Return the error of a file that does not hold what it should."""
    return CheckpointError(f"{path} is damaged: {reason}", hint=hint)


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise MissingExtraError("safetensors", "probe") from error
    return safetensors.numpy
