"""Read SGLang's start-up log (formats of 0.4 to 0.5)."""

from typing import Any

from veche.launch.log_patterns import first_float, first_int, first_text, largest, sizes, smallest

MARKS = ("KV Cache is allocated", "Load weight end", "server_args=", "sglang", "#tokens:")


def _argument(name: str, value: str) -> str:
    """Pattern of a server argument, printed as `name=value` or as `'name': value`."""
    return rf"\b{name}['\"]?[=:] ?{value}"


def facts(text: str) -> dict[str, Any]:
    """Return LogFacts' fields."""
    expert_ranks = first_int(text, _argument("ep_size", r"(\d+)"))
    return {
        "engine": "sglang",
        "version": first_text(text, r"sglang[- =v]+(\d[\w.]+)"),
        "model": first_text(text, _argument("model_path", r"'([^']+)'")),
        "quantization": first_text(
            text, _argument("quantization", r"'([\w-]+)'"), r"\bquant=([\w-]+)"
        ),
        "kv_dtype": first_text(
            text,
            _argument("kv_cache_dtype", r"'([\w-]+)'"),
            r"(?:KV cache )?dtype: torch\.(\w+)",
            r"Using KV cache dtype: torch\.(\w+)",
        ),
        "utilization": first_float(text, _argument("mem_fraction_static", r"([\d.]+)")),
        "tensor_parallel": first_int(text, _argument("tp_size", r"(\d+)")),
        "pipeline_parallel": first_int(text, _argument("pp_size", r"(\d+)")),
        "data_parallel": first_int(text, _argument("dp_size", r"(\d+)")),
        "has_expert_parallel": (expert_ranks or 1) > 1,
        "max_model_tokens": first_int(text, r"context_len=(\d+)", r"context_length=(\d+)"),
        "batched_tokens": first_int(text, _argument("chunked_prefill_size", r"(\d+)")),
        "sequences": first_int(text, _argument("max_running_requests", r"(\d+)")),
        "free_bytes": smallest(sizes(text, r"Load weight begin\. avail mem=([\d.]+) (GB)")),
        "weight_bytes": _weights(text),
        "kv_tokens": first_int(
            text, r"KV Cache is allocated\.[^\n]*?#tokens: (\d+)", r"max_total_num_tokens=(\d+)"
        ),
        "kv_available_bytes": _kv_bytes(text),
        "graph_bytes": largest(
            sizes(text, r"Capture cuda graph end\.[^\n]*mem usage=([\d.]+) (GB)")
        ),
        "decode_tokens_per_s": first_float(
            text, r"Decode batch[^\n]*#running-req: 1,[^\n]*gen throughput \(token/s\): ([\d.]+)"
        ),
    }


def _weights(text: str) -> int | None:
    """`mem usage`; in older logs the difference of free memory before and after."""
    if usage := largest(sizes(text, r"Load weight end\.[^\n]*mem usage=([\d.]+) (GB)")):
        return usage
    before = largest(sizes(text, r"Load weight begin\. avail mem=([\d.]+) (GB)"))
    after = largest(sizes(text, r"Load weight end\.[^\n]*avail mem=([\d.]+) (GB)"))
    return before - after if before and after else None


def _kv_bytes(text: str) -> int | None:
    keys = smallest(sizes(text, r"KV Cache is allocated[^\n]*K size: ([\d.]+) (GB)"))
    values = smallest(sizes(text, r"KV Cache is allocated[^\n]*V size: ([\d.]+) (GB)"))
    if keys is not None and values is not None:
        return keys + values
    return smallest(sizes(text, r"KV Cache is allocated[^\n]*KV size: ([\d.]+) (GB)"))
