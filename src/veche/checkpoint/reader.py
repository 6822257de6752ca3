"""A checkpoint folder: which tensors it holds, and their values on request."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path, PurePosixPath
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from veche.checkpoint.completeness import doubled_tensor, missing_tensor
from veche.checkpoint.config import read_config, require_unquantised, spec_of
from veche.checkpoint.header import MAX_TENSORS, TensorInfo, read_header
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
_SUFFIX = ".safetensors"
_MAX_NAME_BYTES = 200
"""Of a shard's name: file systems take 255, and a temporary name is longer."""
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
    spec = spec_of(config, where=str(folder / "config.json"))
    weight_map, shards = _files_of(folder)
    tensors = _merge(shards)
    if weight_map is not None:
        _require_agreement(folder / INDEX_NAME, weight_map, tensors)
    if missing := missing_tensor(spec, tensors):
        raise CheckpointError(
            f"{folder} has no tensor {missing!r}, and its config.json implies it",
            hint="fetch the model again, config.json and every shard",
        )
    if doubled := doubled_tensor(spec, tensors):
        raise CheckpointError(
            f"{folder} has the experts of one layer twice: fused, and {doubled!r} alone",
            hint="readers differ in which of them they use: remove the wrong ones",
        )
    return Checkpoint(folder=folder, config=config, spec=spec, tensors=tensors, shards=shards)


def shards_of(folder: Path) -> tuple[Path, ...]:
    """Return the safetensors files of a checkpoint, in order.

    Raises:
        CheckpointError: there are none, one is missing, or the weights are pickled.
    """
    return _files_of(folder)[1]


def _files_of(folder: Path) -> tuple[dict[str, str] | None, tuple[Path, ...]]:
    """Return the index's weight_map, where there is an index, and the safetensors files."""
    index, single = folder / INDEX_NAME, folder / SINGLE_NAME
    if os.path.lexists(index):
        weight_map = _weight_map(index)
        shards = tuple(_inside(folder, name) for name in sorted(set(weight_map.values())))
        if os.path.lexists(single) and single not in shards:
            raise CheckpointError(
                f"{folder} holds {SINGLE_NAME} and an index that does not name it: two models",
                hint=f"remove {SINGLE_NAME}, or {INDEX_NAME} and its shards",
            )
        return weight_map, shards
    if os.path.lexists(single):
        return None, (single,)
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


def _weight_map(index: Path) -> dict[str, str]:
    """Return the index's map from tensors to files. Its total_size is not looked at.

    Raises:
        CheckpointError: there is none, or it is no such map.
    """
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map", hint="fetch the file again")
    for tensor, name in weight_map.items():
        if not isinstance(name, str):
            raise CheckpointError(
                f"{index}: the file of tensor {tensor[:80]!r} is {str(name)[:80]!r}, not a name",
                hint="fetch the file again",
            )
    return weight_map


def read_into(file: FileIO, target: memoryview, info: TensorInfo, offset: int) -> None:
    """Fill `target` with a tensor's bytes from `offset` on; pages of the file are not mapped.

    Args:
        file: `info.file`, open and unbuffered.
        target: bytes to fill.
        info: the tensor.
        offset: of its first byte that is wanted, counted from its own first.

    Raises:
        CheckpointError: the file ends before.
    """
    position = info.start + offset
    while target:
        count = os.preadv(file.fileno(), [target], position)
        if not count:
            raise CheckpointError(
                f"{info.file} became shorter while it was read: {info.name!r} is cut off",
                hint="fetch this file again",
            )
        target, position = target[count:], position + count


def _inside(folder: Path, name: str) -> Path:
    """Join a shard's name from the index, refusing every way out of the folder.

    The name may not lead out, a symlink of that name may: the hub's cache consists of them, and
    whoever made the folder could have copied the file as well.
    """
    is_plain = PurePosixPath(name).name == name and name.isprintable() and "\\" not in name
    if not is_plain or not name.endswith(_SUFFIX) or len(name.encode()) > _MAX_NAME_BYTES:
        raise CheckpointError(
            f"{folder / INDEX_NAME} names the file {name[:80]!r}, and a shard is a {_SUFFIX} file "
            "in the index's own folder",
            hint="this index is malformed or hostile: do not use the checkpoint",
        )
    if not (folder / name).exists():
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
        if len(tensors) > MAX_TENSORS:
            raise CheckpointError(
                f"{shard.parent} has more than {MAX_TENSORS:,} tensors, as no model has",
                hint="this checkpoint is hostile: do not use it",
            )
    if not tensors:
        raise CheckpointError(
            f"{shards[0]} holds no tensor", hint="give the folder of a downloaded model"
        )
    return tensors


def _require_agreement(
    index: Path, weight_map: Mapping[str, str], tensors: Mapping[str, TensorInfo]
) -> None:
    """Refuse an index that says of a tensor what the shards' headers do not.

    Engines differ in which of the two they believe, so such a checkpoint is a different model in
    each.
    """
    for name in {**weight_map, **tensors}:
        said = weight_map.get(name)
        found = tensors[name].file.name if name in tensors else None
        if said != found:
            raise CheckpointError(
                f"{index}: tensor {name[:80]!r} is in {said or 'no file'} by the index, and in "
                f"{found or 'no file'} by the shards' headers",
                hint="index and shards are not of one model: fetch both again",
            )
