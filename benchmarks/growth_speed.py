"""How fast does a checkpoint grow? Beside `cp -r` of the result, and mergekit copying the source.

Usage: python benchmarks/growth_speed.py [--scratch FOLDER] [--runs 3] [--layers 2 8]
                                         [--workers 1 2] [--no-mergekit]

The source is random, of Qwen3-30B-A3B's real layer shape (128 experts of 768, hidden size 2048,
vocabulary 151,936), in shards of at most a gigabyte: 3.7 GB with two layers, 11 GB with eight, as
the hub's cache lays it out (where a file's name is its hash). It is grown by the structure of the
recipe `agi`: experts to 1024, heads 32/4 to 48/8. All that is timed ends with its files flushed to
the disk; runs alternate. Peak memory is the kernel's maximum resident set of the whole process.
mergekit 0.1.5 gets a venv under .venv-peers, which sees this one's torch and transformers.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from veche.checkpoint.reader import INDEX_NAME, open_checkpoint
from veche.checkpoint.writer import TensorOut, copied, write_index, write_shard
from veche.core.files import sha256_of
from veche.planning.bases import load_base
from veche.planning.planner import make_plan
from veche.planning.recipe import Recipe
from veche.surgery.grow import grown_tensors
from veche.surgery.operations.randomness import gaussian, words

ROOT = Path(__file__).parent.parent
MERGEKIT = ROOT / ".venv-peers" / "mergekit"
SHARD_BYTES = 1 << 30
FIELDS = ("moe_intermediate_size=1024", "num_attention_heads=48", "num_key_value_heads=8")
BF16 = np.dtype(ml_dtypes.bfloat16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds of wall time, peak resident bytes, and seconds of processor time."""

    seconds: float
    peak_bytes: int
    processor_s: float


def make_source(scratch: Path, num_layers: int, *, is_plain: bool = False) -> Path:
    """Write a random checkpoint of the real shape, once, as the hub's cache lays it out.

    Args:
        scratch: where.
        num_layers: how many.
        is_plain: return the same files as a plain folder, whose hashes nobody tells.
    """
    cache = scratch / f"models--veche--random-{num_layers}"
    snapshot, blobs, folder = cache / "snapshots" / "0", cache / "blobs", scratch / "src"
    if not (snapshot / "config.json").exists():
        write_source(folder, num_layers)
        snapshot.mkdir(parents=True)
        blobs.mkdir()
        for file in folder.iterdir():
            blob = blobs / sha256_of(file)
            file.rename(blob)
            (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
        folder.rmdir()
    if not is_plain:
        return snapshot
    folder.mkdir(exist_ok=True)
    for file in snapshot.iterdir():
        (folder / file.name).unlink(missing_ok=True)
        os.link(file.resolve(), folder / file.name)
    return folder


def write_source(folder: Path, num_layers: int) -> None:
    """Write a random checkpoint of the real shape."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = {**load_base("qwen3-30b-a3b"), "num_hidden_layers": num_layers}
    shards: list[list[TensorOut]] = [[]]
    for tensor in _tensors(num_layers):
        if sum(each.num_bytes for each in shards[-1]) + tensor.num_bytes > SHARD_BYTES:
            shards.append([])
        shards[-1].append(tensor)
    weight_map = {}
    for number, tensors in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_shard(folder / name, tensors, {"format": "pt"})
        weight_map.update({tensor.name: name for tensor in tensors})
    write_index(folder / INDEX_NAME, weight_map, sum(t.num_bytes for s in shards for t in s))
    (folder / "config.json").write_text(json.dumps(config))


def _tensors(num_layers: int) -> list[TensorOut]:
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (151_936, 2048)}
    for layer in range(num_layers):
        prefix = f"model.layers.{layer}"
        for name, rows, columns in (
            ("q", 4096, 2048), ("k", 512, 2048), ("v", 512, 2048), ("o", 2048, 4096)
        ):  # fmt: skip
            shapes[f"{prefix}.self_attn.{name}_proj.weight"] = (rows, columns)
        for name in ("q_norm", "k_norm"):
            shapes[f"{prefix}.self_attn.{name}.weight"] = (128,)
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{prefix}.{name}.weight"] = (2048,)
        shapes[f"{prefix}.mlp.gate.weight"] = (128, 2048)
        for expert in range(128):
            for name in ("gate_proj", "up_proj"):
                shapes[f"{prefix}.mlp.experts.{expert}.{name}.weight"] = (768, 2048)
            shapes[f"{prefix}.mlp.experts.{expert}.down_proj.weight"] = (2048, 768)
    shapes["model.norm.weight"] = (2048,)
    shapes["lm_head.weight"] = (151_936, 2048)
    return [_random_tensor(name, shape) for name, shape in shapes.items()]


def _random_tensor(name: str, shape: tuple[int, ...]) -> TensorOut:
    def produce() -> Iterator[memoryview]:
        columns = shape[-1]
        rows = int(np.prod(shape)) // columns
        for start in range(0, rows, 2048):
            numbers = np.arange(start, min(start + 2048, rows))
            values = gaussian(words(numbers, columns, 0, name), 0.02, BF16)
            yield values.view(np.uint8).reshape(-1).data

    return TensorOut(name=name, dtype="BF16", shape=shape, produce=produce)


def timed(command: Sequence[str]) -> Timing:
    """Run a command to its end."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    stderr = process.stderr.read().decode() if process.stderr else ""
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{stderr[-2000:]}")
    return Timing(
        seconds=seconds,
        peak_bytes=usage.ru_maxrss * 1024,
        processor_s=usage.ru_utime + usage.ru_stime,
    )


def flush(folder: Path, timing: Timing) -> Timing:
    """Add the time that it takes to flush a folder's files to the disk."""
    started = time.perf_counter()
    for file in folder.iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    seconds = timing.seconds + time.perf_counter() - started
    return Timing(seconds=seconds, peak_bytes=timing.peak_bytes, processor_s=timing.processor_s)


def grow(source: Path, target: Path, num_workers: int) -> Timing:
    """Run `veche build`."""
    shutil.rmtree(target, ignore_errors=True)
    chosen = [part for field in FIELDS for part in ("--set", field)]
    return timed(
        [
            str(Path(sys.executable).parent / "veche"), "build", str(recipe(target)),
            "--source", str(source), "--out", str(target), "--workers", str(num_workers), *chosen,
        ]
    )  # fmt: skip


def recipe(beside: Path) -> Path:
    """Write an empty recipe: what is wanted is set on the command line."""
    file = beside.parent / "structure.yaml"
    file.write_text("name: structure\nbase: qwen3-30b-a3b\nfields: {}\n")
    return file


def copy(source: Path, target: Path) -> Timing:
    """Run `cp -r` and flush what it wrote."""
    shutil.rmtree(target, ignore_errors=True)
    return flush(target, timed(["cp", "-r", str(source), str(target)]))


def mergekit(source: Path, target: Path) -> Timing:
    """Run mergekit's passthrough merge of the source and flush what it wrote."""
    install_mergekit()
    shutil.rmtree(target, ignore_errors=True)
    config = target.parent / "passthrough.yaml"
    config.write_text(f"merge_method: passthrough\nmodels:\n  - model: {source}\ndtype: bfloat16\n")
    binary = MERGEKIT / "bin" / "mergekit-yaml"
    command = [str(binary), str(config), str(target), "--lazy-unpickle", "--no-copy-tokenizer"]
    return flush(target, timed(command))


def install_mergekit() -> None:
    """Make its venv, once."""
    if (MERGEKIT / "bin" / "mergekit-yaml").is_file():
        return
    subprocess.run([sys.executable, "-m", "venv", str(MERGEKIT)], check=True)
    ours = next(path for path in sys.path if path.endswith("site-packages"))
    theirs = next((MERGEKIT / "lib").glob("python*/site-packages"))
    (theirs / "veche-benchmark.pth").write_text(ours + "\n")
    packages = ("mergekit==0.1.5", "immutables", "peft", "scipy", "sentencepiece", "protobuf")
    pip = [str(MERGEKIT / "bin" / "python"), "-m", "pip", "install", "-q", "--no-deps", *packages]
    subprocess.run(pip, check=True)


def compare(scratch: Path, num_layers: int, workers: Sequence[int], runs: int) -> None:
    """Print medians of growing, and of copying the result, in alternating runs."""
    target, copied_folder = (scratch / f"{name}-{num_layers}" for name in ("out", "cp"))
    source = make_source(scratch, num_layers)
    grown: dict[int, list[Timing]] = {count: [] for count in workers}
    copies: list[Timing] = []
    grow(source, target, workers[-1])  # the first run finds the page cache cold
    for _ in range(runs):
        for count in workers:
            grown[count].append(grow(source, target, count))
        copies.append(copy(target, copied_folder))
    size = sum(file.stat().st_size for file in target.glob("*.safetensors"))
    base = sum(file.stat().st_size for file in source.glob("*.safetensors"))
    reference = statistics.median(timing.seconds for timing in copies)
    print(f"{num_layers} layers: {base / 1e9:.2f} → {size / 1e9:.2f} GB")
    print(f"  cp -r of the result: {reference:.1f} s ({_spread(copies)})")
    for count, timings in grown.items():
        seconds = statistics.median(timing.seconds for timing in timings)
        ratios = [g.seconds / c.seconds for g, c in zip(timings, copies, strict=True)]
        print(
            f"  veche build, {count} workers: {seconds:.1f} s ({_spread(timings)}), "
            f"{statistics.median(ratios):.2f} × cp, "
            f"{max(timing.peak_bytes for timing in timings) / 1e6:.0f} MB at most, "
            f"{statistics.median(timing.processor_s for timing in timings):.1f} s of processor"
        )
    profile(source, target)
    shutil.rmtree(copied_folder)
    shutil.rmtree(target)


def profile(source: Path, target: Path) -> None:
    """Print what one thread takes to read, to make and to hash; the rest is writing."""
    checkpoint = open_checkpoint(source)
    plan = make_plan(
        Recipe.model_validate(
            {"name": "structure", "base": str(source), "fields": dict(_pairs(FIELDS))}
        )
    )
    made = grown_tensors(plan, checkpoint).values()
    parts: dict[str, Callable[[], object]] = {
        "read the source": lambda: _exhaust(copied(i) for i in checkpoint.tensors.values()),
        "read it and make the result": lambda: _exhaust(made),
        "hash the result": lambda: [sha256_of(file) for file in target.glob("*.safetensors")],
        "hash the source (not in the hub's cache)": lambda: [
            sha256_of(file) for file in source.glob("*.safetensors")
        ],
    }
    print("  one thread, nothing written:")
    for name, work in parts.items():
        started = time.perf_counter()
        work()
        print(f"    {name}: {time.perf_counter() - started:.1f} s")


def _pairs(fields: Sequence[str]) -> Iterator[tuple[str, int]]:
    for field in fields:
        name, value = field.split("=")
        yield name, int(value)


def _exhaust(tensors: Iterable[TensorOut]) -> None:
    for tensor in tensors:
        for _ in tensor.produce():
            pass


def beside_mergekit(scratch: Path, runs: int) -> None:
    """Print medians of growing and of mergekit's copy of the source, in alternating runs."""
    target, merged = (scratch / name for name in ("out-2", "mergekit-2"))
    plain, source = (make_source(scratch, 2, is_plain=is_plain) for is_plain in (True, False))
    ours, theirs, hashing = [], [], []
    for _ in range(runs):
        ours.append(grow(source, target, 2))
        theirs.append(mergekit(source, merged))
        hashing.append(grow(plain, target, 2))
    ratios = [their.seconds / our.seconds for our, their in zip(ours, theirs, strict=True)]
    print(
        f"mergekit 0.1.5 passthrough of the source: {_spread(theirs)} s, "
        f"{max(timing.peak_bytes for timing in theirs) / 1e6:.0f} MB at most; veche grows it in "
        f"{_spread(ours)} s: {statistics.median(ratios):.2f} × as fast; "
        f"from a plain folder, which it hashes too, in {_spread(hashing)} s"
    )
    shutil.rmtree(target)
    shutil.rmtree(merged)


def _spread(timings: Sequence[Timing]) -> str:
    seconds = sorted(timing.seconds for timing in timings)
    return f"{seconds[0]:.1f}–{seconds[-1]:.1f}"


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--scratch", type=Path, help="a folder on the disk to measure; kept")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--no-mergekit", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        scratch = arguments.scratch or Path(temporary)
        scratch.mkdir(parents=True, exist_ok=True)
        for num_layers in arguments.layers:
            compare(scratch, num_layers, arguments.workers, arguments.runs)
        if not arguments.no_mergekit:
            beside_mergekit(scratch, arguments.runs)


if __name__ == "__main__":
    main()
