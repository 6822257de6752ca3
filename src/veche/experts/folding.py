"""A grown model's routing in the numbers of the model that it was grown from.

Shapes: T tokens, L layers that route, k active experts a token.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from veche.core.errors import InputError
from veche.experts.growth import NewCapacity
from veche.experts.recording import Recording, narrow


def folded(recording: Recording, capacity: NewCapacity) -> Recording:
    """Return a recording of a grown model as if its base had made it.

    Inserted layers are left out. An expert stands for the one that it is a copy of; where a token
    has several copies of one expert it has that expert, once. Weights and logits are left out.

    Raises:
        InputError: the recording is not of this model, or the base had no experts.
    """
    layers = recording.source.layers if recording.source else ()
    layers = layers or tuple(range(recording.num_layers))
    if not capacity.expert_sources:
        raise InputError(
            "the grown model's base was dense: it has no experts to compare with",
            hint="compare two grown models",
        )
    is_of_this_model = layers[-1] < len(capacity.layers) and recording.num_experts == len(
        capacity.expert_sources
    )
    if not is_of_this_model:
        raise InputError(
            "the recording is not of this grown model: its layers or experts differ",
            hint="--grown names the model that SECOND was recorded from",
        )
    rows = [row for row, layer in enumerate(layers) if not capacity.layers[layer].is_new]
    num_experts = max(capacity.expert_sources) + 1
    base_of = np.array([*capacity.expert_sources, num_experts])
    ids_TLk = _once(base_of[recording.expert_ids[:, rows]], num_experts)
    source = recording.source and replace(
        recording.source, layers=tuple(capacity.layer_sources[layers[row]] for row in rows)
    )
    return replace(
        recording,
        expert_ids=narrow(ids_TLk),
        num_experts=num_experts,
        source=source,
        weights=None,
        router_logits=None,
    )


def _once(ids_TLk: NDArray[np.int64], unused: int) -> NDArray[np.int64]:
    """Name each expert of a token once, in the order of the first of its copies."""
    is_again_TLk = np.zeros(ids_TLk.shape, bool)
    for place in range(1, ids_TLk.shape[-1]):
        is_again_TLk[..., place] = (ids_TLk[..., :place] == ids_TLk[..., place, None]).any(-1)
    once_TLk = np.where(is_again_TLk, unused, ids_TLk)
    order_TLk = np.argsort(once_TLk == unused, axis=-1, kind="stable")
    ordered_TLk = np.take_along_axis(once_TLk, order_TLk, axis=-1)
    width = int((ordered_TLk < unused).sum(-1).max(initial=1))
    return ordered_TLk[..., :width]
