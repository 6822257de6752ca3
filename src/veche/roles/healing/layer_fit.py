"""Heal a layer at a time, by regression: no gradient passes through the model.

Shape suffixes: W windows, T tokens in a window, N = W·T, H hidden size, E experts, I all hidden
units of a layer's experts, U those that are refitted. This file imports torch.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from veche.core.errors import FailureError
from veche.core.progress import Progress
from veche.experts.growth import LayerCapacity, MlpWidth
from veche.roles.healing.lesson import Lesson
from veche.roles.healing.settings import Part
from veche.surgery.carving.fit import attend, normed
from veche.surgery.carving.layer_fit import ROUTER_SPREAD
from veche.surgery.carving.partition import kept_experts, unit_energies
from veche.surgery.carving.refit import refit_down
from veche.surgery.carving.router_fit import RidgeRouter, refine_router, scale_router
from veche.surgery.loading import Model

_UNITS: MlpWidth = "moe_intermediate_size"
MOST_UNITS = 8192
"""Of a layer, over all experts: the regression solves a system of so many unknowns."""
_ROWS = 4096


def can_fit(lesson: Lesson, parts: Sequence[Part]) -> bool:
    """Whether layers can be fitted: experts are trained, and a layer's units are not too many.

    Layers are fitted to the teacher's, one by one: these must be as many, and as wide.
    """
    spec, source = lesson.spec, lesson.teacher_spec
    old = (
        spec.num_hidden_layers
        if lesson.capacity is None
        else sum(not layer.is_new for layer in lesson.capacity.layers)
    )
    if (source.hidden_size, source.num_hidden_layers) != (spec.hidden_size, old):
        return False
    width = spec.moe_intermediate_size or 0
    has_new = lesson.capacity is not None and any(
        layer.experts or _UNITS in layer.units for layer in lesson.capacity.layers
    )
    is_chosen = (
        "experts" in parts
        or ("routers" in parts and _ranks_alone(lesson))
        or ("new" in parts and has_new)
    )
    return is_chosen and 0 < spec.num_experts * width <= MOST_UNITS


@torch.no_grad()
def fit_layers(
    teacher: Model,
    student: Model,
    tokens_WT: Tensor,
    lesson: Lesson,
    parts: Sequence[Part],
    *,
    seed: int,
    progress: Progress,
) -> dict[str, Tensor]:
    """Fit routers and experts of every layer in place, and return the parameters that moved.

    Both models read the text, the student with the layers healed so far. Where routing weights are
    equal, the router is fitted to the experts' contributions at the student's own k; then `down` is
    refitted so that the layer's output leads back to the teacher's residual stream.

    NOTE: a layer's input is what the healed layers before it give, so each fit sees, and answers,
    the errors made so far.

    Args:
        teacher: as it is.
        student: with its dials turned.
        tokens_WT: text.
        lesson: which layers of the student are new; these stay.
        parts: "routers", "experts", "new"; others are not looked at.
        seed: of the routers' refinement.
        progress: told of each layer.

    Raises:
        FailureError: hidden states are not numbers.
    """
    streams = [_Stream(model, tokens_WT) for model in (teacher, student)]
    source = iter(teacher.model.layers)
    capacities: Sequence[LayerCapacity | None] = [None] * len(student.model.layers)
    if lesson.capacity is not None:
        capacities = lesson.capacity.layers
    moved: dict[str, Tensor] = {}
    with progress.task("fit layers", len(student.model.layers)) as advance:
        for index, layer in enumerate(student.model.layers):
            capacity = capacities[index]
            if capacity is not None and capacity.is_new:
                streams[1].attend(layer)
                streams[1].feed(layer)
            else:
                original = next(source)
                streams[0].attend(original)
                streams[0].feed(original)
                streams[1].attend(layer)
                if hasattr(layer.mlp, "experts"):
                    fit = _LayerFit(layer, streams[1], streams[0].hidden_WTH.flatten(0, 1))
                    for name, value in fit.run(lesson, parts, capacity, seed).items():
                        moved[f"model.layers.{index}.mlp.{name}"] = value
                streams[1].feed(layer)
            advance(1)
    return moved


def _ranks_alone(lesson: Lesson) -> bool:
    return lesson.spec.has_equal_routing_weights and lesson.has_fewer_experts


class _Stream:
    """A model's residual stream over all windows, in float32."""

    def __init__(self, model: Model, tokens_WT: Tensor) -> None:
        core = model.model
        self.dtype = model.dtype
        hidden_WTH = core.embed_tokens(tokens_WT)
        positions_1T = torch.arange(tokens_WT.shape[1], device=tokens_WT.device)[None]
        self._rotary = core.rotary_emb(hidden_WTH, positions_1T)
        self.hidden_WTH = hidden_WTH.float()

    def attend(self, layer: Any) -> None:
        """Pass the layer's attention."""
        self.hidden_WTH = attend(layer, self.hidden_WTH, self._rotary, self.dtype)

    def feed(self, layer: Any) -> None:
        """Pass what comes after it."""
        inputs_WTH = normed(layer, self.hidden_WTH, self.dtype)
        parts = [
            _output(layer.mlp(part[None])) for part in torch.split(inputs_WTH.flatten(0, 1), _ROWS)
        ]
        self.hidden_WTH = self.hidden_WTH + torch.cat(parts, dim=1).view_as(self.hidden_WTH)


def _output(given: Any) -> Tensor:
    """Return a block's output, where some families give router logits besides."""
    output: Tensor = given[0] if isinstance(given, tuple) else given
    return output


class _LayerFit:
    """One layer's regression."""

    def __init__(self, layer: Any, stream: _Stream, teacher_NH: Tensor) -> None:
        self._block, self._teacher_NH = layer.mlp, teacher_NH
        self._residual_NH = stream.hidden_WTH.flatten(0, 1)
        self._inputs_NH = normed(layer, self._residual_NH, stream.dtype)
        self._experts = layer.mlp.experts
        parts = [self._activations(part) for part in torch.split(self._inputs_NH, _ROWS)]
        self._activations_NI = torch.cat(parts)
        self._weight_N = 1 / teacher_NH.square().sum(dim=1)
        is_sound = self._weight_N.isfinite().all() and self._residual_NH.isfinite().all()
        if not is_sound:
            raise FailureError(
                "hidden states are NaN or infinite on this text: a weight is damaged, or the dial "
                "is turned too far",
                hint="check the model with `veche verify`, or turn the dial less",
            )

    def run(
        self, lesson: Lesson, parts: Sequence[Part], capacity: LayerCapacity | None, seed: int
    ) -> dict[str, Tensor]:
        """Fit what is asked for, in place; return what moved."""
        moved = {}
        top_k = lesson.spec.num_experts_per_tok
        if "routers" in parts and _ranks_alone(lesson):
            self._fit_router(top_k, seed)
            moved["gate.weight"] = self._block.gate.weight
        chosen_I = self._chosen(parts, capacity)
        if chosen_I.any():
            self._refit(chosen_I)
            moved["experts.down_proj"] = self._experts.down_proj
        return moved

    def _activations(self, inputs_BH: Tensor) -> Tensor:
        gate_up = self._experts.gate_up_proj
        both = torch.nn.functional.linear(inputs_BH, gate_up.reshape(-1, gate_up.shape[-1]))
        gate, up = both.view(len(inputs_BH), len(gate_up), -1).chunk(2, dim=-1)
        activations_BI: Tensor = (self._experts.act_fn(gate) * up).flatten(1)
        return activations_BI

    @property
    def _down(self) -> Tensor:
        """All experts' `down` side by side, [H, I], in float32."""
        down_EHC = self._experts.down_proj
        flat: Tensor = down_EHC.transpose(1, 2).reshape(-1, down_EHC.shape[1]).T.float()
        return flat

    def _fit_router(self, top_k: int, seed: int) -> None:
        """Fit the ranking at this k; the old router stays where it keeps more."""
        old_EH, inputs_NH = self._block.gate.weight, self._inputs_NH.float()
        down_HI = self._down
        energies = [
            unit_energies(part.float(), down_HI, weight_B).view(len(part), len(old_EH), -1).sum(-1)
            for part, weight_B in zip(
                torch.split(self._activations_NI, _ROWS),
                torch.split(self._weight_N, _ROWS),
                strict=True,
            )
        ]
        energies_NE = torch.cat(energies)
        fitted_EH = refine_router(
            RidgeRouter(inputs_NH).weight(energies_NE), inputs_NH, energies_NE, top_k, seed=seed
        )
        kept = [
            float((energies_NE * kept_experts(inputs_NH @ weight_EH.float().T, top_k)).sum())
            for weight_EH in (old_EH, fitted_EH)
        ]
        if kept[1] > kept[0]:
            old_EH.copy_(scale_router(fitted_EH, inputs_NH, ROUTER_SPREAD))

    def _chosen(self, parts: Sequence[Part], capacity: LayerCapacity | None) -> Tensor:
        """Return which units are refitted, [I]: all of them, the new ones, or none."""
        num_experts, _, width = self._experts.down_proj.shape
        chosen_EC = torch.zeros(num_experts, width, dtype=torch.bool)
        if "experts" in parts:
            chosen_EC.fill_(True)
        elif "new" in parts and capacity is not None:
            chosen_EC[list(capacity.experts)] = True
            chosen_EC[:, list(capacity.units.get(_UNITS, range(0)))] = True
        return chosen_EC.flatten().to(self._experts.down_proj.device)

    def _refit(self, chosen_I: Tensor) -> None:
        """Refit the columns of `down` that are chosen; the others give what they gave."""
        down_HI, down_EHC = self._down, self._experts.down_proj
        _, weights_NK, experts_NK = self._block.gate(self._inputs_NH)
        weights_NE = weights_NK.new_zeros(len(self._inputs_NH), len(down_EHC))
        weights_NE = weights_NE.scatter(1, experts_NK, weights_NK).to(self._activations_NI.dtype)
        kept_NI = self._activations_NI.view(len(weights_NE), len(down_EHC), -1)
        kept_NI = (kept_NI * weights_NE[:, :, None]).flatten(1)
        missing_NH = self._teacher_NH - self._residual_NH - self._shared()
        if not chosen_I.all():
            others_I = ~chosen_I
            others_HU = down_HI[:, others_I].to(kept_NI.dtype)
            missing_NH = missing_NH - (kept_NI[:, others_I] @ others_HU.T).float()
            kept_NI = kept_NI[:, chosen_I]
        refitted_HI = down_HI.clone()
        refitted_HI[:, chosen_I] = refit_down(
            kept_NI, down_HI[:, chosen_I], missing_NH, self._weight_N
        )
        down_EHC.copy_(refitted_HI.T.reshape(len(down_EHC), -1, down_EHC.shape[1]).transpose(1, 2))

    def _shared(self) -> Tensor | float:
        """Return what the expert that every token passes gives, which is not refitted."""
        shared = getattr(self._block, "shared_expert", None)
        if shared is None:
            return 0.0
        inputs_NH = self._inputs_NH
        gate_N1 = torch.sigmoid(self._block.shared_expert_gate(inputs_NH))
        output_NH: Tensor = (gate_N1 * shared(inputs_NH)).float()
        return output_NH
