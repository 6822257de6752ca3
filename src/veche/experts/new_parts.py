"""Which new heads, hidden units, experts of a grown model are asleep, by their weights.

Only weights are read, one matrix at a time; no model is loaded.

Shapes: Q query heads, E experts, I hidden units, N new parts, O old parts, K key-value heads.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from veche.checkpoint.reader import open_checkpoint
from veche.core.progress import Progress, Silent
from veche.experts.dormancy import (
    AWAKE,
    SILENT,
    THRESHOLD,
    TWIN,
    is_silent,
    nearest_distance,
    relative,
    squared_distances,
    twin_distance,
)
from veche.experts.growth import LayerCapacity, MlpWidth, NewCapacity, new_capacity
from veche.experts.layer_weights import LayerWeights
from veche.experts.sleep_states import Asleep, LayerStates, States

_OF_EXPERTS: MlpWidth = "moe_intermediate_size"


def find_asleep(
    folder: Path,
    *,
    threshold: float = THRESHOLD,
    progress: Progress | None = None,
) -> Asleep:
    """Read a grown checkpoint's weights, and tell which new parts are still asleep.

    Args:
        folder: of a checkpoint with growth.json, trained on or not.
        threshold: relative to old parts; see dormancy.THRESHOLD.
        progress: told of each layer.

    Raises:
        CheckpointError: the folder is no grown checkpoint, or is damaged.
    """
    capacity = new_capacity(folder)
    weights = LayerWeights(open_checkpoint(folder))
    layers = [layer for layer in capacity.layers if layer.heads or layer.experts or layer.units]
    references = _References(weights, capacity)
    states = []
    with (progress or Silent()).task("reading new parts", total=len(layers)) as advance:
        for layer in layers:
            judge = _Judge(weights, layer, references, threshold)
            states.append(judge.states())
            advance(1)
    return Asleep(mode=capacity.mode, threshold=threshold, layers=tuple(states))


class _References:
    """The median norm of old parts; a new layer has none, and takes the other layers' median."""

    def __init__(self, weights: LayerWeights, capacity: NewCapacity) -> None:
        self._weights = weights
        self._old = [layer for layer in capacity.layers if not layer.is_new]
        self._of_new_layers: dict[str, float] = {}

    def heads(self, norms: NDArray[np.float64], layer: LayerCapacity) -> float:
        """Return the reference of a layer's heads, whose norms are [Q]."""
        old = np.delete(norms, list(layer.heads))
        if old.size:
            return float(np.median(old))
        if "heads" not in self._of_new_layers:
            medians = [
                self.heads(self._weights.head_output_norms(other.layer), other)
                for other in self._old
            ]
            self._of_new_layers["heads"] = float(np.median(medians)) if medians else 0.0
        return self._of_new_layers["heads"]

    def units(self, norms: NDArray[np.float64], layer: LayerCapacity, width: MlpWidth) -> float:
        """Return the reference of a layer's units, whose norms are [E, I]."""
        old = norms[:, : layer.units.get(width, range(norms.shape[1], 0)).start]
        if old.size:
            return float(np.median(old))
        if width not in self._of_new_layers:
            self._of_new_layers[width] = 0.0  # of layers that have no old unit either
            medians = [
                self.units(self._weights.unit_output_norms(other.layer, width), other, width)
                for other in self._old
                if self._weights.has_width(other.layer, width)
            ]
            self._of_new_layers[width] = float(np.median(medians)) if medians else 0.0
        return self._of_new_layers[width]


class _Judge:
    """Judges the new parts of one layer."""

    def __init__(
        self,
        weights: LayerWeights,
        layer: LayerCapacity,
        references: _References,
        threshold: float,
    ) -> None:
        self._weights = weights
        self._layer = layer
        self._references = references
        self._threshold = threshold
        widths: set[MlpWidth] = {*layer.units, *([_OF_EXPERTS] if layer.experts else [])}
        self._norms = {
            width: weights.unit_output_norms(layer.layer, width) for width in sorted(widths)
        }

    def states(self) -> LayerStates:
        """Judge heads, experts and units."""
        layer = self._layer
        return LayerStates(
            layer=layer.layer,
            is_new=layer.is_new,
            heads=self._heads(),
            head_numbers=layer.heads,
            experts=self._experts(),
            expert_numbers=layer.experts,
            units={width: self._units(width) for width in layer.units},
            first_unit={width: units.start for width, units in layer.units.items()},
        )

    def _heads(self) -> States:
        new = list(self._layer.heads)
        if not new:
            return np.empty(0, np.uint8)
        norms = self._weights.head_output_norms(self._layer.layer)
        reference = self._references.heads(norms, self._layer)
        silent = is_silent(norms[new], reference, self._threshold)
        return _states(
            silent, lambda loud: self._head_distances(np.array(new)[loud]), self._threshold
        )

    def _head_distances(self, new: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return how far each head is from the nearest old one, in q, k and v together."""
        spec = self._weights.spec
        queries = self._weights.queries(self._layer.layer)
        shared = self._weights.keys_and_values(self._layer.layer)
        group_of = np.arange(spec.num_attention_heads) // spec.group_size
        old = np.delete(np.arange(spec.num_attention_heads), list(self._layer.heads))
        if not old.size:
            return np.full(len(new), np.inf)
        between_KK = squared_distances(shared, shared)
        squared_NO = squared_distances(queries[new], queries[old])
        squared_NO += between_KK[group_of[new]][:, group_of[old]]
        norms_O = (queries[old] ** 2).sum(-1) + (shared**2).sum(-1)[group_of[old]]
        return np.asarray(relative(np.sqrt(squared_NO), np.sqrt(norms_O)[None]).min(-1))

    def _experts(self) -> States:
        new = list(self._layer.experts)
        if not new:
            return np.empty(0, np.uint8)
        norms = self._norms[_OF_EXPERTS]
        unit = self._references.units(norms, self._layer, _OF_EXPERTS)
        reference = unit * math.sqrt(norms.shape[1])
        silent = is_silent(np.sqrt((norms[new] ** 2).sum(-1)), reference, self._threshold)
        return _states(
            silent, lambda loud: self._expert_distances(np.array(new)[loud]), self._threshold
        )

    def _expert_distances(self, new: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return how far each expert is from the old one that it is most like, as dormancy says."""
        layer, weights = self._layer.layer, self._weights
        router, probes = weights.router(layer), weights.probes(layer)
        old = np.delete(np.arange(len(router)), list(self._layer.experts))
        if not old.size:
            return np.full(len(new), np.inf)
        origins = old[squared_distances(probes[new], probes[old]).argmin(-1)]
        # New units inside are judged on their own, so they do not make an expert another one.
        units = self._layer.units.get(_OF_EXPERTS, range(self._norms[_OF_EXPERTS].shape[1], 0))

        def inputs(expert: int) -> NDArray[np.float32]:
            return weights.unit_inputs(layer, _OF_EXPERTS, expert)[: units.start]

        def outputs(expert: int) -> NDArray[np.float32]:
            return weights.down(layer, expert)[:, : units.start]

        distances = [
            twin_distance(
                router=(router[one], router[origin]),
                inputs=(inputs(one), inputs(origin)),
                outputs=(outputs(one), outputs(origin)),
            )
            for one, origin in zip(new.tolist(), origins.tolist(), strict=True)
        ]
        return np.array(distances)

    def _units(self, width: MlpWidth) -> States:
        new, norms = self._layer.units[width], self._norms[width]
        reference = self._references.units(norms, self._layer, width)
        states = []
        for expert, norms_I in enumerate(norms):
            silent = is_silent(norms_I[new.start :], reference, self._threshold)

            def distances(loud: NDArray[np.bool_], expert: int = expert) -> NDArray[np.float64]:
                inputs = self._weights.unit_inputs(self._layer.layer, width, expert)
                return nearest_distance(inputs[new.start :][loud], inputs[: new.start])

            states.append(_states(silent, distances, self._threshold))
        return np.stack(states)


def _states(
    silent: NDArray[np.bool_],
    distances: Callable[[NDArray[np.bool_]], NDArray[np.float64]],
    threshold: float,
) -> States:
    """Return the states; distances to old parts are asked for only where a part is not silent."""
    states = np.where(silent, SILENT, AWAKE).astype(np.uint8)
    if not silent.all():
        states[~silent] = np.where(distances(~silent) <= threshold, TWIN, AWAKE)
    return states
