"""llama.cpp's command line (llama-server)."""

from veche.checkpoint.spec import ModelSpec
from veche.launch.case import Case
from veche.launch.support import default_step

BATCH_TOKENS = 2048
"""llama-server's own --batch-size; --ubatch-size may not exceed it."""


_GGUF_NAMES = {"qwen3_moe": "qwen3moe", "qwen2_moe": "qwen2moe", "mixtral": "llama"}
"""Where llama.cpp's general.architecture is spelt otherwise (convert_hf_to_gguf.py)."""


def arguments(case: Case, port: int) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    """Return the command, and for flags that are not obvious the key of their reason."""
    rope = case.spec.rope
    argv = ["llama-server", "--model", case.model_path, "--port", str(port)]
    argv += ["--n-gpu-layers", "999", "--flash-attn", "on"]
    argv += ["--ctx-size", str(case.context_tokens * case.sessions)]
    argv += ["--parallel", str(max(case.sessions, case.step.sequences)), "--kv-unified"]
    reasons = [("--ctx-size", "why_ctx_size"), ("--kv-unified", "why_kv_unified")]
    if case.step.batched_tokens != default_step("llama.cpp", case.gpu).batched_tokens:
        tokens = case.step.batched_tokens
        argv += ["--ubatch-size", str(tokens), "--batch-size", str(max(tokens, BATCH_TOKENS))]
    if case.kv_dtype not in {"f16", "bf16"}:
        argv += ["--cache-type-k", case.kv_dtype, "--cache-type-v", case.kv_dtype]
        reasons.append(("--cache-type-k", "why_cache_type"))
    if rope.max_scaled_positions is not None:
        argv += ["--rope-scaling", "yarn", "--rope-scale", f"{rope.factor:g}"]
        argv += ["--yarn-orig-ctx", str(rope.original_max_position_embeddings)]
        argv += ["--rope-freq-base", f"{rope.rope_theta:.12g}"]
        reasons.append(("--rope-scaling", "why_llama_rope"))
        if rope.max_scaled_positions != case.spec.max_position_embeddings:
            argv += ["--override-kv", _reach_of(case.spec, rope.max_scaled_positions)]
            reasons.append(("--override-kv", "why_override_kv"))
    if case.layout.num_gpus > 1:
        argv += ["--split-mode", "layer"]
        reasons.append(("--split-mode", "why_split_layer"))
    return tuple(argv), reasons


def _reach_of(spec: ModelSpec, positions: int) -> str:
    """llama-server caps a slot at n_ctx_train, which is the GGUF's context_length."""
    name = _GGUF_NAMES.get(spec.model_type, spec.model_type)
    return f"{name}.context_length=int:{positions}"
