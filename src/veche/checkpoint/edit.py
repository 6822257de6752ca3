"""Change fields of a config.json in place of its own spelling, keeping every unknown key."""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from veche.checkpoint.config import spec_of
from veche.checkpoint.families import Family, family_of
from veche.checkpoint.layers import deepened
from veche.checkpoint.mixture import as_mixture
from veche.checkpoint.spec import RopeSpec

_ROPE_FIELDS = ("rope_theta", "rope_scaling")


def edited(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of `config` with `changes`, whose keys are ModelSpec's field names.

    "rope_scaling" is a mapping as in transformers 4, or None. Both spellings of the rotary
    embedding are written, since transformers 4 and serving engines read `rope_scaling` and
    `rope_theta`, and transformers 5 reads `rope_parameters`. Another "model_type" makes a dense
    config that of its mixture (checkpoint/mixture.py), where "intermediate_size" may be None for
    no dense MLP; more "num_hidden_layers" take their lists
    with them (checkpoint/layers.py).
    """
    result, changes = deepcopy(dict(config)), deepcopy(dict(changes))
    if is_upcycled := changes.get("model_type", result.get("model_type")) != result["model_type"]:
        result = as_mixture(result, changes["model_type"])
    result.update(deepened(result, changes.get("num_hidden_layers", 0)))
    family = family_of(result.get("model_type"))
    for field, value in changes.items():
        is_absent = value is None and field == family.expert_width_key == "intermediate_size"
        if field not in _ROPE_FIELDS and not is_absent:
            result[key_of(field, result, family)] = value
    if is_upcycled or any(field in changes for field in _ROPE_FIELDS):
        _write_rope(result, changes)
    if changes:
        _write_implied(result, config, family)
    return result


def key_of(field: str, config: Mapping[str, Any], family: Family) -> str:
    """Return the key under which this config.json keeps a field of ModelSpec."""
    if field == "num_experts" and family.is_moe:
        present = [key for key in ("num_experts", "num_local_experts") if key in config]
        return present[0] if present else family.expert_count_key
    if field == "moe_intermediate_size" and family.expert_width_key:
        return family.expert_width_key
    if field == "torch_dtype":
        return "dtype" if "dtype" in config else "torch_dtype"
    return field


def scaling_of(rope: RopeSpec) -> dict[str, Any] | None:
    """Return a RopeSpec's scaling as transformers 4 spells it; None without scaling."""
    if rope.rope_type == "default":
        return None
    scaling: dict[str, Any] = {"rope_type": rope.rope_type, "factor": rope.factor}
    if rope.original_max_position_embeddings is not None:
        scaling["original_max_position_embeddings"] = rope.original_max_position_embeddings
    return scaling


def _write_implied(result: dict[str, Any], config: Mapping[str, Any], family: Family) -> None:
    """Write what `config` leaves to defaults that no longer hold, or that not every reader shares.

    head_dim and num_key_value_heads follow num_attention_heads where they are not given, and
    transformers 5 cannot scale the rope of a Mixtral without head_dim. transformers 5 saves
    num_local_experts in families whose transformers 4 class reads num_experts.
    """
    spec = spec_of(dict(config))
    if result.get("head_dim") is None:
        result["head_dim"] = spec.head_dim
    if result.get("num_key_value_heads") is None:
        result["num_key_value_heads"] = spec.num_key_value_heads
    if family.is_moe and family.expert_count_key not in result:
        result[family.expert_count_key] = result["num_local_experts"]


def _write_rope(config: dict[str, Any], changes: Mapping[str, Any]) -> None:
    parameters = dict(config.get("rope_parameters") or {})
    own = (config.get("rope_scaling") or parameters).get("rope_theta")
    default = family_of(config.get("model_type")).default_rope_theta
    theta = changes.get("rope_theta", own or config.get("rope_theta") or default)
    if "rope_scaling" in changes:
        scaling = changes["rope_scaling"]
    else:
        old = config.get("rope_scaling") or parameters
        scaling = {key: value for key, value in old.items() if key != "rope_theta"}
        scaling = scaling if scaling.get("rope_type", scaling.get("type")) != "default" else None
    if scaling and "type" in scaling:  # transformers before 4.43 spelt it so
        rest = {key: value for key, value in scaling.items() if key != "type"}
        scaling = {"rope_type": scaling["type"], **rest}
    config["rope_theta"] = theta
    config["rope_scaling"] = scaling or None
    config["rope_parameters"] = {"rope_theta": theta, "rope_type": "default", **(scaling or {})}
