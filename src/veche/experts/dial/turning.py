"""How a dial is turned: fields to change before loading, and parts to put back for a moment."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from veche.checkpoint.config import read_config, spec_of
from veche.checkpoint.spec import ModelSpec
from veche.experts.dial.points import DialName
from veche.surgery.loading import Model, empty_model
from veche.surgery.verification.variants import Variant

BASE = Variant(side="source")
"""The checkpoint as it is."""


def variant_of(folder: Path, name: DialName, value: float) -> Variant:
    """Return the model with one dial turned.

    A carved model's routing weights are 1/k, so another k brings the gain k'/k of its experts, as
    the operation `expert_gain` does (decision 0003).

    Args:
        folder: the checkpoint.
        name: top_k, rope_theta or yarn; the others need no other model.
        value: of the dial.
    """
    config = read_config(folder)
    spec = spec_of(config)
    if name == "top_k":
        gain = value / spec.num_experts_per_tok if spec.has_equal_routing_weights else 1.0
        return Variant(side="source", changes={"num_experts_per_tok": int(value)}, gain=gain)
    if name == "rope_theta":
        return Variant(side="source", changes={"rope_theta": value})
    if name == "yarn":
        return Variant(side="source", changes={"rope_scaling": _yarn(config, spec, value)})
    return BASE


def _yarn(config: Mapping[str, Any], spec: ModelSpec, factor: float) -> dict[str, Any] | None:
    """Return a rope_scaling with its original length written out, which readers guess wrongly."""
    if factor == 1:
        return None
    own = config.get("rope_scaling") or config.get("rope_parameters") or {}
    kept = {key: own[key] for key in own if key not in ("rope_theta", "rope_type", "type")}
    original = spec.rope.original_max_position_embeddings or spec.max_position_embeddings
    turned = {"factor": factor, "original_max_position_embeddings": original}
    return {"rope_type": "yarn", **kept, **turned}


@contextmanager
def as_base(model: Model, folder: Path, name: DialName) -> Iterator[None]:
    """Give a turned model the base's setting while the block runs; for the clock, not for answers.

    Paired rounds of the clock must take turns in one process, and two models would need twice the
    memory. What decides the speed is small: each router's top_k, and the rotary embedding.
    """
    if name == "top_k":
        routers = [module for module in model.modules() if _is_router(module)]
        turned = [router.top_k for router in routers]
        base = spec_of(read_config(folder)).num_experts_per_tok
        try:
            for router in routers:
                router.top_k = base
            yield
        finally:
            for router, top_k in zip(routers, turned, strict=True):
                router.top_k = top_k
        return
    rotary = model.model.rotary_emb
    try:
        model.model.rotary_emb = type(rotary)(empty_model(folder).config).to(model.device)
        yield
    finally:
        model.model.rotary_emb = rotary


def _is_router(module: Any) -> bool:
    return type(module).__name__.endswith("Router") and hasattr(module, "top_k")
