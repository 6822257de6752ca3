"""Read vLLM's start-up log (formats of 0.6 to 0.32)."""

from typing import Any

from veche.launch.log_patterns import first_float, first_int, first_text, largest, sizes, smallest

MARKS = ("vLLM", "vllm", "GPU KV cache size", "Available KV cache memory", "gpu_model_runner.py")

_NUMBER = r"([\d.,]+)"
_SIZE = r"([\d.]+) ?(GiB|GB|MiB)"


def _option(name: str, value: str) -> tuple[str, str]:
    """Patterns of an engine argument: in `non-default args`, and in the config line."""
    return rf"'{name}': {value}", rf"\b{name}={value}"


def facts(text: str) -> dict[str, Any]:
    """Return LogFacts' fields."""
    return {
        "engine": "vllm",
        "version": first_text(
            text, r"vLLM API server version v?([\w.+]+)", r"engine \(v?([\w.+]+?)\) with config"
        ),
        "model": first_text(
            text, *_option("model", r"'([^']+)'"), *_option("model_tag", r"'([^']+)'")
        ),
        "quantization": first_text(text, *_option("quantization", r"'?([\w-]+)'?")),
        "kv_dtype": first_text(text, *_option("kv_cache_dtype", r"'?([\w.-]+)'?")),
        "has_expert_parallel": first_text(text, *_option("enable_expert_parallel", "(True)"))
        is not None,
        **_counts(text),
        **_memory(text),
    }


def _counts(text: str) -> dict[str, Any]:
    return {
        "tensor_parallel": first_int(text, *_option("tensor_parallel_size", r"(\d+)")),
        "pipeline_parallel": first_int(text, *_option("pipeline_parallel_size", r"(\d+)")),
        "data_parallel": first_int(text, *_option("data_parallel_size", r"(\d+)")),
        "max_model_tokens": first_int(
            text,
            r"Maximum concurrency for ([\d,]+) tokens",
            *_option("max_model_len", r"(\d+)"),
            r"max_seq_len=(\d+)",
            r"max seq len\s+\((\d+)\)",
        ),
        "batched_tokens": first_int(
            text,
            *_option("max_num_batched_tokens", r"(\d+)"),
            r"Defaulting max_num_batched_tokens to (\d+)",
        ),
        "sequences": first_int(
            text,
            *_option("max_num_seqs", r"(\d+)"),
            r"Defaulting max_num_seqs to (\d+)",
        ),
        "kv_tokens": first_int(
            text,
            rf"KV cache size: {_NUMBER} tokens",
            rf"kv_cache_size_tokens\"?: ?{_NUMBER}",
        )
        or _tokens_of_blocks(text),
        "decode_tokens_per_s": first_float(
            text,
            r"generation throughput: (\d*[1-9]\d*\.\d+) tokens/s, Running: 1 req",
        ),
    }


def _memory(text: str) -> dict[str, Any]:
    return {
        "utilization": first_float(
            text,
            r"Desired GPU memory utilization is \(([\d.]+),",
            *_option("gpu_memory_utilization", r"([\d.]+)"),
            r"gpu-memory-utilization[= ]([\d.]+)",
            r"gpu_memory_utilization \(([\d.]+)\)",
        ),
        "total_bytes": largest(
            sizes(
                text,
                r"Free memory on device[^(]*\([\d.]+/([\d.]+) (GiB)\)",
                r"total_gpu_memory \(([\d.]+)(GiB)\)",
                r"total_memory=([\d.]+)(GiB)",
            )
        ),
        "free_bytes": smallest(sizes(text, r"Free memory on device[^(]*\(([\d.]+)/[\d.]+ (GiB)\)")),
        "weight_bytes": largest(
            sizes(
                text,
                rf"Model loading took {_SIZE}",
                rf"[Ll]oading model weights took {_SIZE}",
            )
        ),
        "kv_available_bytes": smallest(
            sizes(
                text,
                rf"Available KV cache memory: {_SIZE}",
                rf"available KV cache memory \({_SIZE}\)",
                rf"memory reserved for KV Cache is {_SIZE}",
            )
        ),
        "needed_kv_bytes": smallest(sizes(text, r"\(([\d.]+) (GiB)\s+KV\s+cache is needed")),
        "graph_bytes": largest(
            sizes(
                text,
                rf"Graph capturing finished in [\d.]+ secs?, took {_SIZE}",
                rf"CUDA graph pool memory: {_SIZE}",
            )
        ),
    }


def _tokens_of_blocks(text: str) -> int | None:
    """Older logs give blocks: `# GPU blocks: N`; a block holds 16 tokens unless it says else."""
    blocks = first_int(text, r"# (?:GPU|cuda) blocks: (\d+)", r"num_gpu_blocks is: (\d+)")
    size = first_int(text, *_option("block_size", r"(\d+)")) or 16
    return None if blocks is None else blocks * size
