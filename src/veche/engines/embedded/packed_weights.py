"""Weights once more, in the layout that oneDNN's kernels read: for models on a CPU.

A plain linear layer reorders its weights at each call, or reads them in a slower order: one token
through a layer takes two to three times as long as with packed weights, in bfloat16 with the same
bits (`benchmarks/single_stream.py`). torch's own compiler packs weights by the same operators.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

_BATCH_HINT = 8
_LEAST_VALUES = 1 << 16
"""A smaller weight is in the processor's cache anyway."""
_DTYPES = (torch.float32, torch.bfloat16)


class PackedWeight:
    """A weight [out, in] of a linear map, packed; its bytes come on top of the plain ones."""

    def __init__(self, weight: torch.Tensor) -> None:
        with torch.no_grad():
            self._packed = torch.ops.mkldnn._reorder_linear_weight(  # noqa: SLF001
                weight.detach(), _BATCH_HINT
            )

    def linear(self, inputs: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """Return inputs [..., in] times the weight, plus the bias, [..., out]."""
        answer: torch.Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001
            inputs, self._packed, bias, "none", [], ""
        )
        return answer


def can_pack(weight: torch.Tensor) -> bool:
    """Return whether torch can pack a weight here, and whether it is worth it."""
    if weight.device.type != "cpu" or weight.dtype not in _DTYPES:
        return False
    return weight.numel() >= _LEAST_VALUES and _works_for(weight.dtype)


def packable(model: nn.Module) -> list[nn.Linear]:
    """Return the linear layers of a model that can be packed."""
    return [
        module
        for module in model.modules()
        if type(module) is nn.Linear and can_pack(module.weight)
    ]


def pack_linear_layers(layers: Iterable[nn.Linear]) -> None:
    """Let layers compute with packed weights; their plain weights stay, and must not change."""
    for layer in layers:
        packed = PackedWeight(layer.weight)

        def forward(
            inputs: torch.Tensor, packed: PackedWeight = packed, layer: nn.Linear = layer
        ) -> torch.Tensor:
            return packed.linear(inputs, layer.bias)

        layer.forward = forward  # type: ignore[method-assign, assignment]


def _works_for(dtype: torch.dtype) -> bool:
    """Try the operators, which are torch's private ones, against the public one."""
    if dtype not in _WORKS:
        generator = torch.Generator().manual_seed(0)
        weight, inputs = (
            torch.randn(shape, generator=generator).to(dtype) for shape in ((64, 32), (3, 32))
        )
        try:
            answer = PackedWeight(weight).linear(inputs)
        except (RuntimeError, AttributeError, NotImplementedError):
            _WORKS[dtype] = False
        else:
            expected: Any = nn.functional.linear(inputs, weight)
            _WORKS[dtype] = torch.allclose(answer, expected, rtol=0.01, atol=0.01)
    return _WORKS[dtype]


_WORKS: dict[torch.dtype, bool] = {}
