"""Put an adapter on a model, and write it as a PEFT folder."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import save

from veche.checkpoint.families import TensorKind as Kind
from veche.core.files import atomic_writer, write_json
from veche.roles.training.settings import ChosenSettings
from veche.surgery.loading import quiet_transformers

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
ATTENTION = tuple(kind.value for kind in (Kind.Q, Kind.K, Kind.V, Kind.O))
_EXPERT_PARAMETERS = ["experts.gate_up_proj", "experts.down_proj"]


def with_adapter(model: Any, settings: ChosenSettings) -> Any:
    """Return PEFT's model around `model`, whose adapter alone is trained.

    The same seed gives the same first weights: A random, B zero.
    """
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
        **_targets(settings),
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings(), quiet_transformers():
        # PEFT asks transformers by a name that is deprecated.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`")
        torch.manual_seed(settings.seed)
        return get_peft_model(model, config)


def _targets(settings: ChosenSettings) -> dict[str, Any]:
    if settings.method == "merged-experts":
        return {"target_modules": [], "target_parameters": _EXPERT_PARAMETERS}
    return {"target_modules": [*ATTENTION]}


def adapter_weights(model: Any) -> dict[str, torch.Tensor]:
    """Return the adapter's weights by PEFT's names, on the CPU, whole."""
    return {name: whole(weight) for name, weight in get_peft_model_state_dict(model).items()}


def load_adapter_weights(model: Any, weights: Mapping[str, torch.Tensor]) -> None:
    """Give the adapter weights that `adapter_weights` returned."""
    set_peft_model_state_dict(model, dict(weights))


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor on the CPU, gathered if processes hold parts of it."""
    gather = getattr(tensor, "full_tensor", None)  # of DTensor; every process must call it
    return (tensor if gather is None else gather()).detach().cpu().contiguous()


def write_adapter(
    folder: Path,
    model: Any,
    weights: Mapping[str, torch.Tensor],
    *,
    base: str,
    invocation_ids: tuple[int, ...],
) -> None:
    """Write config and weights, each atomically.

    Args:
        folder: that is written into.
        model: PEFT's.
        weights: as `adapter_weights`.
        base: what the base model is called.
        invocation_ids: tokens from which the adapter acts; empty where it acts everywhere.
    """
    config = model.peft_config["default"].to_dict()
    config["base_model_name_or_path"] = base
    config["inference_mode"] = True
    config["alora_invocation_tokens"] = [*invocation_ids] or None
    for name in ("target_modules", "target_parameters"):
        config[name] = sorted(config[name] or ()) or None
    with atomic_writer(folder / WEIGHTS_FILE) as file:
        file.write(save(dict(weights), metadata={"format": "pt"}))
    write_json(folder / CONFIG_FILE, config)
