"""How each peer of `veche launch` is asked, what it answers, and where its source goes wrong.

Versions are pinned: another one may print something else. Each peer gets what its README, --help
and source give the best chance; what is given beyond a config.json is in the tool's name.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from veche.launch.gpus import GIB, find_gpu

CARD_GIB = find_gpu("rtx-pro-6000").visible_gib[0]
UNITS = {"B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40}


class BenchmarkError(Exception):
    """Something that the benchmark needs is not to be had."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One model, as files that every tool gets, and the exact answer.

    Attributes:
        name: of the model.
        folder: holds config.json, model.safetensors (its header only) and a hub cache.
        context_tokens: the sequence that shall fit.
        weight_bytes: exact, bf16.
        kv_bytes: exact, bf16, of context_tokens.
    """

    name: str
    folder: Path
    context_tokens: int
    weight_bytes: int
    kv_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a tool says; None where it says nothing, and then why, in its own words."""

    weight_bytes: float | None = None
    kv_bytes: float | None = None
    fits: str = "-"
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One way to ask one tool.

    Attributes:
        name: with what is particular about this way.
        venv: name of its venv; empty for veche, which runs where the benchmark does.
        card: the nearest to an RTX PRO 6000 that it knows.
        command: program and arguments.
        read: finds the answer in what it printed.
        because: what its source says about where it is wrong.
    """

    name: str
    venv: str
    card: str
    command: Callable[[Question], list[str]]
    read: Callable[[Question, str], Answer]
    because: str = ""


PACKAGES = {
    "ridgepoint": ("ridgepoint==0.1.2", ["huggingface-hub==2.4.0"]),
    "hf-vram-calc": (
        "hf-vram-calc==1.0.9",
        ["torch==2.13.0", "transformers==5.23.0", "accelerate==1.15.0", "requests", "rich"],
    ),
    # It also names `argparse`, a copy of the standard library's from 2014.
    "llm-resource-planner": ("llm-resource-planner==0.2.0", ["transformers==5.23.0"]),
    "modelinfo-cli": ("modelinfo-cli==1.4.4", ["rich"]),
    # The memory model is all in the core; the upper package adds the CLI, and plots.
    "aiconfigurator": (
        "aiconfigurator-core==0.12.0",
        ["packaging", "numpy<3", "pandas", "pyarrow", "pyyaml", "scipy"],
    ),
}
"""Each peer, pinned, and what it needs to run: peers are installed without their own lists."""

AICONFIGURATOR = """
import json, sys
from aiconfigurator_core.sdk.memory import estimate_kv_cache
def ask(capacity):
    return estimate_kv_cache(
        sys.argv[1], "rtx_pro_6000_server", "vllm", "0.24.0", max_num_tokens=8192,
        max_batch_size=256, memory_fraction_kind="of_total", memory_fraction_value=0.92,
        gpu_memory_capacity_bytes_override=capacity, allow_naive_fallback=True)
card = int(sys.argv[2])
try:
    answer = ask(card)
except ValueError as error:
    # It gives no numbers where nothing is left; on a larger card it does.
    answer = {**ask(10 * card), "total_kv_size_tokens": 0, "error": str(error)}
if answer["memory_breakdown"] is None:
    # A rough guess instead of the model: 80 % of what the weights leave.
    answer["weights"] = card - answer["total_kv_size_bytes"] / 0.8
print(json.dumps(answer))
"""


def rounded(text: str, unit: float, exact: int) -> float:
    """Read a printed number with two decimals; one that the exact value rounds to is exact."""
    value = float(text)
    return float(exact) if abs(value - exact / unit) <= 0.0051 else value * unit


def found(pattern: str, text: str) -> re.Match[str]:
    """Find what must be there.

    Raises:
        BenchmarkError: it is not: another version prints something else.
    """
    match = re.search(pattern, text)
    if match is None:
        raise BenchmarkError(f"no {pattern!r} in what the tool printed:\n{text[-2000:]}")
    return match


def ask_veche(question: Question, gpu: str) -> list[str]:
    """Only what launch needs; the types are those that the peers are asked about."""
    wish = ["--gpu", gpu, "--quant", "bf16", "--kv", "bf16"]
    context = ["--context", str(question.context_tokens), "--json"]
    return ["veche", "launch", str(question.folder), *wish, *context]


def read_veche(question: Question, printed: str) -> Answer:
    """The profile of vLLM, the default engine."""
    profile = json.loads(printed)["profiles"][0]
    return Answer(
        weight_bytes=profile["weight_bytes"],
        kv_bytes=profile["kv_bytes_per_token"] * question.context_tokens,
        fits="yes" if profile["fits"] else "no",
    )


def ask_ridgepoint(question: Question, repo: str) -> list[str]:
    """It takes a hub name only: the files lie in a hub cache, as a download leaves them."""
    wish = ["--gpu", "h100-80gb:1", "--dtype", "fp16", "--ctx", str(question.context_tokens)]
    return ["ridgepoint", "fit", f"{repo}/{question.name}", *wish, "--json"]


def read_ridgepoint(question: Question, printed: str) -> Answer:
    """`serves` asks for one token's room; a sequence of this length fits if there is one."""
    answer = json.loads(printed)
    sequences = answer["capacity"]["max_sequences"]["best"]
    return Answer(
        weight_bytes=answer["model"]["params"] * 2,
        kv_bytes=answer["capacity"]["bytes_per_seq"],
        fits="yes" if answer["verdict"]["serves"] and sequences >= 1 else "no",
    )


def ask_hf_vram_calc(question: Question) -> list[str]:
    """`verbose` prints the table of cards, without which there is no verdict."""
    where = ["--model", question.name, "--model_path", str(question.folder)]
    wish = ["--dtype", "bf16", "--max_seq_len", str(question.context_tokens)]
    report = ["--log_level", "verbose", "--output_json", str(question.folder / "hf-vram-calc.json")]
    return ["hf-vram-calc", *where, *wish, *report]


def read_hf_vram_calc(question: Question, printed: str) -> Answer:
    """The verdict stands in the table only, the numbers in the file as well."""
    report = json.loads((question.folder / "hf-vram-calc.json").read_text(encoding="utf-8"))
    kv_gib = report["memory_requirements"][0]["kv_cache_size_gib"]
    verdict = found(r"NVIDIA RTX PRO\s*│\s*96GB\s*│\s*([✓✗])", printed)[1]
    return Answer(
        weight_bytes=report["model"]["parameters"] * 2,
        kv_bytes=rounded(kv_gib, GIB, question.kv_bytes),
        fits="yes" if verdict == "✓" else "no",
    )


def ask_llm_plan(question: Question) -> list[str]:
    """Its GB are GiB; it has no option for the context."""
    return ["llm-plan", str(question.folder), "--gpu", str(CARD_GIB)]


def read_llm_plan(question: Question, printed: str) -> Answer:
    """It always says what 4,096 tokens take: scaled here; its verdict is for those."""
    kv_gib = float(found(r"KV Cache @ 4k\): ([\d.]+) GB", printed)[1])
    return Answer(
        weight_bytes=rounded(
            found(r"\(Weights\): ([\d.]+) GB", printed)[1], GIB, question.weight_bytes
        ),
        kv_bytes=kv_gib * GIB * question.context_tokens / 4096,
        fits="yes" if "✔" in printed else "no",
    )


def ask_modelinfo(question: Question, file: str) -> list[str]:
    """It takes a weights file, of which it reads the header, and the config.json beside it."""
    wish = ["--gpu", str(CARD_GIB), "--context", str(question.context_tokens)]
    return ["modelinfo", str(question.folder / file), *wish]


def read_modelinfo(question: Question, printed: str) -> Answer:
    """Its GB are GiB. Above 90 % of the card it warns, above 99 % it says no."""
    kv, unit = found(r"KV Cache:\s+([\d.]+) (\w+)", printed).groups()
    fit = found(r"Hardware Fit:\s+(\S)", printed)[1]
    return Answer(
        weight_bytes=int(found(r"Parameters:\s+([\d,]+)", printed)[1].replace(",", "")) * 2,
        kv_bytes=rounded(kv, UNITS[unit], question.kv_bytes),
        fits={"✓": "yes", "⚠": "warns", "✗": "no"}[fit],
    )


def ask_aiconfigurator(question: Question) -> list[str]:
    """The memory function of its SDK: the CLI's estimates need measured speeds of each shape."""
    return ["python", "-c", AICONFIGURATOR, str(question.folder), str(round(CARD_GIB * GIB))]


def read_aiconfigurator(question: Question, printed: str) -> Answer:
    """Native where it has the family, a guess elsewhere."""
    answer = json.loads(printed.splitlines()[-1])
    native = answer["memory_breakdown"]
    return Answer(
        weight_bytes=native["weights_bytes"] if native else answer["weights"],
        kv_bytes=answer["kv_size_per_token_bytes"] * question.context_tokens,
        fits="yes" if answer["total_kv_size_tokens"] >= question.context_tokens else "no",
        message=answer.get("error", "" if native else "family not modelled: its naive fallback"),
    )


TOOLS = (
    Tool(
        name="veche",
        venv="",
        card="RTX PRO 6000",
        command=partial(ask_veche, gpu="rtx-pro-6000"),
        read=read_veche,
    ),
    Tool(
        name="veche, for ridgepoint's card",
        venv="",
        card="H100 80 GB",
        command=partial(ask_veche, gpu="h100-sxm"),
        read=read_veche,
    ),
    Tool(
        name="ridgepoint",
        venv="ridgepoint",
        card="H100 80 GB",
        command=partial(ask_ridgepoint, repo="config"),
        read=read_ridgepoint,
        # hf.py, _params_from_index: the last resort, when no safetensors can be read.
        because="without the hub's files weights are 12·L·h² + 2·V·h: neither experts nor widths",
    ),
    Tool(
        name="ridgepoint + index",
        venv="ridgepoint",
        card="H100 80 GB",
        command=partial(ask_ridgepoint, repo="indexed"),
        read=read_ridgepoint,
        # Same function: total_size of model.safetensors.index.json, divided by two.
        because="given the size in a checkpoint's index it takes that; a config alone has none",
    ),
    Tool(
        name="hf-vram-calc",
        venv="hf-vram-calc",
        card="RTX PRO 6000",
        command=ask_hf_vram_calc,
        read=read_hf_vram_calc,
        # calculator.py, calculate_kv_cache_memory, calculate_inference_memory, and
        # calculate_parameters_by_transformers: init_empty_weights unties (4.57 and 5.23 alike).
        because="head_dim is hidden_size // heads, the config's is ignored; a tied head counts "
        "twice; fits means 1.2 · weights ≤ 89.41 GiB, whatever the context",
    ),
    Tool(
        name="llm-resource-planner",
        venv="llm-resource-planner",
        card="94.97 GB",
        command=ask_llm_plan,
        read=read_llm_plan,
        # cli.py, calculate_params and estimate_memory.
        because="weights are 12·L·h² and KV 2·L·h: no experts, vocabulary, KV heads or head_dim; "
        "always 4,096 tokens (KV is scaled here, its verdict is not)",
    ),
    Tool(
        name="modelinfo-cli",
        venv="modelinfo-cli",
        card="94.97 GB",
        command=partial(ask_modelinfo, file="config.json"),
        read=read_modelinfo,
        because="reads headers of weight files, so it cannot be asked about a config",
    ),
    Tool(
        name="modelinfo-cli + header",
        venv="modelinfo-cli",
        card="94.97 GB",
        command=partial(ask_modelinfo, file="model.safetensors"),
        read=read_modelinfo,
        # architecture.py, extract_architecture.
        because="given a header made from the reference it sums that; head_dim is hidden_size // "
        "heads, the config's is ignored",
    ),
    Tool(
        name="aiconfigurator",
        venv="aiconfigurator",
        card="RTX PRO 6000 (server)",
        command=ask_aiconfigurator,
        read=read_aiconfigurator,
        # models/moe.py has no logits in context_ops, which alone are summed; llama.py always has.
        because="MoE weights lack the output head, dense ones count a tied head twice; families "
        "that it has not get a guess (4·h² of attention a layer)",
    ),
)
