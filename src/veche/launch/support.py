"""What each engine can run on each card, and the defaults that veche gives it."""

from veche.launch.case import Case, EngineName, version_of
from veche.launch.gpus import Gpu
from veche.launch.overhead import StepSize
from veche.planning.quantization import QUANTIZATIONS, Quantization
from veche.planning.tensor_parallel import can_split_fp8_blocks, can_split_heads

DEFAULT_QUANTIZATIONS: dict[EngineName, tuple[str, ...]] = {
    "vllm": ("bf16", "fp8-block", "awq-int4"),
    "sglang": ("bf16", "fp8-block", "awq-int4"),
    "llama.cpp": ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M"),
    "transformers": ("bf16",),
}
KV_DTYPES: dict[EngineName, tuple[str, ...]] = {
    "vllm": ("bf16", "fp8"),
    "sglang": ("bf16", "fp8"),
    "llama.cpp": ("f16", "q8_0", "q4_0"),
    "transformers": ("bf16",),
}
"""What an engine's KV cache can be; all of it is tried unless the user chooses."""

_UTILIZATION: dict[EngineName, tuple[float, ...]] = {
    "vllm": (0.92, 0.95),
    "sglang": (0.85, 0.88),
    "llama.cpp": (1.0,),
    "transformers": (1.0,),
}
_OLD_VLLM_UTILIZATION = (0.90, 0.95)
DEFAULT_STEP: dict[EngineName, StepSize] = {
    "vllm": StepSize(batched_tokens=8192, sequences=32),
    "sglang": StepSize(batched_tokens=8192, sequences=32),
    "llama.cpp": StepSize(batched_tokens=512, sequences=4),
    "transformers": StepSize(batched_tokens=2048, sequences=1),
}
SMALL_CARD_GIB = 70
"""Below it, and on A100, vLLM's server takes steps of 2,048 tokens (arg_utils, batch defaults)."""


def utilizations(engine: EngineName, version: str | None = None) -> tuple[float, ...]:
    """Return shares of memory in the order in which they are tried: the engine's default first.

    vLLM's default is 0.92 since 0.20 (config/cache.py), and was 0.90. SGLang's share covers
    weights and KV only, and 0.95 has run out of memory.
    """
    own = version_of(version)
    if engine == "vllm" and own is not None and own < (0, 20):
        return _OLD_VLLM_UTILIZATION
    return _UTILIZATION[engine]


def default_step(engine: EngineName, gpu: Gpu) -> StepSize:
    """Return the step size that veche sets, which is the engine's own for the tokens."""
    step = DEFAULT_STEP[engine]
    is_small = gpu.visible_gib[1] < SMALL_CARD_GIB or gpu.name.startswith("a100")
    if engine == "vllm" and is_small:
        return StepSize(batched_tokens=2048, sequences=step.sequences)
    return step


def engines_own_step(engine: EngineName, gpu: Gpu) -> StepSize:
    """Return the step size of an engine that was told nothing (vLLM arg_utils, batch defaults)."""
    step = default_step(engine, gpu)
    if engine != "vllm":
        return step
    return StepSize(
        batched_tokens=step.batched_tokens, sequences=256 if step.batched_tokens == 2048 else 1024
    )


def can_run(engine: EngineName, quantization: str) -> bool:
    """Whether `engine` loads weights of `quantization` at all."""
    entry = QUANTIZATIONS[quantization]
    if engine == "llama.cpp":
        return entry.is_gguf
    return not entry.is_gguf and (engine != "transformers" or quantization == "bf16")


def obstacle(case: Case) -> str | None:
    """Return the phrase key of what keeps `case` from running on its card; None if nothing."""
    entry = QUANTIZATIONS[case.quantization]
    if missing := _missing_feature(case):
        return missing
    if case.engine in {"llama.cpp", "transformers"} and case.num_nodes > 1:
        return "one_machine_only"
    if case.engine == "llama.cpp":
        return None
    return _card_obstacle(entry, case.gpu) or _layout_obstacle(case)


def _missing_feature(case: Case) -> str | None:
    """Routing over HTTP: vLLM ≥ 0.21 and SGLang; adapters on experts: vLLM ≥ 0.11.2."""
    if "routing" in case.features and case.engine in {"llama.cpp", "transformers"}:
        return "no_routing_over_http"
    if case.engine != "vllm" or not case.spec.is_moe:
        return None
    if "routing" in case.features and case.is_at_least("0.21") is False:
        return "routing_too_old"
    return (
        "lora_too_old" if "lora" in case.features and case.is_at_least("0.11.2") is False else None
    )


def _card_obstacle(entry: Quantization, gpu: Gpu) -> str | None:
    """FP8 kernels: 8.9; Marlin runs FP8 weights from 8.0, and 4-bit ones; FP4 units: 10.0."""
    if not gpu.is_nvidia:
        return "no_nvfp4_on_amd" if entry.name == "nvfp4" else None
    if gpu.sm < 80 and entry.name != "bf16":
        return "card_too_old"
    return None


def _layout_obstacle(case: Case) -> str | None:
    if not can_split_heads(case.spec, case.layout.tensor_parallel):
        return "heads_do_not_split"
    is_split = case.layout.tensor_parallel > 1 and not case.layout.has_expert_parallel
    if (
        case.quantization == "fp8-block"
        and is_split
        and not can_split_fp8_blocks(case.spec, case.layout.tensor_parallel)
    ):
        return "fp8_blocks_do_not_split"
    return None
