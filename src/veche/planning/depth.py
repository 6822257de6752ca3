"""Where new layers go when a model gets deeper."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPlace:
    """A layer of the grown model, told by where it comes from.

    Attributes:
        source: the old layer whose weights it holds.
        is_new: whether it is a copy that adds nothing yet, rather than the old layer itself.
    """

    source: int
    is_new: bool


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
    sources = [layer * num_layers // new_layers for layer in range(new_layers)]
    return tuple(
        LayerPlace(source=source, is_new=layer > 0 and sources[layer - 1] == source)
        for layer, source in enumerate(sources)
    )
