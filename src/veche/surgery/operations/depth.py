"""Insert layers that pass their input through: copies of a neighbour whose outputs are zero."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from veche.checkpoint.families import TensorKind, TensorRole
from veche.planning.depth import LayerPlace, layer_layout
from veche.planning.feasibility import FEASIBLE
from veche.surgery.operations.lazy import LazyTensor, zeros_like
from veche.surgery.operations.operation import Growth, Operation

_OUTPUTS = (
    TensorKind.O,
    TensorKind.O_BIAS,
    TensorKind.EXPERT_DOWN,
    TensorKind.FUSED_DOWN,
    TensorKind.SHARED_DOWN,
    TensorKind.DENSE_DOWN,
)
"""All that a layer adds to the residual stream goes through one of these."""


def _layout(growth: Growth) -> tuple[LayerPlace, ...]:
    return layer_layout(growth.base.num_hidden_layers, growth.target.num_hidden_layers)


def _places(role: TensorRole, growth: Growth) -> tuple[TensorRole, ...]:
    """Give a layer's tensors to all the layers that stand for it."""
    if role.layer is None:
        return (role,)
    return tuple(
        replace(role, layer=layer)
        for layer, place in enumerate(_layout(growth))
        if place.source == role.layer
    )


def _silenced(tensor: LazyTensor, role: TensorRole, growth: Growth) -> LazyTensor:
    """Make what a new layer adds zero."""
    is_new = _layout(growth)[role.layer or 0].is_new
    return zeros_like(tensor) if is_new else tensor


def _record(growth: Growth) -> Mapping[str, Any]:
    layout = _layout(growth)
    return {
        "layers": {
            "new": [layer for layer, place in enumerate(layout) if place.is_new],
            "source": [place.source for place in layout],
        },
        "how": "silent: o_proj and every down_proj are zero",
    }


DEPTH = Operation(
    name="depth",
    law=(
        "x + attention(x) + mlp(x) = x where o_proj and every down_proj are zero: a new layer "
        "hands the residual stream on"
    ),
    reference_url="https://arxiv.org/abs/2401.02415",
    feasibility="any larger number of layers",
    require_feasible=FEASIBLE["depth"],
    transforms=dict.fromkeys(_OUTPUTS, _silenced),
    places=_places,
    record=_record,
)
