"""Routed tokens in numbers, each with its null: what `--json` prints, and reports draw on."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veche.experts import metrics
from veche.experts.asleep import RARELY, NewExpert
from veche.experts.compare import Comparison
from veche.experts.recording import Recording
from veche.experts.significance import SIGNIFICANCE, Difference, needed_together
from veche.experts.specialisation import Axis, Group

_MOST_LISTED = 20
_MOST_PAIRS = 10

Floats = NDArray[np.float64]


def summarise(recording: Recording) -> dict[str, Any]:
    """Return what of a recording needs no test; figures without a layer are means over layers.

    `voices`: for each voice its tokens, load entropy, CV, MaxVio, dead experts a layer beside the
    number expected of uniform routing, and token entropy. `overlap` and `js_divergence`: matrices
    in the order of `voices`; the diagonal of `overlap` compares a voice's own tokens, and the null
    is `null_overlap` = k/E. A voice without tokens is left out.
    """
    spoken = recording.by_voice()
    if not spoken:
        return {"voices": [], "overlap": [], "js_divergence": [], "null_overlap": None}
    source = recording.source
    return {
        "model": None if source is None else source.model,
        "identity": (source.identity or None) if source else None,
        "weights_say_nothing": has_equal_weights(recording),
        "tokens": recording.num_tokens,
        "documents": len({record.document for record in recording.records}),
        "num_experts": recording.num_experts,
        "num_layers": recording.num_layers,
        "top_k": recording.top_k,
        "voices": [_voice(name, part) for name, part in spoken.items()],
        "overlap": _listed(overlap_matrix(spoken)),
        "js_divergence": _listed(js_matrix(spoken)),
        "null_overlap": recording.top_k / recording.num_experts,
        "layers": _layers(recording),
        "coactivation": _pairs(recording),
        "null_coactivation": (recording.top_k - 1) / max(recording.num_experts - 1, 1),
    }


def layer_number(recording: Recording, row: int) -> int:
    """Return the model's number of the row-th layer that routes, where it is known."""
    layers = recording.source.layers if recording.source else ()
    return layers[row] if layers else row


def has_equal_weights(recording: Recording) -> bool:
    """Whether the routing weights are all alike, so that only the choice of experts says anything.

    Known of the model, or seen: no token's weights differ by more than float16 rounds.
    """
    if recording.source is not None and recording.source.has_equal_weights:
        return True
    if recording.weights is None or recording.top_k < 2 or not recording.num_tokens:
        return False
    used = recording.expert_ids < recording.num_experts
    low = np.where(used, recording.weights, np.inf).min(-1)
    high = np.where(used, recording.weights, -np.inf).max(-1)
    return bool((high - low <= 1e-3 * np.abs(high)).all())


def overlap_matrix(parts: Mapping[str, Recording]) -> Floats:
    """Return the overlap of every pair of voices; a voice with itself over different tokens."""
    routed = list(parts.values())
    matrix = np.empty((len(routed), len(routed)))
    for row, first in enumerate(routed):
        for column, second in enumerate(routed):
            matrix[row, column] = (
                metrics.self_overlap(first.expert_ids, first.num_experts)
                if row == column
                else metrics.overlap(first.expert_ids, second.expert_ids, first.num_experts)
            )
    return matrix


def js_matrix(parts: Mapping[str, Recording]) -> Floats:
    """Return the Jensen–Shannon divergence of every pair of voices' loads, mean over layers."""
    loads = [load_of(part) for part in parts.values()]
    return np.array(
        [[metrics.js_divergence(first, second).mean() for second in loads] for first in loads]
    )


def load_of(recording: Recording) -> Floats:
    """Return the load of each expert, [L, E]."""
    return metrics.load(metrics.expert_counts(recording.expert_ids, recording.num_experts))


def axes_summary(recording: Recording, axes: tuple[Axis, ...]) -> list[dict[str, Any]]:
    """Return the tests of specialisation as JSON values; only significant experts are named."""
    return [
        {
            "axis": axis.name,
            "only": axis.only,
            "tests": axis.num_tests,
            "significance": SIGNIFICANCE,
            "smallest_p": axis.smallest_p,
            "needed_together": axis.needed_together,
            "null_rate": recording.top_k / recording.num_experts,
            "groups": [_group(recording, group) for group in axis.groups],
        }
        for axis in axes
    ]


def comparison_summary(found: Comparison) -> dict[str, Any]:
    """Return a comparison as JSON values."""
    first, test = found.first, found.experts
    own = {"overlap": found.overlap, "first": found.first_overlap, "second": found.second_overlap}
    layers = [
        {
            "layer": layer_number(first, row),
            "js_divergence": float(found.js[row]),
            "null_js_divergence": float(found.null_js[row]),
            "p_adjusted": float(found.js_p[row]),
            "saturation": None if found.saturation is None else float(found.saturation[row]),
            "changed_experts": 0
            if found.adjusted is None
            else int((found.adjusted[row] <= SIGNIFICANCE).sum()),
        }
        for row in range(first.num_layers)
    ]
    return {
        "first": _side(first),
        "second": _side(found.second),
        "significance": SIGNIFICANCE,
        "overlap": {**own, "null": first.top_k / first.num_experts},
        "saturation": None if found.saturation is None else float(found.saturation.mean()),
        "same_tokens": found.num_same_tokens,
        "design": None if test is None else test.design,
        "documents": None if test is None else [test.num_others, test.num_documents],
        "num_experts": first.num_experts,
        "smallest_p": None if test is None else test.smallest_p,
        "needed_together": None
        if test is None
        else needed_together(test.smallest_p, first.num_layers * first.num_experts),
        "changed_experts": sum(layer["changed_experts"] for layer in layers),
        "experts": []
        if test is None or found.adjusted is None
        else significant(first, test, found.adjusted),
        "layers": layers,
    }


def asleep_summary(found: tuple[NewExpert, ...]) -> dict[str, Any]:
    """Return how new experts are used as JSON values; those that are asleep are listed."""
    return {
        "new_experts": len(found),
        "never_chosen": sum(expert.is_never_chosen for expert in found),
        "asleep": sum(expert.is_asleep for expert in found),
        "rarely_is_below": RARELY,
        "experts": [
            {
                "layer": expert.layer,
                "expert": expert.expert,
                "tokens": expert.num_tokens,
                "relative_load": expert.relative_load,
            }
            for expert in found
            if expert.is_asleep
        ],
    }


def significant(
    recording: Recording, test: Difference, adjusted_LE: Floats
) -> list[dict[str, Any]]:
    """Return the significant experts with the largest differences, largest first."""
    change_LE = (test.rate - test.rest).reshape(adjusted_LE.shape)
    order = np.argsort(-np.abs(change_LE), axis=None, kind="stable")
    rows, experts = np.unravel_index(order, adjusted_LE.shape)
    rates = test.rate.reshape(adjusted_LE.shape), test.rest.reshape(adjusted_LE.shape)
    return [
        {
            "layer": layer_number(recording, int(row)),
            "expert": int(expert),
            "rate": float(rates[0][row, expert]),
            "rest": float(rates[1][row, expert]),
            "difference": float(change_LE[row, expert]),
            "p_adjusted": float(adjusted_LE[row, expert]),
        }
        for row, expert in zip(rows, experts, strict=True)
        if adjusted_LE[row, expert] <= SIGNIFICANCE
    ][:_MOST_LISTED]


def _group(recording: Recording, group: Group) -> dict[str, Any]:
    test = group.found
    return {
        "value": group.value,
        "against": group.against,
        "tokens": group.num_tokens,
        "design": None if test is None else test.design,
        "documents": None if test is None else [test.num_documents, test.num_others],
        "significant": group.num_significant,
        "experts": []
        if test is None or group.adjusted is None
        else significant(recording, test, group.adjusted),
    }


def _side(recording: Recording) -> dict[str, Any]:
    source = recording.source
    return {
        "model": None if source is None else source.model,
        "identity": (source.identity or None) if source else None,
        "tokens": recording.num_tokens,
        "documents": len({record.document for record in recording.records}),
    }


def _voice(name: str, part: Recording) -> dict[str, Any]:
    counts = metrics.expert_counts(part.expert_ids, part.num_experts)
    load = metrics.load(counts)
    return {
        "name": name,
        "tokens": part.num_tokens,
        "load_entropy": float(metrics.load_entropy(load).mean()),
        "load_cv": float(metrics.load_cv(load).mean()),
        "expected_load_cv": metrics.expected_cv(part.num_tokens, part.top_k, part.num_experts),
        "max_violation": float(metrics.max_violation(load).mean()),
        "dead_experts": float(metrics.dead_experts(counts).mean()),
        "expected_dead_experts": metrics.expected_dead_experts(
            part.num_tokens, part.top_k, part.num_experts
        ),
        "token_entropy": None
        if part.weights is None
        else float(metrics.token_entropy(part.weights).mean()),
    }


def _layers(recording: Recording) -> list[dict[str, Any]]:
    counts = metrics.expert_counts(recording.expert_ids, recording.num_experts)
    load = metrics.load(counts)
    figures: dict[str, NDArray[Any]] = {
        "load_entropy": metrics.load_entropy(load),
        "load_cv": metrics.load_cv(load),
        "max_violation": metrics.max_violation(load),
        "dead_experts": metrics.dead_experts(counts),
    }
    if recording.weights is not None:
        figures["token_entropy"] = metrics.token_entropy(recording.weights).mean(0)
    if (logits := recording.router_logits) is not None:
        figures["router_entropy"] = metrics.router_entropy(logits).mean(0)
        figures["top_k_mass"] = metrics.top_k_mass(logits, recording.top_k).mean(0)
        figures["top_1_margin"] = metrics.top_1_margin(logits).mean(0)
    return [
        {
            "layer": layer_number(recording, row),
            **{name: values[row].item() for name, values in figures.items()},
        }
        for row in range(recording.num_layers)
    ]


def _pairs(recording: Recording) -> list[dict[str, Any]]:
    """Return the pairs of experts that go together most beyond what their loads would give.

    The lift is N_ij·T / (N_i·N_j): 1 where two experts have nothing to do with each other.
    """
    if recording.top_k < 2:
        return []
    shares = metrics.coactivation(recording.expert_ids, recording.num_experts)
    counts = metrics.expert_counts(recording.expert_ids, recording.num_experts)
    rates = metrics.activation_rate(counts, recording.num_tokens)
    lift = shares / np.where(rates > 0, rates, 1)[:, None, :]
    # Pairs that few tokens could have had say nothing: at least 20 are expected by chance.
    expected = rates[:, :, None] * rates[:, None, :] * recording.num_tokens
    lift[(expected < 20) | np.tri(recording.num_experts, dtype=bool)] = 0
    order = np.argsort(-lift, axis=None, kind="stable")[:_MOST_PAIRS]
    return [
        {
            "layer": layer_number(recording, int(row)),
            "experts": [int(first), int(second)],
            "share": float(shares[row, first, second]),
            "lift": float(lift[row, first, second]),
        }
        for row, first, second in zip(*np.unravel_index(order, lift.shape), strict=True)
        if lift[row, first, second] > 1
    ]


def _listed(matrix: Floats) -> list[list[float | None]]:
    return [[None if np.isnan(value) else float(value) for value in row] for row in matrix]
