"""A checkpoint folder: which tensors it holds, and their values on request."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from veche.checkpoint.config import read_config, require_unquantised, spec_of
from veche.checkpoint.header import TensorInfo, read_header
from veche.checkpoint.spec import ModelSpec
from veche.core.errors import CheckpointError, UnsupportedError
from veche.core.files import read_json_object

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
WEIGHT_DTYPES: Mapping[str, np.dtype[Any]] = {
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype(np.float16),
    "F32": np.dtype(np.float32),
}
"""The dtypes that surgery computes in, by safetensors' spelling."""
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A folder of safetensors, opened and checked.

    Attributes:
        folder: where it lies.
        config: its config.json, as parsed.
        spec: what the config says.
        tensors: every tensor by name, in the order of the shards.
        shards: the safetensors files, in order.
    """

    folder: Path
    config: Mapping[str, Any]
    spec: ModelSpec
    tensors: Mapping[str, TensorInfo]
    shards: tuple[Path, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(info.num_bytes for info in self.tensors.values())


def open_checkpoint(folder: Path) -> Checkpoint:
    """Open a checkpoint folder and check every header; no weight is read.

    Raises:
        CheckpointError: something is missing, damaged, or in a format that veche refuses.
        ConfigError: its config.json is unusable.
    """
    if not folder.is_dir():
        raise CheckpointError(
            f"{folder} is not a folder", hint="give the folder that holds config.json"
        )
    config = read_config(folder)
    require_unquantised(config, str(folder))
    shards = shards_of(folder)
    return Checkpoint(
        folder=folder,
        config=config,
        spec=spec_of(config, where=str(folder / "config.json")),
        tensors=_merge(shards),
        shards=shards,
    )


def shards_of(folder: Path) -> tuple[Path, ...]:
    """Return the safetensors files of a checkpoint, in order.

    Raises:
        CheckpointError: there are none, one is missing, or the weights are pickled.
    """
    index = folder / INDEX_NAME
    if index.is_file():
        weight_map = read_json_object(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CheckpointError(f"{index} has no weight_map", hint="fetch the file again")
        return tuple(_inside(folder, name) for name in sorted(set(map(str, weight_map.values()))))
    if (folder / SINGLE_NAME).is_file():
        return (folder / SINGLE_NAME,)
    if found := [file.name for pattern in _PICKLES for file in folder.glob(pattern)]:
        raise CheckpointError(
            f"{folder} holds pickle files ({', '.join(sorted(found)[:3])}): opening one runs "
            "whatever code is in it, so veche refuses",
            hint="convert it: huggingface.co/spaces/safetensors/convert, or use a repository "
            "that has .safetensors",
        )
    raise CheckpointError(
        f"{folder} holds neither {SINGLE_NAME} nor {INDEX_NAME}",
        hint="give the folder of a downloaded model",
    )


def read_tensor(info: TensorInfo) -> NDArray[Any]:
    """Return a tensor as a read-only array that is mapped from the file, not copied.

    Raises:
        UnsupportedError: its dtype is not one of weights.
    """
    dtype = weight_dtype(info)
    if info.num_bytes == 0:
        return np.empty(info.shape, dtype)
    raw = np.memmap(info.file, np.uint8, mode="r", offset=info.start, shape=(info.num_bytes,))
    return raw.view(dtype).reshape(info.shape)


def weight_dtype(info: TensorInfo) -> np.dtype[Any]:
    """Return a tensor's dtype.

    Raises:
        UnsupportedError: it is not one of weights.
    """
    if info.dtype not in WEIGHT_DTYPES:
        raise UnsupportedError(
            f"{info.file}: tensor {info.name!r} has dtype {info.dtype}, not one of "
            f"{', '.join(WEIGHT_DTYPES)}",
            hint="use the model's bf16, fp16 or fp32 checkpoint",
        )
    return WEIGHT_DTYPES[info.dtype]


def _inside(folder: Path, name: str) -> Path:
    """Join a shard's name from the index, refusing every way out of the folder."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or len(pure.parts) != 1 or pure.parts[0] in ("..", ".") or "\\" in name:
        raise CheckpointError(
            f"{folder / INDEX_NAME} names the file {name!r}, which is not in its own folder",
            hint="this index is malformed or hostile: do not use the checkpoint",
        )
    if not (folder / name).is_file():
        raise CheckpointError(
            f"{folder / name} is missing, and the index names it", hint="fetch this shard again"
        )
    return folder / name


def _merge(shards: tuple[Path, ...]) -> dict[str, TensorInfo]:
    tensors: dict[str, TensorInfo] = {}
    for shard in shards:
        for name, info in read_header(shard).items():
            if name in tensors:
                raise CheckpointError(
                    f"tensor {name!r} stands in {tensors[name].file} and in {shard}",
                    hint="remove the shard that does not belong to this model",
                )
            tensors[name] = info
    return tensors
