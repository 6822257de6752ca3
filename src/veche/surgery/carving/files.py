"""Write the carved checkpoint: the dense tensors, taken apart and under the mixture's names.

Shape suffixes: E experts, C hidden units of an expert, S of the shared one, I = E·C + S, H model
width.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veche.checkpoint.families import Family, TensorKind, role_of
from veche.checkpoint.header import TensorInfo
from veche.checkpoint.reader import INDEX_NAME, SINGLE_NAME, WEIGHT_DTYPES, Checkpoint, read_tensor
from veche.checkpoint.writer import Chunks, TensorOut, write_index, write_shard
from veche.core.files import write_json
from veche.planning.tensors import DENSE_KINDS
from veche.surgery.carving.layer_fit import CarvedLayer
from veche.surgery.carving.source import carved_family
from veche.surgery.companions import companions_of, copy_companion

_MAX_SHARD_BYTES = 1 << 30
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
_DENSE_ONLY = (
    "layer_types",
    "max_window_layers",
    "mlp_bias",
    "pretraining_tp",
    "rope_scaling",
    "torch_dtype",
)
SHARED_GAIN = 2
"""A shared expert's gate of weight 0 gives sigmoid(0) = ½; twice `down` makes up for it exactly."""


def write_carved(
    folder: Path,
    checkpoint: Checkpoint,
    layers: Sequence[CarvedLayer],
    *,
    top_k: int,
    note: Mapping[str, Any],
) -> None:
    """Write a whole checkpoint folder of the family of mixtures; config.json comes last.

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
    _read.cache_clear()
    if len(shards) > 1:
        weight_map = {tensor.name: name for name, tensors in shards.items() for tensor in tensors}
        total = sum(tensor.num_bytes for tensors in shards.values() for tensor in tensors)
        write_index(folder / INDEX_NAME, weight_map, total)
    for file in companions_of(checkpoint.folder):
        if any(file.match(pattern) for pattern in _COMPANIONS):
            copy_companion(file, folder / file.name)
    write_json(folder / "config.json", carved_config(checkpoint, layers, top_k=top_k, note=note))


def carved_config(
    checkpoint: Checkpoint,
    layers: Sequence[CarvedLayer],
    *,
    top_k: int,
    note: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the mixture's config.json: the source's keys, with rope in both spellings."""
    spec, source = checkpoint.spec, checkpoint.config
    family = carved_family(spec)
    scaling = source.get("rope_scaling") or {"rope_type": "default"}
    rope = source.get("rope_parameters") or {**scaling, "rope_theta": spec.rope.rope_theta}
    config = {key: value for key, value in source.items() if key not in _DENSE_ONLY}
    if family.model_type != "qwen3_moe":
        config.pop("attention_bias", None)
    if spec.rope.rope_type != "default":
        config["rope_scaling"] = {key: rope[key] for key in rope if key != "rope_theta"}
    return (
        config
        | {
            "architectures": [family.architecture],
            "model_type": family.model_type,
            "dtype": spec.torch_dtype,
            "head_dim": spec.head_dim,
            "num_key_value_heads": spec.num_key_value_heads,
            "num_experts_per_tok": top_k,
            "output_router_logits": False,
            "router_aux_loss_coef": 0.001,
            "sliding_window": None,
            "rope_theta": spec.rope.rope_theta,
            "rope_parameters": rope,
            "tie_word_embeddings": spec.tie_word_embeddings,
        }
        | _expert_keys(family, layers[0])
        | {"veche": {**source.get("veche", {}), "carved": dict(note)}}
    )


def _expert_keys(family: Family, layer: CarvedLayer) -> dict[str, Any]:
    """Return what config.json says about experts, as the family's publisher spells it."""
    num_experts, width = layer.members.shape
    keys: dict[str, Any] = {
        str(family.expert_width_key): width,
        family.expert_count_key: num_experts,
    }
    if family.default_norm_topk_prob is not None:
        keys |= {"norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []}
        keys |= {"use_sliding_window": False}
    if len(layer.shared):
        keys["shared_expert_intermediate_size"] = len(layer.shared)
    if family.has_qkv_bias:
        keys["qkv_bias"] = True
    return keys


def _carved_tensors(
    checkpoint: Checkpoint, layers: Sequence[CarvedLayer], top_k: int
) -> Iterator[TensorOut]:
    """Yield the target's tensors in the source's order, each layer's router before its experts."""
    family, target = checkpoint.spec.family, carved_family(checkpoint.spec)
    for info in checkpoint.tensors.values():
        role = role_of(info.name, family)
        if role is None or role.kind not in DENSE_KINDS or role.layer is None:
            yield _tensor(info.name, info, info.shape, partial(_whole, info))
            continue
        block = _Block(
            layer=layers[role.layer],
            prefix=f"model.layers.{role.layer}.{target.moe_block}",
            kind=role.kind,
            projection=target.expert_names[DENSE_KINDS.index(role.kind)],
            top_k=top_k,
        )
        if role.kind is TensorKind.DENSE_GATE:
            yield from _routers(info, block)
        yield from _experts(info, block)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Block:
    """One projection of one layer's mixture.

    Attributes:
        layer: the division.
        prefix: of the tensors' names.
        kind: which projection it is in the dense layer.
        projection: its name in an expert.
        top_k: `down` is scaled by it, against routing weights of 1/k.
    """

    layer: CarvedLayer
    prefix: str
    kind: TensorKind
    projection: str
    top_k: int


def _routers(info: TensorInfo, block: _Block) -> Iterator[TensorOut]:
    """Yield the router and, where there is a shared expert, its gate, which is 0: always ½."""
    router = block.layer.router.numpy()
    yield _tensor(f"{block.prefix}.gate.weight", info, router.shape, lambda: router)
    if len(block.layer.shared):
        zeros = np.zeros((1, router.shape[1]), dtype=np.float32)
        yield _tensor(f"{block.prefix}.shared_expert_gate.weight", info, zeros.shape, lambda: zeros)


def _experts(info: TensorInfo, block: _Block) -> Iterator[TensorOut]:
    """Yield one projection of every expert, and of the shared one."""
    layer = block.layer
    for expert, units_C in enumerate(layer.members.numpy()):
        name = f"{block.prefix}.experts.{expert}.{block.projection}.weight"
        yield _units(name, info, block, units_C, block.top_k)
    if len(layer.shared):
        name = f"{block.prefix}.shared_expert.{block.projection}.weight"
        yield _units(name, info, block, layer.shared.numpy(), SHARED_GAIN)


def _units(
    name: str, info: TensorInfo, block: _Block, units_C: NDArray[np.int64], gain: int
) -> TensorOut:
    """Return some units' rows of `gate` or `up`, or their columns of `down` times `gain`."""
    if block.kind is not TensorKind.DENSE_DOWN:
        return _tensor(name, info, (len(units_C), info.shape[1]), partial(_rows, info, units_C))
    down = block.layer.down
    values = partial(_columns, info if down is None else down.numpy(), units_C, gain)
    return _tensor(name, info, (info.shape[0], len(units_C)), values)


def _whole(info: TensorInfo) -> NDArray[Any]:
    return read_tensor(info)


def _rows(info: TensorInfo, units_C: NDArray[np.int64]) -> NDArray[Any]:
    return _read(info)[units_C]


def _columns(
    source: TensorInfo | NDArray[Any], units_C: NDArray[np.int64], gain: int
) -> NDArray[Any]:
    down_HI = _read(source) if isinstance(source, TensorInfo) else source
    return down_HI[:, units_C].astype(np.float32) * np.float32(gain)


@lru_cache(maxsize=1)
def _read(info: TensorInfo) -> NDArray[Any]:
    """Read a tensor once for all of its experts, which are written one after the other."""
    return read_tensor(info)


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
