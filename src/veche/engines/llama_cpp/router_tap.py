"""Listen to a model's routers while llama.cpp evaluates its graph.

Shapes: B rows (tokens) of a batch, L layers that route, E experts, k active experts.
"""

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import mul
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veche.engines.llama_cpp.library import library, symbol
from veche.engines.protocol import Routing

_MAX_DIMENSIONS, _MAX_SOURCES, _MAX_PARAMETER_BYTES, _MAX_NAME = 4, 10, 64, 64
_IDS, _LOGITS, _ANY_WEIGHTS = "ffn_moe_topk", "ffn_moe_logits", "ffn_moe_weights"
_BESIDE = "ids beside "
"""Before a weights node's name: the ids as they still lie in memory when weights are known."""
_INTEGERS = 26
"""GGML_TYPE_I32."""
_WEIGHTS = (
    "ffn_moe_weights", "ffn_moe_weights_softmax", "ffn_moe_weights_norm", "ffn_moe_weights_scaled",
)  # fmt: skip
"""What a router's weights are called on their way; the last one that a layer has is used.

Source: llama.cpp, src/llama-graph.cpp, build_moe_ffn.
"""


class _Tensor(ctypes.Structure):
    """ggml.h's struct ggml_tensor, as far as its name."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * _MAX_DIMENSIONS),
        ("nb", ctypes.c_size_t * _MAX_DIMENSIONS),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_byte * _MAX_PARAMETER_BYTES),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * _MAX_SOURCES),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * _MAX_NAME),
    )


_NAME_OFFSET = _Tensor.name.offset


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRouting:
    """Where one token was sent: ids and weights [L, k], best expert first, and logits [L, E]."""

    expert_ids: NDArray[np.uint16]
    weights: NDArray[np.float16]
    logits: NDArray[np.float32] | None


class RouterTap:
    """llama.cpp's eval callback, which hears of every node before and after it is computed.

    NOTE: a node that is asked for is a place where evaluation stops, so as few as possible are:
    of each router its weights, beside which its ids still lie in memory, and its logits where
    they are wanted. What there is, and whether that holds, is learnt from the first evaluation.
    """

    def __init__(self) -> None:
        self.num_layers = 0
        self.num_experts = 0
        self.top_k = 0
        self.callback = library().ggml_backend_sched_eval_callback(self._on_node)
        self._read = symbol(
            "ggml_backend_tensor_get", None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t,
            ctypes.c_size_t,
        )  # fmt: skip
        self._heard: list[str] | None = None
        self._asked: dict[bytes, bool] = {}
        self._ids_address = 0
        self._layers: tuple[int, ...] = ()
        self._names: dict[str, tuple[str, ...]] = {}
        self._arrays: dict[str, NDArray[Any]] = {}

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Learn from the evaluation in the block which nodes there are."""
        self._heard = []
        try:
            yield
            self._learn(self._heard)
        finally:
            self._heard = None

    @contextmanager
    def listening(self, *, is_on: bool, logits: bool = False) -> Iterator[None]:
        """Record what routers do until the block ends, if `is_on`; their logits if asked for."""
        if is_on and self.num_layers:
            names = (*self._names["weights"], *(self._names["logits"] if logits else ()))
            early = set(self._names["ids"])  # empty where ids are read beside weights
            self._asked = {name.encode(): True for name in names}
            for layer in self._layers:
                name = f"{_IDS}-{layer}"
                self._asked[name.encode()] = name in early
        try:
            yield
        finally:
            self._asked = {}
            self._arrays.clear()

    def take(self, num_rows: int) -> list[TokenRouting]:
        """Return where the last evaluation sent each of its rows, and forget it."""
        if not self._asked:
            return []
        arrays, self._arrays = self._arrays, {}
        ids, weights, logits = (self._stacked(kind, arrays) for kind in self._names)
        assert ids is not None and weights is not None and len(ids) == num_rows  # noqa: S101, PT018
        return [
            TokenRouting(
                expert_ids=ids[row].astype(np.uint16),
                weights=weights[row].astype(np.float16),
                logits=None if logits is None else logits[row],
            )
            for row in range(num_rows)
        ]

    def joined(self, tokens: Sequence[TokenRouting], *, with_logits: bool) -> Routing | None:
        """Join one branch's tokens; None for a model without routers."""
        if not self.num_layers:
            return None
        shape = (len(tokens), self.num_layers, self.top_k)
        ids, weights = np.empty(shape, np.uint16), np.empty(shape, np.float16)
        logits = np.empty((*shape[:2], self.num_experts), np.float32) if with_logits else None
        for index, token in enumerate(tokens):
            ids[index], weights[index] = token.expert_ids, token.weights
            if logits is not None:
                logits[index] = token.logits
        return Routing(expert_ids=ids, weights=weights, num_experts=self.num_experts, logits=logits)

    def _on_node(self, address: int, is_question: bool, _: object) -> bool:
        """Answer whether a node's result is wanted, then read it."""
        if is_question:
            if self._asked:
                stops = self._asked.get(ctypes.string_at(address + _NAME_OFFSET))
                if stops is False:
                    self._ids_address = address
                return bool(stops)
            if self._heard is not None:
                self._heard.append(ctypes.string_at(address + _NAME_OFFSET).decode())
                return self._heard[-1].startswith((_LOGITS, _IDS, _ANY_WEIGHTS))
            return False
        name = ctypes.string_at(address + _NAME_OFFSET).decode()
        self._arrays[name] = self._contents(address)
        if name.startswith(_IDS):
            self._ids_address = address
        elif name.startswith(_ANY_WEIGHTS):
            self._arrays[_BESIDE + name] = self._contents(self._ids_address)
        return True

    def _contents(self, address: int) -> NDArray[Any]:
        """Return a copy of a tensor of 4-byte numbers, slowest dimension first; ids are a view."""
        tensor = _Tensor.from_address(address)
        shape, strides = tensor.ne[::-1], tensor.nb[::-1]
        num_bytes = 4 - sum(strides) + sum(map(mul, shape, strides))
        raw = bytearray(num_bytes)
        self._read(address, (ctypes.c_char * num_bytes).from_buffer(raw), 0, num_bytes)
        kind = np.int32 if tensor.type == _INTEGERS else np.float32
        return np.ndarray(shape, kind, raw, strides=strides)

    def _stacked(self, kind: str, arrays: dict[str, NDArray[Any]]) -> NDArray[Any] | None:
        found = [arrays[name] for name in self._names[kind] if name in arrays]
        if not found:
            return None
        width = self.num_experts if kind == "logits" else self.top_k
        return np.stack([array.reshape(-1, width) for array in found], axis=1)

    def _learn(self, heard: Sequence[str]) -> None:
        layers = sorted(
            int(name.removeprefix(f"{_IDS}-")) for name in heard if name.startswith(f"{_IDS}-")
        )
        weights = [
            [f"{name}-{layer}" for name in _WEIGHTS if f"{name}-{layer}" in heard]
            for layer in layers
        ]
        logits = [f"{_LOGITS}-{layer}" for layer in layers]
        if layers and all(weights) and all(name in self._arrays for name in logits):
            self.num_layers = len(layers)
            self.num_experts = int(self._arrays[logits[0]].shape[-1])
            self.top_k = int(self._arrays[f"{_IDS}-{layers[0]}"].shape[-1])
            last = [names[-1] for names in weights]
            ids, beside = [f"{_IDS}-{layer}" for layer in layers], [_BESIDE + name for name in last]
            lies_there = all(
                np.array_equal(self._arrays[one], self._arrays[other])
                for one, other in zip(ids, beside, strict=True)
            )
            self._layers = tuple(layers)
            self._names = {
                "ids": tuple(beside if lies_there else ids),
                "weights": tuple(last),
                "logits": tuple(logits),
            }
        self._arrays.clear()
