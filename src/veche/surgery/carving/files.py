"""Write the carved checkpoint: the dense tensors, taken apart and under Mixtral's names.

Shape suffixes: E experts, C hidden units of an expert, I = E·C, H model width.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veche.checkpoint.families import FAMILIES, role_of
from veche.checkpoint.header import TensorInfo
from veche.checkpoint.reader import INDEX_NAME, SINGLE_NAME, WEIGHT_DTYPES, Checkpoint, read_tensor
from veche.checkpoint.writer import Chunks, TensorOut, write_index, write_shard
from veche.core.files import write_json
from veche.planning.tensors import DENSE_KINDS
from veche.surgery.carving.fit import CarvedLayer

_MAX_SHARD_BYTES = 1 << 30
_MIXTRAL = FAMILIES["mixtral"]
_COMPANIONS = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template*",
    "generation_config.json",
    "LICENSE*",
    "NOTICE*",
)
_DENSE_ONLY = ("attention_bias", "mlp_bias", "pretraining_tp", "rope_scaling", "torch_dtype")


def write_carved(
    folder: Path,
    checkpoint: Checkpoint,
    layers: Sequence[CarvedLayer],
    *,
    top_k: int,
    note: Mapping[str, Any],
) -> None:
    """Write a whole Mixtral checkpoint folder; config.json comes last.

    Args:
        folder: an empty folder.
        checkpoint: the dense source.
        layers: each layer's partition and router.
        top_k: experts per token; `down` is scaled by it, against routing weights of 1/k.
        note: what config.json remembers under "veche": {"carved": …}.
    """
    shards = _shards(list(_carved_tensors(checkpoint, layers, top_k)))
    for name, tensors in shards.items():
        write_shard(folder / name, tensors, {"format": "pt"})
    if len(shards) > 1:
        weight_map = {tensor.name: name for name, tensors in shards.items() for tensor in tensors}
        total = sum(tensor.num_bytes for tensors in shards.values() for tensor in tensors)
        write_index(folder / INDEX_NAME, weight_map, total)
    for pattern in _COMPANIONS:
        for file in sorted(checkpoint.folder.glob(pattern)):
            shutil.copyfile(file, folder / file.name)
    write_json(folder / "config.json", carved_config(checkpoint, layers, top_k=top_k, note=note))


def carved_config(
    checkpoint: Checkpoint,
    layers: Sequence[CarvedLayer],
    *,
    top_k: int,
    note: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the Mixtral config.json: the source's keys, with rope in both spellings."""
    num_experts, width = layers[0].members.shape
    spec, source = checkpoint.spec, checkpoint.config
    scaling = source.get("rope_scaling") or {"rope_type": "default"}
    rope = source.get("rope_parameters") or {**scaling, "rope_theta": spec.rope.rope_theta}
    config = {key: value for key, value in source.items() if key not in _DENSE_ONLY}
    if spec.rope.rope_type != "default":
        config["rope_scaling"] = {key: rope[key] for key in rope if key != "rope_theta"}
    return config | {
        "architectures": [_MIXTRAL.architecture],
        "model_type": _MIXTRAL.model_type,
        "dtype": spec.torch_dtype,
        "head_dim": spec.head_dim,
        "num_key_value_heads": spec.num_key_value_heads,
        "intermediate_size": width,
        "num_local_experts": num_experts,
        "num_experts_per_tok": top_k,
        "output_router_logits": False,
        "router_aux_loss_coef": 0.001,
        "sliding_window": None,
        "rope_theta": spec.rope.rope_theta,
        "rope_parameters": rope,
        "tie_word_embeddings": spec.tie_word_embeddings,
        "veche": {**source.get("veche", {}), "carved": dict(note)},
    }


def _carved_tensors(
    checkpoint: Checkpoint, layers: Sequence[CarvedLayer], top_k: int
) -> Iterator[TensorOut]:
    """Yield the target's tensors in the source's order, each layer's router before its experts."""
    family = checkpoint.spec.family
    for info in checkpoint.tensors.values():
        role = role_of(info.name, family)
        if role is None or role.kind not in DENSE_KINDS or role.layer is None:
            yield _tensor(info.name, info, info.shape, partial(_whole, info))
            continue
        layer, prefix = layers[role.layer], f"model.layers.{role.layer}.{_MIXTRAL.moe_block}"
        if info.name.endswith("gate_proj.weight"):
            shape = tuple(layer.router.shape)
            yield _tensor(f"{prefix}.gate.weight", info, shape, partial(_router, layer))
        yield from _experts(info, layer, prefix, top_k)


def _experts(info: TensorInfo, layer: CarvedLayer, prefix: str, top_k: int) -> Iterator[TensorOut]:
    """Yield one projection of every expert: w1 = gate, w3 = up, w2 = down · k."""
    is_down = info.name.endswith("down_proj.weight")
    dense_names = FAMILIES["llama"].expert_names
    projection = _MIXTRAL.expert_names[dense_names.index(info.name.split(".")[-2])]
    for expert, units_C in enumerate(layer.members.numpy()):
        shape = (info.shape[0], len(units_C)) if is_down else (len(units_C), info.shape[1])
        values = (
            partial(_columns, info, units_C, top_k) if is_down else partial(_rows, info, units_C)
        )
        yield _tensor(f"{prefix}.experts.{expert}.{projection}.weight", info, shape, values)


def _whole(info: TensorInfo) -> NDArray[Any]:
    return read_tensor(info)


def _rows(info: TensorInfo, units_C: NDArray[np.int64]) -> NDArray[Any]:
    return read_tensor(info)[units_C]


def _columns(info: TensorInfo, units_C: NDArray[np.int64], top_k: int) -> NDArray[Any]:
    return read_tensor(info)[:, units_C].astype(np.float32) * np.float32(top_k)


def _router(layer: CarvedLayer) -> NDArray[Any]:
    return layer.router.numpy()


def _tensor(name: str, like: TensorInfo, shape: tuple[int, ...], values: Any) -> TensorOut:
    """Return a tensor of the source's dtype whose values are made when it is written."""

    def produce() -> Chunks:
        array = np.ascontiguousarray(values().astype(WEIGHT_DTYPES[like.dtype], copy=False))
        yield array.view(np.uint8).tobytes()

    return TensorOut(name=name, dtype=like.dtype, shape=shape, produce=produce)


def _shards(tensors: list[TensorOut]) -> dict[str, list[TensorOut]]:
    """Group tensors into files of limited size, under the hub's names."""
    groups: list[list[TensorOut]] = [[]]
    size = 0
    for tensor in tensors:
        if groups[-1] and size + tensor.num_bytes > _MAX_SHARD_BYTES:
            groups.append([])
            size = 0
        groups[-1].append(tensor)
        size += tensor.num_bytes
    if len(groups) == 1:
        return {SINGLE_NAME: groups[0]}
    return {
        f"model-{number:05d}-of-{len(groups):05d}.safetensors": group
        for number, group in enumerate(groups, start=1)
    }
