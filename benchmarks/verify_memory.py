"""How much memory, and how much time, do the two forms of `veche verify` take?

Usage: python benchmarks/verify_memory.py [folder] [--layers N ...] [--windows N]

Writes a random Mixtral of 100 MB a layer (8 experts, bf16), grows its experts and heads, and
verifies it in both forms, each in its own process. Memory is the highest resident size, less that
of a process that verified a tiny model. The limit stated in the project: two layers of the grown
checkpoint, and the states of the text.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODEL: dict[str, Any] = {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "hidden_size": 1024,
    "intermediate_size": 2048,
    "num_local_experts": 8,
    "num_experts_per_tok": 2,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 64,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e6,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
SMALL = {"hidden_size": 64, "intermediate_size": 64, "head_dim": 8}
FIELDS = {
    "moe_intermediate_size": {"value": "x1.125"},
    "num_attention_heads": {"value": 24},
    "num_key_value_heads": {"value": 6},
}
TEXT = "the council hears every voice, and the answer is four; nobody is asked twice. "
LIMIT_LAYERS = 2.0


@dataclass(frozen=True)
class Run:
    """One verification in its own process."""

    seconds: float
    peak_bytes: int


def tensors_of(config: dict[str, Any], num_layers: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the names and shapes of the model's tensors, layer by layer."""
    hidden, width, vocab = (
        config[key] for key in ("hidden_size", "intermediate_size", "vocab_size")
    )
    q_size = config["num_attention_heads"] * config["head_dim"]
    kv_size = config["num_key_value_heads"] * config["head_dim"]
    yield "model.embed_tokens.weight", (vocab, hidden)
    for layer in range(num_layers):
        prefix = f"model.layers.{layer}."
        yield f"{prefix}self_attn.q_proj.weight", (q_size, hidden)
        yield f"{prefix}self_attn.k_proj.weight", (kv_size, hidden)
        yield f"{prefix}self_attn.v_proj.weight", (kv_size, hidden)
        yield f"{prefix}self_attn.o_proj.weight", (hidden, q_size)
        yield f"{prefix}input_layernorm.weight", (hidden,)
        yield f"{prefix}post_attention_layernorm.weight", (hidden,)
        yield f"{prefix}block_sparse_moe.gate.weight", (config["num_local_experts"], hidden)
        for expert in range(config["num_local_experts"]):
            for name, shape in (("w1", (width, hidden)), ("w3", (width, hidden)),
                                ("w2", (hidden, width))):  # fmt: skip
                yield f"{prefix}block_sparse_moe.experts.{expert}.{name}.weight", shape
    yield "model.norm.weight", (hidden,)
    yield "lm_head.weight", (vocab, hidden)


def write_model(folder: Path, config: dict[str, Any], num_layers: int) -> Path:
    """Write a random model of one shard, with a byte-level tokenizer."""
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder.mkdir(parents=True)
    torch.manual_seed(0)
    tensors = {
        name: torch.ones(shape, dtype=torch.bfloat16)
        if len(shape) == 1
        else torch.empty(shape, dtype=torch.bfloat16).normal_(std=shape[-1] ** -0.5)
        for name, shape in tensors_of(config, num_layers)
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": num_layers}))
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: rank for rank, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return folder


def grow(source: Path, target: Path) -> Path:
    """Grow a model's experts and heads."""
    from veche.planning.planner import make_plan
    from veche.planning.recipe import Recipe
    from veche.surgery.build import build

    recipe = Recipe.model_validate({"name": "benchmark", "base": str(source), "fields": FIELDS})
    build(make_plan(recipe), source, target)
    return target


def verify_here(source: Path, target: Path, form: str, num_windows: int) -> None:
    """Verify in this process, and print the wall time and the highest resident size as JSON."""
    from veche.planning.plan import read_plan
    from veche.surgery.names import PLAN_NAME
    from veche.surgery.verification.verify import VerifySettings, verify

    settings = VerifySettings(
        num_windows=num_windows,
        window_tokens=256,
        form="long" if form == "long" else "short",
        device="cpu",
    )
    started = time.perf_counter()
    figures = verify(source, target, read_plan(target / PLAN_NAME), TEXT * 200, settings=settings)
    seconds = time.perf_counter() - started
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "peak": peak, "passed": figures.passed}))


def verify_alone(source: Path, target: Path, form: str, num_windows: int) -> Run:
    """Verify in a new process."""
    command = [sys.executable, __file__, "--one", str(source), str(target), form]
    done = subprocess.run(
        [*command, "--windows", str(num_windows)], check=True, stdout=subprocess.PIPE, text=True
    )
    result = json.loads(done.stdout.splitlines()[-1])
    if not result["passed"]:
        raise SystemExit(f"{target}: the {form} form says that the growth is not exact")
    return Run(result["seconds"], result["peak"])


def layer_bytes(folder: Path) -> int:
    """Return the bytes of one layer's tensors."""
    from veche.checkpoint.reader import open_checkpoint

    tensors = open_checkpoint(folder).tensors.values()
    return sum(info.num_bytes for info in tensors if info.name.startswith("model.layers.0."))


def measure(folder: Path, depths: list[int], num_windows: int) -> None:
    """Make the models, verify them and print."""
    small = write_model(folder / "small", {**MODEL, **SMALL}, 2)
    small_grown = grow(small, folder / "small-grown")
    base = {form: verify_alone(small, small_grown, form, num_windows) for form in ("long", "short")}
    print(f"imports and a tiny model: {base['long'].peak_bytes / 1e6:.0f} MB")
    for depth in depths:
        source = write_model(folder / f"source-{depth}", MODEL, depth)
        target = grow(source, folder / f"grown-{depth}")
        layer = layer_bytes(target)
        print(f"{depth} layers of {layer / 1e6:.0f} MB, grown:")
        runs = {}
        for form, tiny in base.items():
            run = runs[form] = verify_alone(source, target, form, num_windows)
            extra = run.peak_bytes - tiny.peak_bytes
            print(
                f"  {form:<6}{run.seconds:>8.1f} s  peak {run.peak_bytes / 1e6:>6.0f} MB, "
                f"{extra / layer:>5.2f} layers above the tiny model's",
                flush=True,
            )
        long, short = runs["long"], runs["short"]
        share = (long.peak_bytes - base["long"].peak_bytes) / (LIMIT_LAYERS * layer)
        print(
            f"  long / short: {long.seconds / short.seconds:.2f} of the time, "
            f"{long.peak_bytes / short.peak_bytes:.2f} of the memory; of the limit: {share:.2f}"
        )


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--layers", nargs="*", type=int, default=[12])
    parser.add_argument("--windows", type=int, default=2)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        source, target, form = arguments.one
        verify_here(Path(source), Path(target), form, arguments.windows)
    elif arguments.folder is not None:
        measure(arguments.folder.resolve(), arguments.layers, arguments.windows)
    else:
        with tempfile.TemporaryDirectory() as scratch:
            measure(Path(scratch), arguments.layers, arguments.windows)


if __name__ == "__main__":
    main()
