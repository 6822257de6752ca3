"""SGLang's command line (python -m sglang.launch_server)."""

from veche.launch.case import Case
from veche.launch.loading import loading_scheme


def arguments(case: Case, port: int) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    """Return the command, and for flags that are not obvious the key of their reason."""
    layout = case.layout
    argv = ["python", "-m", "sglang.launch_server", "--model-path", case.model_path]
    argv += ["--port", str(port)]
    if not case.stored:
        argv += ["--dtype", "bfloat16"]
    argv += ["--context-length", str(case.context_tokens)]
    argv += ["--mem-fraction-static", f"{case.utilization:g}"]
    argv += ["--max-running-requests", str(case.step.sequences)]
    argv += ["--chunked-prefill-size", str(case.step.batched_tokens)]
    reasons = [
        ("--context-length", "why_sglang_length"),
        ("--mem-fraction-static", "why_mem_fraction"),
    ]
    if scheme := loading_scheme(case):
        argv += ["--quantization", scheme]
        reasons.append(("--quantization", "why_quantization_fp8"))
    if case.kv_dtype == "fp8":
        argv += ["--kv-cache-dtype", "fp8_e4m3"]
        reasons.append(("--kv-cache-dtype", "why_kv_fp8"))
    if layout.tensor_parallel > 1:
        argv += ["--tp-size", str(layout.tensor_parallel)]
        reasons.append(("--tp-size", "why_tensor_parallel"))
    if layout.has_expert_parallel:
        argv += ["--ep-size", str(layout.tensor_parallel)]
    if layout.data_parallel > 1:
        argv += ["--dp-size", str(layout.data_parallel)]
    if layout.pipeline_parallel > 1:
        argv += ["--pp-size", str(layout.pipeline_parallel)]
        argv += ["--nnodes", str(layout.pipeline_parallel)]
        reasons.append(("--pp-size", "why_pipeline"))
    return tuple(argv), reasons
