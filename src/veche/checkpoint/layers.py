"""What config.json says layer by layer, once some layers have copies behind them."""

from collections.abc import Mapping, Sequence
from typing import Any

from veche.checkpoint.families import family_of

MAX_LAYERS = 4096
"""As many as a config.json may have; beyond it lists would be made that no machine holds."""
_ENTRIES = ("layer_types",)
"""Keys that hold one entry for each layer."""


def layer_sources(num_layers: int, new_layers: int) -> tuple[int, ...]:
    """Return, for each layer of the deeper model, the old one that it is or copies.

    New layer j is of old layer ⌊j · n / n'⌋: copies follow their original, spread evenly.
    """
    return tuple(layer * num_layers // new_layers for layer in range(new_layers))


def deepened(config: Mapping[str, Any], new_layers: int) -> dict[str, Any]:
    """Return the keys besides num_hidden_layers that must change, and their new values."""
    num_layers = config["num_hidden_layers"]
    if not num_layers < new_layers <= MAX_LAYERS:
        return {}
    sources = layer_sources(num_layers, new_layers)
    changed: dict[str, Any] = {
        key: [config[key][source] for source in sources]
        for key in _ENTRIES
        if isinstance(config.get(key), list) and len(config[key]) == num_layers
    }
    if family_of(config.get("model_type")).expert_width_key != "moe_intermediate_size":
        return changed
    step, only = config.get("decoder_sparse_step", 1), config.get("mlp_only_layers") or ()
    is_dense = [_is_dense_by_step(layer, step) or layer in only for layer in range(num_layers)]
    new_step, new_only = dense_rule([is_dense[source] for source in sources], step)
    if new_step != step:
        changed["decoder_sparse_step"] = new_step
    if new_only != [layer for layer in only if layer < num_layers]:
        changed["mlp_only_layers"] = new_only
    return changed


def dense_rule(is_dense: Sequence[bool], step: int) -> tuple[int, list[int]]:
    """Return decoder_sparse_step and mlp_only_layers under which exactly these layers are dense.

    The step is kept where it makes no layer dense that must not be; otherwise it is 1, and the
    list names every dense layer.
    """
    by_step = [_is_dense_by_step(layer, step) for layer in range(len(is_dense))]
    if any(dense and not wanted for dense, wanted in zip(by_step, is_dense, strict=True)):
        step, by_step = 1, [False] * len(is_dense)
    named = [
        layer
        for layer, (dense, wanted) in enumerate(zip(by_step, is_dense, strict=True))
        if wanted and not dense
    ]
    return step, named


def _is_dense_by_step(layer: int, step: int) -> bool:
    return step <= 0 or (layer + 1) % step != 0
