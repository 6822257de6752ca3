"""Set `veche launch` beside the peers on PyPI that run offline: weights, KV cache, fit, seconds.

Usage: python benchmarks/launch_peers.py [--runs 3] [--models agi …] [--venvs FOLDER] [--json]

Each peer gets a venv of its own under .venv-peers (made once from PyPI, about 2 GB, most of it the
torch that hf-vram-calc needs), the same config.json, bf16 for weights and KV, and the call that its
README, --help and source give the best chance. Nothing else is on line: no hub, no proxy answers.
The context is 131,072 tokens, or what the model's positions reach. The reference is transformers'
own model on the meta device, and 2 · layers · KV heads · head_dim · 2 bytes a token.
"""

import argparse
import json
import os
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peers.tools import CARD_GIB, PACKAGES, TOOLS, Answer, BenchmarkError, Question, Tool
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils.logging import set_verbosity_error

from veche.checkpoint.config import spec_of
from veche.launch.gpus import GIB
from veche.planning.bases import load_base
from veche.planning.planner import make_plan
from veche.planning.recipe import load_recipe

ROOT = Path(__file__).parent.parent
CONTEXT_TOKENS = 131072
REVISION = "0" * 40
DENSE = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "max_position_embeddings": 8192,
    "model_type": "llama",
    "num_attention_heads": 9,
    "num_hidden_layers": 30,
    "num_key_value_heads": 3,
    "rms_norm_eps": 1e-05,
    "rope_theta": 100000,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "vocab_size": 49152,
}
"""SmolLM2-135M, for the peers that only do dense models."""
MODELS: dict[str, Callable[[], dict[str, Any]]] = {
    "agi": lambda: make_plan(load_recipe("agi")).target_config,
    "qwen3-30b-a3b": lambda: load_base("qwen3-30b-a3b"),
    "qwen3-30b-a3b-16-experts-128k": lambda: load_base("qwen3-30b-a3b-16-experts-128k"),
    "mixtral-8x7b": lambda: load_base("mixtral-8x7b"),
    "olmoe-1b-7b": lambda: load_base("olmoe-1b-7b"),
    "smollm2-135m": lambda: DENSE,
}


@dataclass(slots=True, kw_only=True)
class Row:
    """One tool's answer about one model, with its wall times."""

    model: str
    tool: str
    card: str
    call: str
    answer: Answer
    weight_ratio: float | None
    kv_ratio: float | None
    seconds: list[float]


# --- what every tool gets ---------------------------------------------------------------------


def question_of(name: str, scratch: Path) -> Question:
    """Write a model's files, and compute what is right."""
    config = MODELS[name]()
    folder = scratch / "models" / name
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    reference = AutoConfig.from_pretrained(folder)
    shapes = reference_shapes(reference)
    weight_bytes = 2 * sum(shape.numel() for shape in shapes.values())
    write_header(folder / "model.safetensors", shapes)
    index = json.dumps({"metadata": {"total_size": weight_bytes}, "weight_map": {}})
    for repo in ("config", "indexed"):
        cache = scratch / "hub" / f"models--{repo}--{name}"
        snapshot = cache / "snapshots" / REVISION
        snapshot.mkdir(parents=True)
        (cache / "refs").mkdir()
        (cache / "refs" / "main").write_text(REVISION, encoding="utf-8")
        (snapshot / "config.json").write_text(json.dumps(config), encoding="utf-8")
        if repo == "indexed":
            (snapshot / "model.safetensors.index.json").write_text(index, encoding="utf-8")
    context = min(CONTEXT_TOKENS, spec_of(config, where=name).position_limit)
    return Question(
        name=name,
        folder=folder,
        context_tokens=context,
        weight_bytes=weight_bytes,
        kv_bytes=reference_kv_bytes(reference) * context,
    )


def reference_kv_bytes(config: Any) -> int:
    """Keys and values of a token, bf16, from transformers' own reading of the config."""
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * config.num_key_value_heads * head_dim * 2)


def reference_shapes(config: Any) -> dict[str, torch.Size]:
    """Shapes of all parameters of transformers' own model, tied ones once."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return {name: parameter.shape for name, parameter in model.named_parameters()}


def write_header(path: Path, shapes: dict[str, torch.Size]) -> None:
    """Write a safetensors file without its tensors, which nobody here reads."""
    header: dict[str, Any] = {}
    start = 0
    for name, shape in shapes.items():
        end = start + 2 * shape.numel()
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text)


# --- running ----------------------------------------------------------------------------------


def make_venvs(folder: Path) -> None:
    """Make each peer's venv, unless it is there with the same packages.

    Raises:
        BenchmarkError: a package cannot be had.
    """
    for name, (peer, needs) in PACKAGES.items():
        python, stamp = folder / name / "bin" / "python", folder / name / ".installed"
        wanted = "\n".join([peer, *needs])
        if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
            continue
        print(f"installing {peer} into {folder / name}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder / name], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        for arguments in (needs, ["--no-deps", peer]):
            done = subprocess.run([*pip, *arguments], capture_output=True, text=True, check=False)
            if done.returncode:
                errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
                reason = errors[-1] if errors else done.stderr.strip()
                raise BenchmarkError(f"{peer} cannot be installed (is PyPI reachable?): {reason}")
        stamp.write_text(wanted, encoding="utf-8")


def environment(tool: Tool, scratch: Path) -> dict[str, str]:
    """Offline in every way: a hub that is asked all the same is refused at once."""
    closed = "http://127.0.0.1:9"
    own = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return (own if tool.venv else dict(os.environ)) | {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(scratch),
        "HTTPS_PROXY": closed,
        "HTTP_PROXY": closed,
        "https_proxy": closed,
        "http_proxy": closed,
        "COLUMNS": "200",
        "PYTHONWARNINGS": "ignore",
        "VECHE_HOME": str(scratch / "veche"),
    }


def run(tool: Tool, question: Question, venvs: Path, scratch: Path) -> tuple[Answer, float]:
    """Ask once; the time is that of the whole process."""
    program, *arguments = tool.command(question)
    folder = venvs / tool.venv / "bin" if tool.venv else Path(sys.executable).parent
    started = time.perf_counter()
    done = subprocess.run(
        [str(folder / program), *arguments],
        env=environment(tool, scratch),
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[-1]
        return Answer(message=said.replace(f"{scratch}/", "")), seconds
    return tool.read(question, done.stdout), seconds


def compare(names: Sequence[str], runs: int, venvs: Path, scratch: Path) -> Iterator[list[Row]]:
    """Yield the rows of each model; tools take turns, so that all see the same machine."""
    for name in names:
        question = question_of(name, scratch)
        rounds = [[run(tool, question, venvs, scratch) for tool in TOOLS] for _ in range(runs)]
        rows = [reference_row(question)]
        for tool, answers in zip(TOOLS, zip(*rounds, strict=True), strict=True):
            answer = answers[0][0]
            rows.append(
                Row(
                    model=name,
                    tool=tool.name,
                    card=tool.card,
                    call=call_of(tool, question, scratch),
                    answer=answer,
                    weight_ratio=ratio(answer.weight_bytes, question.weight_bytes),
                    kv_ratio=ratio(answer.kv_bytes, question.kv_bytes),
                    seconds=[seconds for _, seconds in answers],
                )
            )
        yield rows


def reference_row(question: Question) -> Row:
    """The exact sum; it says no where even the two alone are more than the card."""
    total_gib = (question.weight_bytes + question.kv_bytes) / GIB
    return Row(
        model=question.name,
        tool="reference",
        card="RTX PRO 6000",
        call=f"{question.context_tokens:,} tokens",
        answer=Answer(
            weight_bytes=question.weight_bytes,
            kv_bytes=question.kv_bytes,
            fits="no" if total_gib > CARD_GIB else "",
            message=f"weights + KV = {total_gib:.2f} of {CARD_GIB} GiB, before any overhead",
        ),
        weight_ratio=1.0,
        kv_ratio=1.0,
        seconds=[],
    )


def call_of(tool: Tool, question: Question, scratch: Path) -> str:
    """The command as one would type it, without the long program."""
    words = ["PROGRAM" if "\n" in word else word for word in tool.command(question)]
    return " ".join(words).replace(f"{scratch}/", "")


def ratio(value: float | None, exact: int) -> float | None:
    """How many times the exact value."""
    return None if value is None else value / exact


# --- printing ---------------------------------------------------------------------------------


def print_rows(rows: list[Row]) -> None:
    """Print one model's table; times against veche's are medians of the rounds' ratios."""
    reference, *others = rows
    print(f"\n{reference.model}, {reference.call}: {reference.answer.message}")
    print(
        f"{'tool':29}{'card':23}{'weights GiB':>11}{'x exact':>9}{'KV GiB':>9}{'x exact':>9}"
        f"{'fits':>7}{'s':>7}{'x veche':>9}"
    )
    for row in [reference, *others]:
        answer = row.answer
        pairs = zip(row.seconds, rows[1].seconds, strict=False)
        seconds = f"{statistics.median(row.seconds):.2f}" if row.seconds else ""
        paired = f"{statistics.median(a / b for a, b in pairs):.1f}" if row.seconds else ""
        print(
            f"{row.tool:29}{row.card:23}{gib(answer.weight_bytes):>11}{times(row.weight_ratio):>9}"
            f"{gib(answer.kv_bytes):>9}{times(row.kv_ratio):>9}{answer.fits:>7}{seconds:>7}"
            f"{paired:>9}"
        )
        if answer.message and row is not reference:
            print(f"  └ {answer.message[:150]}")


def gib(value: float | None) -> str:
    """Bytes as GiB."""
    return "-" if value is None else f"{value / GIB:.2f}"


def times(value: float | None) -> str:
    """A ratio."""
    return "-" if value is None else f"{value:.3f}"


def main() -> None:
    """Make the venvs, ask everybody, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--venvs", type=Path, default=ROOT / ".venv-peers")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    everything: list[Row] = []
    set_verbosity_error()
    make_venvs(options.venvs)
    with tempfile.TemporaryDirectory() as scratch:
        for rows in compare(options.models, options.runs, options.venvs.resolve(), Path(scratch)):
            everything += rows
            if not options.json:
                print_rows(rows)
    if options.json:
        rows_json = [asdict(row) for row in everything]
        print(json.dumps({"packages": PACKAGES, "rows": rows_json}, indent=2))
        return
    print("\nWhere a peer differs, by its source:")
    for tool in TOOLS:
        if tool.because:
            package = PACKAGES[tool.venv][0]
            print(f"· {tool.name} ({package.rpartition('==')[2]}): {tool.because}")


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(f"error: {error}")
