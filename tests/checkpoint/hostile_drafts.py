"""Checkpoints as drafts that a test damages before they are written."""

import hashlib
import json
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
HIDDEN, VOCAB, LAYERS, EXPERTS, WIDTH, HEAD_DIM = 8, 16, 2, 2, 4, 4
LAYOUTS = [
    (family, is_fused, is_sharded)
    for family in ("qwen3_moe", "qwen2_moe", "mixtral")
    for is_fused in (False, True)
    for is_sharded in (False, True)
]
_NAMES = {"mixtral": ("w1", "w3", "w2")}
_BLOCK = {"mixtral": "block_sparse_moe"}


@dataclass(repr=False)
class Shard:
    """One safetensors file: a header that may lie, and what follows it."""

    entries: dict[str, Any] = field(default_factory=dict)
    body: bytes = b""
    raw_header: bytes | None = None
    length: int | None = None

    def text(self) -> bytes:
        if self.raw_header is not None:
            return self.raw_header
        return json.dumps(self.entries).encode()

    def bytes(self) -> bytes:
        length = len(self.text()) if self.length is None else self.length
        return struct.pack("<Q", length % 2**64) + self.text() + self.body


@dataclass(repr=False)
class Draft:
    """A checkpoint that is not written yet.

    Attributes:
        config: config.json.
        shards: files by name.
        index: the index; None for a single file.
        raw: files whose content is given outright, by name.
        after: what is done to the folder once it is written.
    """

    config: dict[str, Any]
    shards: dict[str, Shard]
    index: dict[str, Any] | None
    raw: dict[str, bytes] = field(default_factory=dict)
    after: list[Callable[[Path], None]] = field(default_factory=list)

    @property
    def weight_map(self) -> dict[str, Any]:
        assert self.index is not None
        return self.index["weight_map"]

    def write(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        contents = {name: shard.bytes() for name, shard in self.shards.items()}
        contents["config.json"] = json.dumps(self.config).encode()
        contents["tokenizer.json"] = b"{}"
        if self.index is not None:
            contents[INDEX] = json.dumps(self.index).encode()
        for name, content in (contents | self.raw).items():
            (folder / name).write_bytes(content)
        for change in self.after:
            change(folder)


def draft(family: str, *, is_fused: bool, is_sharded: bool) -> Draft:
    """Return a whole checkpoint of random weights."""
    tensors = _tensors(family, is_fused=is_fused)
    names = list(tensors)
    cut = len(names) // 2
    parts = {SHARDS[0]: names[:cut], SHARDS[1]: names[cut:]} if is_sharded else {SINGLE: names}
    shards = {file: _shard({name: tensors[name] for name in part}) for file, part in parts.items()}
    index = {
        "metadata": {"total_size": sum(tensor.nbytes for tensor in tensors.values())},
        "weight_map": {name: file for file, part in parts.items() for name in part},
    }
    return Draft(_config(family), shards, index if is_sharded else None)


def snapshot(folder: Path) -> dict[str, str]:
    """Return what lies in a folder and below it: every name, and what it is or holds."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place, name)
            if path.is_symlink():
                found[str(path)] = f"link to {path.readlink()}"
            elif path.is_file():
                size = path.stat().st_size
                short = size < 1 << 20
                found[str(path)] = (
                    hashlib.sha256(path.read_bytes()).hexdigest() if short else f"{size} bytes"
                )
            else:
                found[str(path)] = f"mode {path.stat().st_mode:o}"
    return found


def _shard(tensors: dict[str, Any]) -> Shard:
    shard, offset = Shard(entries={"__metadata__": {"format": "pt"}}), 0
    for name, tensor in tensors.items():
        end = offset + tensor.nbytes
        shape = list(tensor.shape)
        shard.entries[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, end]}
        shard.body += tensor.tobytes()
        offset = end
    return shard


def _config(family: str) -> dict[str, Any]:
    config: dict[str, Any] = {
        "model_type": family,
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": HEAD_DIM,
        "vocab_size": VOCAB,
        "max_position_embeddings": 128,
        "rope_theta": 10000.0,
        "num_experts_per_tok": 1,
        "rms_norm_eps": 1e-6,
        "torch_dtype": "float32",
    }
    if family == "mixtral":
        return config | {"intermediate_size": WIDTH, "num_local_experts": EXPERTS}
    config |= {"intermediate_size": 12, "moe_intermediate_size": WIDTH, "num_experts": EXPERTS}
    return config | ({"shared_expert_intermediate_size": 6} if family == "qwen2_moe" else {})


def _tensors(family: str, *, is_fused: bool) -> dict[str, Any]:
    shapes = {"model.embed_tokens.weight": (VOCAB, HIDDEN)}
    for layer in range(LAYERS):
        place = f"model.layers.{layer}."
        shapes |= {place + name: shape for name, shape in _layer(family, is_fused).items()}
    shapes |= {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCAB, HIDDEN)}
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def _layer(family: str, is_fused: bool) -> dict[str, tuple[int, ...]]:
    heads, kv = 2 * HEAD_DIM, HEAD_DIM
    shapes: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj.weight": (heads, HIDDEN),
        "self_attn.k_proj.weight": (kv, HIDDEN),
        "self_attn.v_proj.weight": (kv, HIDDEN),
        "self_attn.o_proj.weight": (HIDDEN, heads),
        "input_layernorm.weight": (HIDDEN,),
        "post_attention_layernorm.weight": (HIDDEN,),
    }
    if family == "qwen2_moe":
        shapes |= {f"self_attn.{p}_proj.bias": (heads if p == "q" else kv,) for p in "qkv"}
    if family == "qwen3_moe":
        shapes |= {f"self_attn.{p}_norm.weight": (HEAD_DIM,) for p in "qk"}
    block = _BLOCK.get(family, "mlp") + "."
    shapes[block + "gate.weight"] = (EXPERTS, HIDDEN)
    if is_fused:
        shapes[block + "experts.gate_up_proj"] = (EXPERTS, 2 * WIDTH, HIDDEN)
        shapes[block + "experts.down_proj"] = (EXPERTS, HIDDEN, WIDTH)
    else:
        gate, up, down = _NAMES.get(family, ("gate_proj", "up_proj", "down_proj"))
        for expert in range(EXPERTS):
            place = f"{block}experts.{expert}."
            shapes |= {f"{place}{name}.weight": (WIDTH, HIDDEN) for name in (gate, up)}
            shapes[f"{place}{down}.weight"] = (HIDDEN, WIDTH)
    if family == "qwen2_moe":
        shapes |= {f"{block}shared_expert.{p}_proj.weight": (6, HIDDEN) for p in ("gate", "up")}
        shapes[f"{block}shared_expert.down_proj.weight"] = (HIDDEN, 6)
        shapes[f"{block}shared_expert_gate.weight"] = (1, HIDDEN)
    return shapes
