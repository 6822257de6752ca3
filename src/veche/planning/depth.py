"""Where new layers go when a model gets deeper."""

from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby

from veche.checkpoint.layers import dense_rule, layer_sources
from veche.checkpoint.spec import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPlace:
    """A layer of the grown model, told by where it comes from.

    Attributes:
        source: the old layer whose weights it holds.
        is_new: whether it is a copy that adds nothing yet, rather than the old layer itself.
    """

    source: int
    is_new: bool


@cache
def layer_layout(num_layers: int, new_layers: int) -> tuple[LayerPlace, ...]:
    """Place the old layers among the new ones, in order, with copies spread evenly.

    Old layer l is followed by its silent copies; new layer j is of old layer ⌊j · n / n'⌋. Copying
    neighbours keeps a new layer's input like that which its weights were trained on (LLaMA Pro,
    arXiv:2401.02415).

    Raises:
        ValueError: the model would shrink.
    """
    if new_layers < num_layers:
        raise ValueError(f"{num_layers} layers cannot become {new_layers}")
    sources = layer_sources(num_layers, new_layers)
    return tuple(
        LayerPlace(source=source, is_new=layer > 0 and sources[layer - 1] == source)
        for layer, source in enumerate(sources)
    )


def deeper(spec: ModelSpec, new_layers: int) -> ModelSpec:
    """Return the spec of the model with silent copies between its layers."""
    sources = layer_sources(spec.num_hidden_layers, new_layers)
    is_dense = [not spec.is_sparse_layer(source) for source in sources]
    step, only = spec.decoder_sparse_step, list(spec.mlp_only_layers)
    if spec.is_moe:
        step, only = dense_rule(is_dense, step)
    return replace(
        spec,
        num_hidden_layers=new_layers,
        decoder_sparse_step=step,
        mlp_only_layers=tuple(only),
    )


def copied_layers(num_layers: int, new_layers: int) -> str:
    """Name the old layers that get copies, as "0-3, 8"; with their number where it is not one."""
    copies = [0] * num_layers
    for place in layer_layout(num_layers, new_layers):
        copies[place.source] += place.is_new
    texts, start = [], 0
    for count, group in groupby(copies):
        end = start + len(list(group))
        if count:
            run = str(start) if end == start + 1 else f"{start}-{end - 1}"
            texts.append(run if count == 1 else f"{run} (x{count})")
        start = end
    return ", ".join(texts)
