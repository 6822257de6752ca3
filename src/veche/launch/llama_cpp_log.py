"""Read llama.cpp's start-up log (builds of 2024 to 2026)."""

import re
from typing import Any

from veche.launch.log_patterns import MIB, first_float, first_int, first_text, sizes

MARKS = ("llama_model_loader", "load_tensors", "llm_load_tensors", "print_info", "llama_context",
         "llama_kv_cache", "ggml_cuda_init", "llama_new_context", "qwen3moe")  # fmt: skip

_DEVICE = r"(?:CUDA|ROCm|Vulkan|SYCL|Metal)(?!_Host)\w*"
"""A card; CUDA_Host is pinned memory of the machine."""
_BREAKDOWN = re.compile(
    rf"\|\s+- {_DEVICE}[^|]*\|\s*(\d+) =\s*(\d+) \+ \(\s*(\d+) =\s*(\d+) \+\s*(\d+) \+"
    r"\s*(\d+)\) \+\s*(-?\d+) \|"
)
"""The table at the end of a run: total = free + (self = model + context + compute) + rest."""


def facts(text: str) -> dict[str, Any]:
    """Return LogFacts' fields; sizes of several cards are added up, as layers are split."""
    devices = set(re.findall(rf"({_DEVICE}) (?:KV|model) buffer size", text))
    return {
        "engine": "llama.cpp",
        "version": first_text(text, r"build: ?(\d+)", r"version: (\d+) \("),
        "model": first_text(
            text, r"loading model '([^']+)'", r"loaded meta data .* from (\S+\.gguf)"
        ),
        "gpu_title": first_text(text, r"Device 0: ([^,\n]+),", r"using device CUDA0 \(([^)]+)\)"),
        "quantization": _recipe(first_text(text, r"(?:file type|model ftype)\s+= ([^\n]+)")),
        "kv_dtype": first_text(text, r"K \((\w+)\):"),
        "max_model_tokens": first_int(text, r"n_ctx\s+= (\d+)"),
        "pipeline_parallel": len(devices) or None,
        "batched_tokens": first_int(text, r"n_ubatch\s+= (\d+)"),
        "sequences": first_int(text, r"n_seq_max\s+= (\d+)"),
        "free_bytes": _sum(sizes(text, r"using device \w+ [^\n]* - (\d+) (MiB) free")),
        "weight_bytes": _sum(
            sizes(text, rf"{_DEVICE}\s+(?:model )?buffer size =\s+([\d.]+) (MiB)")
        ),
        "host_weight_bytes": _sum(
            sizes(text, r"(?:CPU(?:_Mapped)?|\w+_Host)\s+(?:model )?buffer size =\s+([\d.]+) (MiB)")
        ),
        "kv_available_bytes": _sum(sizes(text, rf"{_DEVICE} KV buffer size =\s+([\d.]+) (MiB)")),
        "kv_tokens": _cells(text),
        "compute_bytes": _sum(sizes(text, rf" {_DEVICE}\s+compute buffer size =\s+([\d.]+) (MiB)")),
        "decode_tokens_per_s": first_float(
            text,
            r"(?m)^(?!.*prompt).*eval time =[^\n]*?([\d.]+) tokens per second",
            r"\| +tg\d+ \| +([\d.]+) ±",
        ),
        **_breakdown(text),
    }


def _cells(text: str) -> int | None:
    if cells := first_int(text, r"KV buffer size[\s\S]{0,400}?\(\s*(\d+) cells"):
        return cells
    return first_int(text, r"n_ctx\s+= (\d+)") if "KV buffer size" in text else None


def _breakdown(text: str) -> dict[str, int]:
    rows = [[int(number) for number in row] for row in _BREAKDOWN.findall(text)]
    rows = [row for row in rows if row[6] <= row[0]]  # an underflow prints 2⁴⁴
    if not rows:
        return {}
    return {
        "total_bytes": sum(row[0] for row in rows) * MIB,
        "overhead_bytes": sum(row[5] + row[6] for row in rows) * MIB,
    }


def _recipe(file_type: str | None) -> str | None:
    """`Q4_K - Medium` → Q4_K_M, `Q2_K - Medium` → Q2_K, `IQ4_XS - 4.25 bpw` → IQ4_XS."""
    if file_type is None:
        return None
    name, _, size = file_type.strip().partition(" - ")
    suffix = {"Small": "_S", "Medium": "_M", "Large": "_L"}.get(size.strip(), "")
    recipe = f"{name.strip()}{suffix}"
    return "Q2_K" if recipe == "Q2_K_M" else recipe


def _sum(values: list[int]) -> int | None:
    return sum(values) if values else None
