"""vLLM's command line (`make contract` sends it through the parsers of several versions)."""

import json

from veche.launch.case import Case
from veche.launch.loading import loading_scheme


def arguments(case: Case, port: int) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    """Return the command, and for flags that are not obvious the key of their reason."""
    layout = case.layout
    reasons = [("--gpu-memory-utilization", "why_utilization"), ("--max-model-len", "why_length")]
    argv = ["vllm", "serve", case.model_path, "--port", str(port)]
    if case.quantization == "bf16" and not case.stored:
        argv += ["--dtype", "bfloat16"]
    if scheme := loading_scheme(case):
        argv += ["--quantization", scheme]
        reasons.append(("--quantization", "why_quantization_fp8"))
    argv += ["--max-model-len", str(case.context_tokens)]
    argv += ["--gpu-memory-utilization", f"{case.utilization:g}"]
    argv += ["--max-num-seqs", str(case.step.sequences)]
    argv += ["--max-num-batched-tokens", str(case.step.batched_tokens)]
    reasons.append(("--max-num-batched-tokens", "why_batched_tokens"))
    if case.kv_dtype == "fp8":
        argv += ["--kv-cache-dtype", "fp8"]
        reasons.append(("--kv-cache-dtype", "why_kv_fp8"))
    if layout.tensor_parallel > 1:
        argv += ["--tensor-parallel-size", str(layout.tensor_parallel)]
        reasons.append(("--tensor-parallel-size", "why_tensor_parallel"))
    if layout.data_parallel > 1:
        argv += ["--data-parallel-size", str(layout.data_parallel)]
    if layout.pipeline_parallel > 1:
        argv += ["--pipeline-parallel-size", str(layout.pipeline_parallel)]
        argv += ["--distributed-executor-backend", "ray"]
        reasons.append(("--pipeline-parallel-size", "why_pipeline"))
    rope_argv, rope_reasons = _rope(case)
    return (*argv, *rope_argv), reasons + rope_reasons


def _rope(case: Case) -> tuple[list[str], list[tuple[str, str]]]:
    """Pin the rope: `--rope-scaling` until vLLM 0.11.0, rope_parameters since.

    Its limit is factor · original up to 0.29, and max_position_embeddings from 0.30
    (vllm/config/model.py, _get_and_verify_max_len): both are set to the same.
    """
    rope = case.spec.rope
    if rope.max_scaled_positions is None:
        return [], []
    values = {
        "rope_type": rope.rope_type,
        "factor": rope.factor,
        "original_max_position_embeddings": rope.original_max_position_embeddings,
    }
    is_yarn = rope.rope_type == "yarn"  # other types are multiplied by their factor
    length = {"max_position_embeddings": rope.max_scaled_positions} if is_yarn else {}
    if case.is_at_least("0.11.1") is False:
        argv = ["--rope-scaling", json.dumps(values), "--rope-theta", f"{rope.rope_theta:.12g}"]
        return argv, [("--rope-scaling", "why_rope_old")]
    overrides = {"rope_parameters": {**values, "rope_theta": rope.rope_theta}, **length}
    return ["--hf-overrides", json.dumps(overrides)], [("--hf-overrides", "why_rope")]
