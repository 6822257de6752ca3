"""Look at an adapter's files before anything of the model is touched."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError
from safetensors import SafetensorError, safe_open

from veche.checkpoint.identity import hash_of
from veche.core.errors import CheckpointError, UnsupportedError
from veche.core.files import read_json_object

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_ATTENTION = frozenset({"q_proj", "k_proj", "v_proj", "o_proj"})
_PLAIN_BEGINNINGS = (True, False, None, "gaussian", "orthogonal", "eva")
"""Of LoRA weights. PEFT begins the others (pissa, olora, corda, loftq, …) by rewriting the base
model's weights, on loading too: every other voice would then speak with another model."""
_MORE_THAN_ATTENTION = (
    "layer_replication", "modules_to_save", "trainable_token_indices", "use_dora", "use_qalora",
    "use_bdlora", "arrow_config", "kasa_config", "monteclora_config", "velora_config",
)  # fmt: skip
"""PEFT's switches that change more than what a row of a batch can have for itself."""


class AdapterConfig(BaseModel):
    """What is read of adapter_config.json; the rest is PEFT's."""

    model_config = ConfigDict(strict=True, extra="allow")

    peft_type: str
    r: PositiveInt
    target_modules: list[str] | str | None = None
    target_parameters: list[str] | None = None
    rank_pattern: dict[str, PositiveInt] = Field(default_factory=dict)
    alpha_pattern: dict[str, float] = Field(default_factory=dict)
    bias: str = "none"
    alora_invocation_tokens: list[NonNegativeInt] | None = None
    init_lora_weights: bool | str | None = True


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterFiles:
    """What an adapter's files say.

    Attributes:
        config: of them.
        content_hash: SHA-256 of config and weights.
        num_tensors: how many weights there are.
    """

    config: AdapterConfig
    content_hash: str
    num_tensors: int


def read_adapter(folder: Path) -> AdapterFiles:
    """Look at an adapter's config and weights.

    Raises:
        CheckpointError: the folder holds no LoRA in safetensors, or contradicts itself.
        UnsupportedError: it changes more than attention projections.
    """
    told = read_json_object(folder / _CONFIG)
    if not (folder / _WEIGHTS).is_file():
        raise CheckpointError(
            f"{folder} has no {_WEIGHTS}; pickled adapters are refused",
            hint="save it with safe_serialization=True",
        )
    try:
        config = AdapterConfig.model_validate(told)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise CheckpointError(
            f"{folder / _CONFIG}: {'.'.join(map(str, first['loc']))}: {first['msg']}",
            hint="save the adapter again, with PEFT's save_pretrained",
        ) from error
    _require_plain(folder, config, told)
    num_tensors = _checked_tensors(folder, config)
    content = hash_of([folder / _CONFIG, folder / _WEIGHTS])
    return AdapterFiles(config=config, content_hash=content, num_tensors=num_tensors)


def _require_plain(folder: Path, config: AdapterConfig, told: dict[str, Any]) -> None:
    """Refuse what a row of a batch cannot have for itself."""
    if config.peft_type != "LORA" or told.get("use_dora"):
        raise UnsupportedError(
            f"the adapter in {folder} is {config.peft_type}"
            f"{' with DoRA' if told.get('use_dora') else ''}: rows of a batch can't differ in it",
            hint="train a plain LoRA, or merge it into the model",
        )
    if config.init_lora_weights not in _PLAIN_BEGINNINGS:
        raise UnsupportedError(
            f"the adapter in {folder} has init_lora_weights {config.init_lora_weights!r}: loading "
            "it would rewrite the base model's weights for every voice",
            hint="convert it to a plain LoRA: save_pretrained(…, path_initial_model_for_weight_"
            "conversion=…) of PEFT",
        )
    targets = config.target_modules
    others = sorted(set(targets) - _ATTENTION) if isinstance(targets, list) else [str(targets)]
    others += config.target_parameters or []
    others += [name for name in _MORE_THAN_ATTENTION if told.get(name)]
    others += [] if config.bias == "none" else [f"bias ({config.bias})"]
    if others:
        raise UnsupportedError(
            f"the adapter in {folder} changes {', '.join(others[:3])}: only attention projections "
            "can differ from row to row",
            hint="merge it into the model, or train it on q_proj, k_proj, v_proj and o_proj",
        )


def _checked_tensors(folder: Path, config: AdapterConfig) -> int:
    """Count weights; refuse a rank that they don't have, before memory is taken for it.

    NaN and infinity too: one such voice would spoil what it says, and tell nobody why.
    """
    asked = max(config.r, *config.rank_pattern.values(), 0)
    try:
        with safe_open(folder / _WEIGHTS, framework="pt") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
            strange = [name for name in shapes if not file.get_tensor(name).isfinite().all()]
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{folder / _WEIGHTS} is damaged: {str(error).splitlines()[0]}",
            hint="copy the adapter again",
        ) from error
    strange += [name for name, shape in shapes.items() if ".lora_" in name and len(shape) != 2]
    if strange:
        raise CheckpointError(
            f"{folder / _WEIGHTS} is damaged: {min(strange)} is no matrix of finite numbers",
            hint="copy the adapter again, or train it with a lower learning rate",
        )
    found = max((shape[0] for name, shape in shapes.items() if ".lora_A." in name), default=0)
    if found < asked:
        raise CheckpointError(
            f"the adapter in {folder} says that its rank is {asked}, but its weights have a rank "
            f"of {found}",
            hint="copy the adapter again: its files do not belong together",
        )
    return len(shapes)
