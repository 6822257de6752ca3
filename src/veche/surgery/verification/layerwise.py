"""The long form: both models layer by layer, one layer's weights in memory at a time.

Legend: W windows, T tokens, N predictions, H hidden size, V vocabulary, C a part of it, E experts.
The states are the residual streams, [1, T, H] for each window of each variant. This file imports
torch.
"""

import json
from dataclasses import dataclass

import torch
from torch import Tensor

from veche.checkpoint.reader import open_checkpoint
from veche.checkpoint.spec import ModelSpec
from veche.core.errors import CheckpointError
from veche.core.progress import Advance
from veche.planning.depth import LayerPlace, layer_layout
from veche.surgery.verification.bench import Bench
from veche.surgery.verification.compare import Comparison, largest, relative_error
from veche.surgery.verification.figures import LayerError
from veche.surgery.verification.predictions import compare_predictions
from veche.surgery.verification.shell import Shell
from veche.surgery.verification.variants import Pair, Side, Variant
from veche.surgery.verification.weights import Weights, scaled_in_place

NEAR_TIE = 1e-5
"""Gap of two router logits, in parts of the largest, that two orders of summation may turn."""
_FP32 = torch.float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Walked:
    """What the walk saw.

    Attributes:
        comparisons: of the experiment's pairs, by name.
        layers: embedding, layers, norm and head.
        not_finite: tensors of the grown model that hold a NaN or an infinity.
    """

    comparisons: dict[str, Comparison]
    layers: tuple[LayerError, ...]
    not_finite: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Forced:
    """A source's layer in float32: what went in, what came out, and what that is worth.

    Attributes:
        before: the source's own stream before the layer, [T, H].
        after: the same after it.
        floor: largest relative error of a token under another attention implementation.
        is_near_tie: tokens for which rounding may turn the routing.
    """

    before: Tensor
    after: Tensor
    floor: float
    is_near_tie: Tensor


def num_steps(source: ModelSpec, target: ModelSpec) -> int:
    """Return how often `walk` advances."""
    return source.num_hidden_layers + target.num_hidden_layers + 1


def walk(bench: Bench, advance: Advance) -> Walked:
    """Run every variant through both checkpoints in one pass over their files.

    NOTE: at most one layer's weights are in memory: in the checkpoint's dtype for its variants,
    then, read again, in float32. A layer of the source is followed by those of the target that
    stand for it, so the streams that are compared are always of the same depth.

    Args:
        bench: what to run, on what.
        advance: called with 1 for each layer of either model, and for the head.

    Raises:
        CheckpointError: a tensor is missing, left over, of a wrong shape, or not finite in the
            source.
    """
    walker = _Walker(bench)
    layers = [walker.embed()]
    layout = layer_layout(walker.num_layers("source"), walker.num_layers("target"))
    for layer in range(walker.num_layers("source")):
        forced = walker.source_layer(layer)
        advance(1)
        for index, place in enumerate(layout):
            if place.source == layer:
                layers.append(walker.target_layer(index, place, forced))
                advance(1)
    layers.append(walker.norm())
    comparisons, head = walker.head()
    advance(1)
    walker.require_finite_source()
    return Walked(
        comparisons=comparisons, layers=(*layers, head), not_finite=walker.not_finite_in_target
    )


class _Walker:
    """The streams of all variants, and how to bring them one layer further."""

    def __init__(self, bench: Bench) -> None:
        experiment, device = bench.experiment, bench.device
        self._experiment, self._device = experiment, device
        self._tokens_WT = bench.tokens_of(is_fp32=False)
        self._fp32_WT = bench.tokens_of(is_fp32=True)
        self._folders = bench.folders
        self._known: dict[str, Shell] = {}
        self._shells = {name: self._shell(v) for name, v in experiment.variants.items()}
        forced = experiment.variants[self._pair("fp32").reference]
        self._gain = forced.gain
        self._eager = self._shell(Variant(side="source", changes=forced.changes, attention="eager"))
        self._weights: dict[Side, Weights] = {
            side: Weights(open_checkpoint(folder), self._any_shell(side).model, device)
            for side, folder in self._folders.items()
        }
        self._states: dict[str, list[Tensor]] = {}

    def num_layers(self, side: Side) -> int:
        """Return the depth of a model."""
        return len(self._any_shell(side).model.model.layers)

    def embed(self) -> LayerError:
        """Start every stream with its embeddings."""
        found: dict[tuple[Side, bool], list[Tensor]] = {}
        for name, variant in self._experiment.variants.items():
            key = (variant.side, variant.is_fp32)
            if key not in found:
                tokens_WT = self._fp32_WT if variant.is_fp32 else self._tokens_WT
                weights, dtype = self._weights[variant.side], self._dtype(variant)
                found[key] = [weights.embedded(tokens_T, dtype)[None] for tokens_T in tokens_WT]
            self._states[name] = found[key]
        fp32 = self._pair("fp32")
        own_T = relative_error(self._states[fp32.other][0][0], self._states[fp32.reference][0][0])
        return self._layer_error("model.embed_tokens", "model.embed_tokens", own_T)

    def source_layer(self, layer: int) -> _Forced:
        """Bring the source's variants through a layer."""
        self._run("source", layer)
        name = self._pair("fp32").reference
        weights = self._weights["source"].layer(layer, _FP32)
        scaled_in_place(weights, self._gain, self._dtype_of("source"))
        before_1TH, shell = self._states[name][0], self._shells[name]
        with shell.routing(layer) as routing:
            after_1TH = shell.layer(layer, weights, before_1TH)
        other_1TH = self._eager.layer(layer, weights, before_1TH)
        self._states[name] = [after_1TH]
        is_near_tie_T = torch.zeros(before_1TH.shape[1], dtype=torch.bool, device=self._device)
        for logits_TE, chosen_TK in routing:
            is_near_tie_T = near_ties(logits_TE, chosen_TK.shape[-1])
        floor_T = relative_error(other_1TH[0], after_1TH[0])
        return _Forced(
            before=before_1TH[0],
            after=after_1TH[0],
            floor=largest(floor_T[~is_near_tie_T]),
            is_near_tie=is_near_tie_T,
        )

    def target_layer(self, layer: int, place: LayerPlace, forced: _Forced) -> LayerError:
        """Bring the target's variants through a layer, and judge it on the source's stream."""
        self._run("target", layer)
        name = self._pair("fp32").other
        weights, shell = self._weights["target"].layer(layer, _FP32), self._shells[name]
        self._states[name] = [shell.layer(layer, weights, self._states[name][0])]
        input_TH = forced.after if place.is_new else forced.before
        with shell.routing(layer) as routing:
            output_1TH = shell.layer(layer, weights, input_TH[None])
        own_T = relative_error(output_1TH[0], forced.after)
        unreached = [e.shape[-1] - len(torch.unique(chosen)) for e, chosen in routing]
        return self._layer_error(
            f"model.layers.{layer}",
            f"model.layers.{place.source}",
            own_T[~forced.is_near_tie],
            is_new=place.is_new,
            own_floor=forced.floor,
            num_near_ties=int(forced.is_near_tie.sum()),
            num_unreached_experts=sum(unreached),
        )

    def norm(self) -> LayerError:
        """Bring every stream through its final norm."""
        fp32 = self._pair("fp32")
        before_1TH = self._states[fp32.reference][0]
        for name, variant in self._experiment.variants.items():
            weights = self._weights[variant.side].norm(self._dtype(variant))
            if name == fp32.other:
                output_1TH = self._shells[name].norm(weights, before_1TH)
            self._states[name] = [self._shells[name].norm(weights, s) for s in self._states[name]]
        own_T = relative_error(output_1TH[0], self._states[fp32.reference][0][0])
        return self._layer_error("model.norm", "model.norm", own_T)

    def head(self) -> tuple[dict[str, Comparison], LayerError]:
        """Compare all predictions."""
        states = {
            name: torch.cat([state[0, :-1] for state in states])
            for name, states in self._states.items()
        }
        return compare_predictions(
            self._experiment,
            states,
            self._weights,
            targets_N=self._tokens_WT[:, 1:].flatten(),
            fp32_targets_N=self._fp32_WT[:, 1:].flatten(),
            vocab_size=self._any_shell("source").model.config.vocab_size,
        )

    @property
    def not_finite_in_target(self) -> tuple[str, ...]:
        """Names of the target's tensors that hold a NaN or an infinity."""
        return tuple(self._weights["target"].not_finite)

    def require_finite_source(self) -> None:
        """Refuse a source that cannot be judged.

        Raises:
            CheckpointError: a tensor of the source holds a NaN or an infinity.
        """
        for name in self._weights["source"].not_finite:
            raise CheckpointError(
                f"{self._folders['source']}: {name} holds a value that is not finite",
                hint="fetch the source again",
            )

    def _run(self, side: Side, layer: int) -> None:
        """Bring the variants of a side, in the checkpoint's dtype, through a layer."""
        dtype = self._dtype_of(side)
        weights = self._weights[side].layer(layer, dtype)
        scaled = 1.0
        mine = [
            (name, variant)
            for name, variant in self._experiment.variants.items()
            if variant.side == side and not variant.is_fp32
        ]
        for name, variant in sorted(mine, key=lambda item: item[1].gain != 1):
            if variant.gain != scaled:
                scaled_in_place(weights, variant.gain, dtype)
                scaled = variant.gain
            shell = self._shells[name]
            self._states[name] = [shell.layer(layer, weights, s) for s in self._states[name]]

    def _layer_error(
        self,
        name: str,
        source: str,
        own_T: Tensor,
        *,
        is_new: bool = False,
        own_floor: float = 0.0,
        num_near_ties: int = 0,
        num_unreached_experts: int = 0,
    ) -> LayerError:
        return LayerError(
            name=name,
            source=source,
            is_new=is_new,
            stream_error=self._stream_error(self._pair("exact")),
            stream_floor=self._stream_error(self._pair("floor")),
            own_error=largest(own_T),
            own_floor=own_floor,
            num_near_ties=num_near_ties,
            num_unreached_experts=num_unreached_experts,
        )

    def _stream_error(self, pair: Pair) -> float:
        errors = [
            relative_error(other[0], reference[0])
            for other, reference in zip(
                self._states[pair.other], self._states[pair.reference], strict=True
            )
        ]
        return float(torch.cat(errors).mean())

    def _pair(self, name: str) -> Pair:
        return self._experiment.pairs[name]

    def _dtype(self, variant: Variant) -> torch.dtype:
        return _FP32 if variant.is_fp32 else self._dtype_of(variant.side)

    def _dtype_of(self, side: Side) -> torch.dtype:
        return self._weights[side].dtype

    def _any_shell(self, side: Side) -> Shell:
        variants = self._experiment.variants
        return next(self._shells[name] for name in variants if variants[name].side == side)

    def _shell(self, variant: Variant) -> Shell:
        key = json.dumps([variant.side, dict(variant.changes), variant.attention], sort_keys=True)
        if key not in self._known:
            self._known[key] = Shell(
                self._folders[variant.side],
                changes=variant.changes,
                attention=variant.attention,
                device=self._device,
            )
        return self._known[key]


def near_ties(logits_TE: Tensor, top_k: int) -> Tensor:
    """Return, for every token, whether rounding may exchange its k-th expert for the next, [T]."""
    num_experts = logits_TE.shape[-1]
    if top_k >= num_experts:
        return torch.zeros(len(logits_TE), dtype=torch.bool, device=logits_TE.device)
    best_TK = logits_TE.topk(top_k + 1, dim=-1).values
    gap_T = best_TK[:, top_k - 1] - best_TK[:, top_k]
    return gap_T <= NEAR_TIE * logits_TE.abs().amax(-1)
