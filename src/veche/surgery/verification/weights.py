"""One layer's weights at a time, as transformers' modules take them. This file imports torch.

transformers 5 holds a layer's experts in two tensors, gate_up_proj [E, 2I, H] and down_proj
[E, H, I]; where the files keep each expert's projections apart they are read into their places.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from veche.checkpoint.families import Family, TensorKind, TensorRole, role_of
from veche.checkpoint.header import TensorInfo
from veche.checkpoint.reader import Checkpoint, read_into, weight_dtype
from veche.core.errors import CheckpointError
from veche.surgery.loading import Model

EMBEDDING, HEAD, NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
_DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
_CHUNK_BYTES = 8 << 20
_GATE_UP, _DOWN = "experts.gate_up_proj", "experts.down_proj"
_FUSED_OF = {
    TensorKind.EXPERT_GATE: _GATE_UP,
    TensorKind.EXPERT_UP: _GATE_UP,
    TensorKind.EXPERT_DOWN: _DOWN,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a stored tensor goes: a parameter of the model, or a part of one."""

    parameter: str
    role: TensorRole

    def inside(self, whole: Tensor) -> Tensor:
        """Return the part of the parameter, contiguous, sharing its memory."""
        if self.role.kind not in _FUSED_OF:
            return whole
        part = whole[self.role.expert]
        if self.role.kind is TensorKind.EXPERT_DOWN:
            return part
        return part.chunk(2)[0 if self.role.kind is TensorKind.EXPERT_GATE else 1]


def place_of(name: str, family: Family) -> Place | None:
    """Return where a stored tensor goes in a model of `family`; None if it is not known."""
    role = role_of(name, family)
    if role is None:
        return None
    parameter = name.replace(f".{family.moe_block}.", ".mlp.", 1)
    if fused := _FUSED_OF.get(role.kind):
        parameter = f"model.layers.{role.layer}.mlp.{fused}"
    return Place(parameter=parameter, role=role)


class Weights:
    """The weights of a checkpoint, read a layer at a time.

    Attributes:
        not_finite: names of the tensors, of those read so far, that hold a NaN or an infinity.
    """

    def __init__(self, checkpoint: Checkpoint, model: Model, device: torch.device) -> None:
        """Check that the files hold exactly the model's tensors, in the right shapes.

        Args:
            checkpoint: the files.
            model: the model that they are of, on the meta device.
            device: where the weights go.

        Raises:
            CheckpointError: a tensor is missing, left over, or of a wrong shape.
            UnsupportedError: a tensor has a dtype that is not one of weights.
        """
        self._checkpoint, self._device = checkpoint, device
        self._shapes = {name: value.shape for name, value in model.state_dict().items()}
        self._places = {info.name: self._place(info) for info in checkpoint.tensors.values()}
        self._require_complete(model)
        self.not_finite: dict[str, None] = {}

    @property
    def dtype(self) -> torch.dtype:
        """What the checkpoint computes in: its config's dtype, else that of its first tensor."""
        config = self._checkpoint.config
        if config.get("dtype") or config.get("torch_dtype"):
            return getattr(torch, self._checkpoint.spec.torch_dtype)  # type: ignore[no-any-return]
        return _DTYPES[next(iter(self._checkpoint.tensors.values())).dtype]

    def layer(self, layer: int, dtype: torch.dtype) -> dict[str, Tensor]:
        """Read the parameters of a layer, by their names inside it."""
        prefix = f"model.layers.{layer}."
        return {
            name.removeprefix(prefix): value for name, value in self._read(prefix, dtype).items()
        }

    def norm(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Read the final norm's parameters."""
        return {"weight": self._read(NORM, dtype)[NORM]}

    def embedded(self, tokens_T: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the embeddings of some tokens, [T, H]; no other row is read."""
        info = self._info(EMBEDDING, HEAD)
        rows = torch.empty((len(tokens_T), *info.shape[1:]), dtype=_DTYPES[info.dtype])
        unique, index_T = torch.unique(tokens_T.cpu(), return_inverse=True)
        for row, token in zip(rows, unique.tolist(), strict=False):
            self._fill(row, info, first_row=token)
        return rows[index_T].to(self._device, dtype)

    def head_rows(self, first: int, last: int, dtype: torch.dtype) -> Tensor:
        """Return lm_head's rows from `first` to before `last`, [C, H]."""
        info = self._info(HEAD, EMBEDDING)
        rows = torch.empty((last - first, *info.shape[1:]), dtype=dtype)
        self._fill(rows, info, first_row=first)
        return rows.to(self._device)

    def _info(self, name: str, tied: str) -> TensorInfo:
        """Return the tensor `name`, or the one it is tied to (stored, its own values count)."""
        return self._checkpoint.tensors.get(name) or self._checkpoint.tensors[tied]

    def _read(self, prefix: str, dtype: torch.dtype) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for name, place in self._places.items():
            if place.parameter.startswith(prefix):
                if place.parameter not in found:
                    found[place.parameter] = torch.empty(self._shapes[place.parameter], dtype=dtype)
                self._fill(place.inside(found[place.parameter]), self._checkpoint.tensors[name])
        return {name: found.pop(name).to(self._device) for name in list(found)}

    def _fill(self, out: Tensor, info: TensorInfo, *, first_row: int = 0) -> None:
        """Read a tensor, or its rows from `first_row`, into `out`, chunk by chunk."""
        stored = _DTYPES[info.dtype]
        row_bytes = stored.itemsize * math.prod(info.shape[1:])
        flat = out.view(-1)
        step = max(1, _CHUNK_BYTES // stored.itemsize)
        buffer = torch.empty(min(step, len(flat)), dtype=stored)
        with info.file.open("rb", buffering=0) as file:
            for start in range(0, len(flat), step):
                chunk = buffer[: len(flat) - start]
                view = chunk.view(torch.uint8).numpy().data
                read_into(file, view, info, first_row * row_bytes + start * stored.itemsize)
                if not chunk.isfinite().all():
                    self.not_finite[info.name] = None
                flat[start : start + len(chunk)] = chunk

    def _place(self, info: TensorInfo) -> Place:
        place = place_of(info.name, self._checkpoint.spec.family)
        if place is None or place.parameter not in self._shapes:
            raise self._error("unexpected", info.name)
        name, role = place.parameter, place.role
        weight_dtype(info)
        whole = torch.empty(self._shapes[name], device="meta")
        if role.expert is not None and role.expert >= len(whole):
            raise self._error("unexpected", info.name)
        if place.inside(whole).shape != info.shape:
            raise self._error("mismatched", info.name)
        return place

    def _require_complete(self, model: Model) -> None:
        """Refuse if a parameter is not filled, or filled twice, by what is in the files."""
        filled: dict[str, int] = {}
        for name, place in self._places.items():
            size = self._checkpoint.tensors[name].num_elements
            filled[place.parameter] = filled.get(place.parameter, 0) + size
        tied = {EMBEDDING, HEAD} if model.config.tie_word_embeddings else set()
        for name, shape in self._shapes.items():
            if name in tied and tied & filled.keys():
                continue
            if filled.get(name, 0) < shape.numel():
                raise self._error("missing", name)
            if filled[name] > shape.numel():
                raise self._error("unexpected", f"{name} (stored twice, fused and by experts)")

    def _error(self, kind: str, name: str) -> CheckpointError:
        folder: Path = self._checkpoint.folder
        return CheckpointError(
            f"{folder}: {kind} key {name}",
            hint="the weights and config.json are not of one model: build it again",
        )


def scaled_in_place(weights: Mapping[str, Tensor], gain: float, dtype: torch.dtype) -> None:
    """Multiply the experts' `down` by a gain, rounding as `expert_gain` does in the files.

    Args:
        weights: of a layer.
        gain: the factor.
        dtype: of the files, in which the product is rounded.
    """
    for name, value in weights.items():
        if gain != 1 and name.endswith(_DOWN):
            for down_HI in value:
                down_HI.copy_((down_HI.float() * gain).to(dtype))
