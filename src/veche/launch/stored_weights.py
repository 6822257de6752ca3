"""What a checkpoint says of its own weights: config.json's quantization_config."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from veche.core.errors import InputError
from veche.planning.quantization import GROUP_SIZE, QUANTIZATIONS

Certainty = Literal["known", "near", "unknown"]
"""Counted as it is; as the nearest that can be counted; or not at all, so that bf16 stands in."""
_FP8_BLOCK = [128, 128]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredWeights:
    """Weights that are quantised in the checkpoint, so that no flag needs to say it.

    Attributes:
        quantization: what they are counted as.
        certainty: how well that is known.
        told: what config.json says, in its own words.
    """

    quantization: str
    certainty: Certainty
    told: str


def stored_weights(config: Mapping[str, Any]) -> StoredWeights | None:
    """Return what `config` says of its weights; None if it says nothing, and they are plain."""
    entry = config.get("quantization_config")
    if not isinstance(entry, Mapping) or not entry:
        return None
    method = str(entry.get("quant_method") or "modelopt").lower()
    read = _READERS.get(method.replace("_", "-"))
    found = read(entry) if read else None
    name, certainty, said = found or ("bf16", "unknown", ("bits", "load_in_4bit"))
    words = [f"{key} {entry[key]}" for key in said if entry.get(key) is not None]
    return StoredWeights(quantization=name, certainty=certainty, told=", ".join([method, *words]))


def checked_against(
    stored: StoredWeights | None, asked: Sequence[str] | None, where: str
) -> StoredWeights | None:
    """Return what is stored, once --quant does not contradict it.

    GGUF types are of another file, and what cannot be counted may be counted as the user says.

    Raises:
        InputError: the checkpoint's weights are of another type.
    """
    for name in asked or ():
        if stored is None or QUANTIZATIONS[name].is_gguf:
            continue
        if stored.certainty == "unknown":
            stored = replace(stored, quantization=name, certainty="near")
        elif name != stored.quantization:
            raise InputError(
                f"--quant {name}: the weights of {where} are {stored.quantization} already "
                f"(config.json, quantization_config: {stored.told})",
                hint="leave --quant out, or give the folder of the bf16 checkpoint",
            )
    return stored


_Read = tuple[str, Certainty, tuple[str, ...]] | None


def _fp8(entry: Mapping[str, Any]) -> _Read:
    block = entry.get("weight_block_size")
    if block is None:
        return "fp8-tensor", "known", ("activation_scheme",)
    return "fp8-block", "known" if block == _FP8_BLOCK else "near", ("weight_block_size",)


def _four_bits(name: str, entry: Mapping[str, Any]) -> _Read:
    if entry.get("bits", entry.get("w_bit")) != 4:
        return None
    group = entry.get("group_size", entry.get("q_group_size", GROUP_SIZE))
    return name, "known" if group == GROUP_SIZE else "near", ("bits", "w_bit", "group_size")


def _modelopt(entry: Mapping[str, Any]) -> _Read:
    inner = entry.get("quantization")
    facts = inner if isinstance(inner, Mapping) else entry
    algorithm = str(facts.get("quant_algo") or "").upper()
    known = {"NVFP4": "nvfp4", "FP8": "fp8-tensor"}
    return (known[algorithm], "known", ("quant_algo",)) if algorithm in known else None


def _compressed_tensors(entry: Mapping[str, Any]) -> _Read:
    """One group of layers can be counted: its weights' type, width and strategy."""
    groups = entry.get("config_groups")
    weights = [
        group.get("weights")
        for group in (groups.values() if isinstance(groups, Mapping) else ())
        if isinstance(group, Mapping)
    ]
    if len(weights) != 1 or not isinstance(weights[0], Mapping):
        return None
    kind = weights[0].get("type"), weights[0].get("num_bits")
    if kind == ("float", 8):
        is_block = weights[0].get("strategy") == "block"
        return ("fp8-block" if is_block else "fp8-tensor"), "near", ("format",)
    names = {("int", 8): "int8", ("int", 4): "awq-int4", ("float", 4): "nvfp4"}
    if kind not in names:
        return None
    return names[kind], "near" if kind == ("int", 4) else "known", ("format",)


_READERS: dict[str, Callable[[Mapping[str, Any]], _Read]] = {
    "fp8": _fp8,
    "fbgemm-fp8": lambda _: ("fp8-tensor", "near", ()),
    "awq": lambda entry: _four_bits("awq-int4", entry),
    "gptq": lambda entry: _four_bits("gptq-int4", entry),
    "modelopt": _modelopt,
    "modelopt-fp4": lambda _: ("nvfp4", "known", ("quant_algo",)),
    "mxfp4": lambda _: ("mxfp4", "known", ()),
    "compressed-tensors": _compressed_tensors,
}
