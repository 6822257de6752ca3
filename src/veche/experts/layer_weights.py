"""The weights of one decoder layer, part by part: heads, experts, hidden units.

Shapes: Q query heads, K key-value heads, D head_dim, H hidden size, E experts, I hidden units.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from veche.checkpoint.families import TensorKind, role_of
from veche.checkpoint.header import TensorInfo
from veche.checkpoint.reader import Checkpoint, read_tensor
from veche.experts.dormancy import column_norms
from veche.experts.growth import MlpWidth

Floats = NDArray[np.float32]
_DOWN = {
    "moe_intermediate_size": TensorKind.EXPERT_DOWN,
    "shared_expert_intermediate_size": TensorKind.SHARED_DOWN,
    "intermediate_size": TensorKind.DENSE_DOWN,
}
_INPUTS = {
    "moe_intermediate_size": (TensorKind.EXPERT_GATE, TensorKind.EXPERT_UP),
    "shared_expert_intermediate_size": (TensorKind.SHARED_GATE, TensorKind.SHARED_UP),
    "intermediate_size": (TensorKind.DENSE_GATE, TensorKind.DENSE_UP),
}
_PROBED_UNITS = 8
_Key = tuple[TensorKind, int | None, int | None]


class LayerWeights:
    """Reads a checkpoint's layers; at most one matrix of one expert is in memory at a time."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.spec = checkpoint.spec
        self._tensors: dict[_Key, TensorInfo] = {}
        for name, info in checkpoint.tensors.items():
            if (role := role_of(name, checkpoint.spec.family)) is not None:
                self._tensors[role.kind, role.layer, role.expert] = info

    def head_output_norms(self, layer: int) -> NDArray[np.float64]:
        """Return the norm of each query head's columns of o_proj, [Q]."""
        norms = column_norms(self._read(TensorKind.O, layer))
        return np.asarray(np.sqrt((norms.reshape(self.spec.num_attention_heads, -1) ** 2).sum(-1)))

    def queries(self, layer: int) -> Floats:
        """Return what each query head asks with, bias too, [Q, D · (H or H + 1)]."""
        return self._heads(layer, TensorKind.Q, TensorKind.Q_BIAS, self.spec.num_attention_heads)

    def keys_and_values(self, layer: int) -> Floats:
        """Return what each key-value head is read by, biases too, [K, 2 · D · (H or H + 1)]."""
        num_heads = self.spec.num_key_value_heads
        keys = self._heads(layer, TensorKind.K, TensorKind.K_BIAS, num_heads)
        values = self._heads(layer, TensorKind.V, TensorKind.V_BIAS, num_heads)
        return np.concatenate([keys, values], axis=-1)

    def router(self, layer: int) -> Floats:
        """Return the router's row of each expert, [E, H]."""
        return self._read(TensorKind.ROUTER, layer)

    def probes(self, layer: int) -> Floats:
        """Return the first rows of each expert's gate, by which copies are found, [E, 8 · H]."""
        fused = (TensorKind.FUSED_GATE_UP, layer, None)
        if fused in self._tensors:
            stack = read_tensor(self._tensors[fused])[:, :_PROBED_UNITS]
            return np.asarray(stack, np.float32).reshape(self.spec.num_experts, -1)
        gates = (
            read_tensor(self._tensors[TensorKind.EXPERT_GATE, layer, expert])
            for expert in range(self.spec.num_experts)
        )
        return np.stack([np.asarray(gate[:_PROBED_UNITS], np.float32).ravel() for gate in gates])

    def down(self, layer: int, expert: int) -> Floats:
        """Return an expert's down, [H, I]."""
        fused = (TensorKind.FUSED_DOWN, layer, None)
        if fused in self._tensors:
            return np.asarray(read_tensor(self._tensors[fused])[expert], np.float32)
        return self._read(TensorKind.EXPERT_DOWN, layer, expert)

    def has_width(self, layer: int, width: MlpWidth) -> bool:
        """Return whether a layer has an MLP of this width."""
        places: set[_Key] = {(_DOWN[width], layer, None)}
        if width == "moe_intermediate_size":
            places = {(_DOWN[width], layer, 0), (TensorKind.FUSED_DOWN, layer, None)}
        return not places.isdisjoint(self._tensors)

    def unit_output_norms(self, layer: int, width: MlpWidth) -> NDArray[np.float64]:
        """Return the norm of each hidden unit's column of down, [E, I]; E is 1 for one MLP."""
        return np.stack([column_norms(down) for down in self._downs(layer, width)])

    def unit_inputs(self, layer: int, width: MlpWidth, expert: int) -> Floats:
        """Return each hidden unit's rows of gate and of up, [I, 2 · H]."""
        fused = (TensorKind.FUSED_GATE_UP, layer, None)
        if width == "moe_intermediate_size" and fused in self._tensors:
            both = np.asarray(read_tensor(self._tensors[fused])[expert], np.float32)
            return np.concatenate(np.split(both, 2), axis=-1)
        own = expert if width == "moe_intermediate_size" else None
        return np.concatenate([self._read(kind, layer, own) for kind in _INPUTS[width]], axis=-1)

    def _downs(self, layer: int, width: MlpWidth) -> Iterator[Floats]:
        if width != "moe_intermediate_size":
            yield self._read(_DOWN[width], layer)
            return
        for expert in range(self.spec.num_experts):
            yield self.down(layer, expert)

    def _heads(self, layer: int, kind: TensorKind, bias: TensorKind, num_heads: int) -> Floats:
        matrix = self._read(kind, layer)
        if (bias, layer, None) in self._tensors:
            matrix = np.concatenate([matrix, self._read(bias, layer)[:, None]], axis=-1)
        return matrix.reshape(num_heads, -1)

    def _read(self, kind: TensorKind, layer: int, expert: int | None = None) -> Floats:
        return np.asarray(read_tensor(self._tensors[kind, layer, expert]), np.float32)
