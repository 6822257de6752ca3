"""How quantised weights come to be: made while a bf16 checkpoint loads, or in the checkpoint."""

from veche.launch.case import Case
from veche.launch.layout import weight_bytes_per_gpu

VLLM_SCHEMES_SINCE = "0.20"
"""Since then `--quantization` names the scheme: fp8_per_tensor, fp8_per_block (vLLM pull request
38138; docs/features/quantization/online.md of 0.20.0, which 0.19 does not have)."""
_VLLM_SCHEMES = {"fp8-block": "fp8_per_block", "fp8-tensor": "fp8_per_tensor"}
_ONE_SCALE_A_TENSOR = "fp8"
"""What older vLLM, and SGLang, make of a bf16 checkpoint: one scale a tensor (quantization/fp8.py,
Fp8Config without is_checkpoint_fp8_serialized)."""


def loading_scheme(case: Case) -> str | None:
    """Return the word after `--quantization` that makes the weights while they load.

    None if there is nothing to make: the weights stay bf16, the checkpoint has them, the engine
    cannot make them, or the bf16 weights, which may be held first, do not fit the card.
    """
    if case.stored or case.quantization not in _VLLM_SCHEMES or is_bf16_too_large(case):
        return None
    if case.engine == "vllm" and case.is_at_least(VLLM_SCHEMES_SINCE) is not False:
        return _VLLM_SCHEMES[case.quantization]
    if case.engine in {"vllm", "sglang"} and case.quantization == "fp8-tensor":
        return _ONE_SCALE_A_TENSOR
    return None


def needs_quantized_checkpoint(case: Case) -> bool:
    """Whether MODEL must hold the quantised weights already, and is not known to."""
    if case.stored:
        return False
    return case.quantization.lower() not in {"bf16", "f16"} and loading_scheme(case) is None


def is_bf16_too_large(case: Case) -> bool:
    """Whether the bf16 weights alone are more than a card."""
    return weight_bytes_per_gpu(case.spec, "bf16", case.layout) > case.gpu.visible_bytes[0]
