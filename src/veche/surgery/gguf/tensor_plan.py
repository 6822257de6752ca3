"""Source tensors → the tensors of a GGUF file: names, shapes, types, and where the rows lie."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from veche.checkpoint.families import TensorKind as Kind
from veche.checkpoint.families import TensorRole, role_of
from veche.checkpoint.header import TensorInfo
from veche.checkpoint.reader import Checkpoint
from veche.checkpoint.spec import ModelSpec
from veche.core.errors import CheckpointError, UnsupportedError
from veche.surgery.gguf.architectures import ARCHITECTURES
from veche.surgery.gguf.rope import llama3_frequency_factors

_IGNORED = ".rotary_emb.inv_freq"
"""Old checkpoints store the frequencies; engines compute them."""
_OUTSIDE = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
_NORMS = {
    "input_layernorm.weight": "attn_norm.weight",
    "post_attention_layernorm.weight": "ffn_norm.weight",
    "q_norm.weight": "attn_q_norm.weight",
    "k_norm.weight": "attn_k_norm.weight",
}
_IN_LAYER = {
    Kind.Q: "attn_q.weight", Kind.K: "attn_k.weight", Kind.V: "attn_v.weight",
    Kind.O: "attn_output.weight", Kind.Q_BIAS: "attn_q.bias", Kind.K_BIAS: "attn_k.bias",
    Kind.V_BIAS: "attn_v.bias", Kind.O_BIAS: "attn_output.bias",
    Kind.ROUTER: "ffn_gate_inp.weight", Kind.EXPERT_GATE: "ffn_gate_exps.weight",
    Kind.EXPERT_UP: "ffn_up_exps.weight", Kind.EXPERT_DOWN: "ffn_down_exps.weight",
    Kind.FUSED_DOWN: "ffn_down_exps.weight", Kind.SHARED_ROUTER: "ffn_gate_inp_shexp.weight",
    Kind.SHARED_GATE: "ffn_gate_shexp.weight", Kind.SHARED_UP: "ffn_up_shexp.weight",
    Kind.SHARED_DOWN: "ffn_down_shexp.weight", Kind.DENSE_GATE: "ffn_gate.weight",
    Kind.DENSE_UP: "ffn_up.weight", Kind.DENSE_DOWN: "ffn_down.weight",
}  # fmt: skip
_FUSED_HALVES = ("ffn_gate_exps.weight", "ffn_up_exps.weight")
_TURNED = {Kind.Q, Kind.K, Kind.Q_BIAS, Kind.K_BIAS}
_ALWAYS_F32 = ("_norm.weight", "ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A run of rows of a source tensor; its leading dimensions count as one.

    Attributes:
        info: the source tensor.
        start: its first row.
        stop: the row after its last.
        head_dim: given where rows must be reordered for rope, see `neighbours_from_halves`.
    """

    info: TensorInfo
    start: int
    stop: int
    head_dim: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufTensor:
    """A tensor of the file.

    Attributes:
        name: llama.cpp's.
        shape: slowest dimension first, as in numpy; GGUF stores it the other way round.
        type: of its values: F32, F16, BF16 or Q8_0.
        parts: the source rows that it consists of, in order.
        values: its values, where they are computed rather than read.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    parts: tuple[Part, ...] = ()
    values: NDArray[np.float32] | None = None

    @property
    def columns(self) -> int:
        """Values in a row."""
        return self.shape[-1]

    @property
    def num_elements(self) -> int:
        """Values in all."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Piece:
    """What one source tensor gives to one GGUF tensor; experts are put in order by `expert`."""

    part: Part
    expert: int
    shape: tuple[int, ...]
    """Of this piece alone, without the dimension of experts unless it brings it."""


def plan_tensors(checkpoint: Checkpoint, weight_type: str) -> tuple[GgufTensor, ...]:
    """Return the tensors of the file, in the order in which a token meets them.

    Args:
        checkpoint: a model that `require_exportable` let pass.
        weight_type: F32, F16, BF16 or Q8_0, of matrices; vectors, norms and routers are F32.

    Raises:
        UnsupportedError: the source has a tensor that llama.cpp has no place for.
        CheckpointError: experts are missing.
    """
    spec = checkpoint.spec
    pieces: dict[str, list[_Piece]] = defaultdict(list)
    for info in checkpoint.tensors.values():
        for name, piece in _pieces(info, spec):
            pieces[name].append(piece)
    tensors = [_tensor(name, found, spec, weight_type) for name, found in pieces.items()]
    tensors += _repeated_output(tensors, spec)
    if spec.rope.rope_type == "llama3":
        factors = llama3_frequency_factors(spec, checkpoint.config)
        tensors.append(
            GgufTensor(name="rope_freqs.weight", shape=factors.shape, type="F32", values=factors)
        )
    return tuple(sorted(tensors, key=_place))


def _pieces(info: TensorInfo, spec: ModelSpec) -> Iterator[tuple[str, _Piece]]:
    if info.name.endswith(_IGNORED):
        return
    role = role_of(info.name, spec.family)
    architecture = ARCHITECTURES[spec.model_type]
    if role is None or (role.kind is Kind.O_BIAS and not architecture.has_output_bias):
        raise UnsupportedError(
            f"{info.file}: llama.cpp's {architecture.name} has no place for tensor {info.name!r} "
            f"of shape {list(info.shape)}",
            hint="remove it if it is not a part of the model; else use an engine that reads "
            "safetensors: veche launch MODEL --engine vllm",
        )
    if role.kind is Kind.LM_HEAD and spec.tie_word_embeddings:
        return  # transformers does not read it either
    rows = _num_rows(info)
    if role.kind is Kind.FUSED_GATE_UP:
        yield from _halves(info, role)
        return
    turn = spec.head_dim if architecture.rotates_pairs and role.kind in _TURNED else None
    part = Part(info=info, start=0, stop=rows, head_dim=turn)
    shape = info.shape
    if role.kind is Kind.SHARED_ROUTER:
        shape = (info.num_elements,)
    yield _name(info, role), _Piece(part=part, expert=role.expert or 0, shape=shape)


def _halves(info: TensorInfo, role: TensorRole) -> Iterator[tuple[str, _Piece]]:
    """Split a fused stack (experts, gate | up, hidden) into its two halves, expert by expert."""
    if len(info.shape) != 3 or info.shape[1] % 2:
        raise CheckpointError(
            f"{info.file}: tensor {info.name!r} has shape {list(info.shape)}, not (experts, 2 · "
            "width, hidden_size)",
            hint="convert the checkpoint again with a recent transformers",
        )
    num_experts, both, columns = info.shape
    width = both // 2
    for half, name in enumerate(_FUSED_HALVES):
        for expert in range(num_experts):
            start = expert * both + half * width
            part = Part(info=info, start=start, stop=start + width)
            yield (
                f"blk.{role.layer}.{name}",
                _Piece(part=part, expert=expert, shape=(width, columns)),
            )


def _name(info: TensorInfo, role: TensorRole) -> str:
    if role.layer is None:
        return _OUTSIDE[info.name]
    if role.kind in (Kind.NORM, Kind.QK_NORM):
        ending = ".".join(info.name.split(".")[-2:])
        return f"blk.{role.layer}.{_NORMS[ending]}"
    return f"blk.{role.layer}.{_IN_LAYER[role.kind]}"


def _num_rows(info: TensorInfo) -> int:
    return int(np.prod(info.shape[:-1], dtype=np.int64)) if len(info.shape) > 1 else 1


def _tensor(name: str, pieces: list[_Piece], spec: ModelSpec, weight_type: str) -> GgufTensor:
    pieces = sorted(pieces, key=lambda piece: piece.expert)
    first = pieces[0]
    shape = first.shape
    if "_exps." in name and len(shape) == 2:
        experts = [piece.expert for piece in pieces]
        if experts != list(range(spec.num_experts)) or {p.shape for p in pieces} != {shape}:
            raise CheckpointError(
                f"{first.part.info.file}: {name} needs the same matrix of each of "
                f"{spec.num_experts} experts, and {len(set(experts))} are there, of shapes "
                f"{sorted({p.shape for p in pieces})}",
                hint="fetch the missing shards again",
            )
        shape = (spec.num_experts, *shape)
    elif len(pieces) > 1:
        names = ", ".join(repr(piece.part.info.name) for piece in pieces)
        raise CheckpointError(f"{names} are one and the same tensor", hint="remove all but one")
    parts = tuple(piece.part for piece in pieces)
    return GgufTensor(name=name, shape=shape, type=_type(name, shape, weight_type), parts=parts)


def _type(name: str, shape: tuple[int, ...], weight_type: str) -> str:
    """Return the type as llama.cpp's converter chooses it (ModelBase.prepare_tensors).

    Vectors, norms and routers are F32; a row that Q8_0's blocks of 32 do not divide is F16.
    """
    if len(shape) == 1 or name.endswith(_ALWAYS_F32):
        return "F32"
    if weight_type == "Q8_0" and shape[-1] % 32:
        return "F16"
    return weight_type


def _repeated_output(tensors: list[GgufTensor], spec: ModelSpec) -> list[GgufTensor]:
    """Return the embedding as output.weight, where llama.cpp does not tie the two by itself."""
    if not spec.tie_word_embeddings or ARCHITECTURES[spec.model_type].ties_output:
        return []
    embedding = [tensor for tensor in tensors if tensor.name == "token_embd.weight"]
    return [replace(tensor, name="output.weight") for tensor in embedding]


def _place(tensor: GgufTensor) -> tuple[int, str]:
    if tensor.name.startswith("blk."):
        return int(tensor.name.split(".")[1]), tensor.name
    return (10**6 if tensor.name.startswith("output") else -1), tensor.name
