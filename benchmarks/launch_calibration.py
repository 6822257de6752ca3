"""Set the launch arithmetic against numbers from real engine logs.

    python benchmarks/launch_calibration.py [rows.csv]

A row is one number of one run, with its source: see tests/launch/data/engine_logs.csv.
Rows that say too little (no share of memory, unknown model) are listed as skipped, with the reason.
"""

import argparse
import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from veche.checkpoint.config import spec_of
from veche.checkpoint.spec import ModelSpec
from veche.core.errors import InputError
from veche.launch.case import ENGINES, Case, EngineName
from veche.launch.gpus import GIB, find_gpu
from veche.launch.layout import Layout
from veche.launch.memory import memory_of
from veche.launch.overhead import StepSize
from veche.launch.speed import Workload, decode_band, step_seconds
from veche.launch.support import engines_own_step
from veche.planning.gguf_types import gguf_metadata_bytes
from veche.planning.kv_cache import kv_bytes_per_token
from veche.planning.quantization import weight_bytes

Row = dict[str, str]
DATA = Path(__file__).parent.parent / "tests/launch/data"
SHIPPED_ROWS = DATA / "engine_logs.csv"
DEFAULT_CONCURRENCY_CONTEXT = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One row: what kind of check it is, and how it went; holds is None where it was skipped."""

    row: Row
    kind: str
    holds: bool | None
    predicted: str

    def __str__(self) -> str:
        mark = {True: "ok  ", False: "MISS", None: "skip"}[self.holds]
        row = self.row
        return (
            f"{mark} {self.kind:11} {row['id']} {row['model'][:34]:34} {row['quant'][:12]:12} "
            f"{row['quantity'][:28]:28} {row['value']:>13} {row['unit']:6} {self.predicted}"
        )


def judge(row: Row) -> Verdict | None:
    """Check one row; None where it is of a kind that veche does not predict."""
    check = next((check for kinds, check in CHECKS if row["quantity"] in kinds), None)
    if check is None:
        return None
    try:
        return check(row)
    except InputError as error:
        return Verdict(row=row, kind="", holds=None, predicted=error.message)


def check_file(row: Row) -> Verdict:
    """A GGUF file: exact to the byte but for metadata if bytes are given, else as rounded."""
    spec, recipe = model_of(row), row["quant"]
    tensors = weight_bytes(spec, recipe)
    value = float(row["value"])
    if row["unit"] == "bytes":
        rest = round(value) - tensors
        holds = 0 <= rest <= 1.01 * gguf_metadata_bytes(spec)
        return Verdict(row=row, kind="gguf bytes", holds=holds, predicted=f"{rest:,} B beside")
    unit = GIB if row["unit"] == "GiB" else 1e9
    predicted = (tensors + gguf_metadata_bytes(spec)) / unit
    holds = abs(predicted - value) <= 0.003 * value
    return Verdict(row=row, kind="gguf size", holds=holds, predicted=f"{predicted:.2f}")


def check_weights(row: Row) -> Verdict:
    """Loaded weights of one card: within 0.3 %, or the half of the log's last digit."""
    case = case_of(row)
    size = memory_of(case).loaded_bytes_per_gpu / GIB
    away = float(row["value"]) - size
    holds = abs(away) <= max(0.003 * size, 0.005)
    return Verdict(
        row=row, kind="weights", holds=holds, predicted=f"{size:.4f} ({away / size:+.2%})"
    )


def check_kv(row: Row) -> Verdict:
    """The KV cache of one card, in GiB or tokens: inside the interval."""
    case = case_of(row)
    memory = memory_of(case)
    low, high = memory.kv_available_bytes
    size = float(row["value"]) * GIB
    if row["unit"] == "tokens":
        size = float(row["value"]) * memory.kv_bytes_per_token_per_gpu
    return Verdict(
        row=row,
        kind="kv interval",
        holds=low <= size <= high,
        predicted=f"{size / GIB:.2f} in [{low / GIB:.2f}, {high / GIB:.2f}] GiB",
    )


def check_speed(row: Row) -> Verdict:
    """Decode speed: inside the band, whose ends differ at most by a factor of two."""
    case, work = case_of(row), workload_of(row)
    seconds = step_seconds(
        case.spec,
        case.gpu,
        engine=case.engine,
        quantization_name=case.quantization,
        kv_dtype=case.kv_dtype,
        layout=case.layout,
        work=work,
    )
    slow, fast = decode_band(seconds)
    value = float(row["value"])
    if row["quantity"].startswith("tpot"):
        value = 1000 / value
    elif "throughput" in row["quantity"]:
        slow, fast = slow * work.sessions, fast * work.sessions
        value /= replicas_of(row)
    return Verdict(
        row=row,
        kind="decode band",
        holds=slow <= value <= fast and fast <= 2 * slow,
        predicted=f"{value:.1f} in [{slow:.1f}, {fast:.1f}] at batch {work.sessions}",
    )


CHECKS: tuple[tuple[frozenset[str], Callable[[Row], Verdict]], ...] = (
    (frozenset({"file_size"}), check_file),
    (frozenset({"weights"}), check_weights),
    (frozenset({"kv_available", "kv_cache_tokens", "kv_cache_tokens_per_rank"}), check_kv),
    (
        frozenset({"tg128", "tpot_median", "output_throughput", "decode_per_user_6users"}),
        check_speed,
    ),
)


def arithmetic(rows: list[Row]) -> Iterable[tuple[str, float]]:
    """Yield tokens · bytes a token against GiB that the same run logged, as relative errors."""
    runs: dict[tuple[str, ...], dict[str, Row]] = {}
    for row in rows:
        key = (row["source_url"], row["engine"], row["gpu"], row["quant"])
        runs.setdefault(key, {})[row["quantity"]] = row
    for run in runs.values():
        for tokens_of, size_of in (
            ("kv_cache_tokens", "kv_available"),
            ("estimated_max_model_len", "kv_needed_at_max_len"),
        ):
            if tokens_of in run and size_of in run:
                yield _pair(run[tokens_of], run[size_of])
    for row in rows:
        if sizes := re.findall(r"[KV] size: ([\d.]+) GB", row["quote"]):
            each = _per_token(row)
            yield row["id"], float(row["value"]) * each / GIB / sum(map(float, sizes)) - 1


def _pair(tokens: Row, size: Row) -> tuple[str, float]:
    count = float(tokens["value"])
    if size["quantity"] == "kv_needed_at_max_len":
        count = float(size["max_model_len"])
    return size["id"], count * _per_token(tokens) / GIB / float(size["value"]) - 1


def _per_token(row: Row) -> int:
    ranks = int(flag(row, r"\btp=(\d+)") or 1)
    return kv_bytes_per_token(model_of(row), kv_of(row), tensor_parallel=ranks)


def case_of(row: Row) -> Case:
    """Read what a row says about its run.

    Raises:
        InputError: it says too little.
    """
    engine = engine_of(row)
    gpu = find_gpu(gpu_name(row["gpu"]))
    usual = engines_own_step(engine, gpu)
    return Case(
        engine=engine,
        spec=model_of(row),
        gpu=gpu,
        layout=Layout(
            tensor_parallel=int(flag(row, r"\btp=(\d+)") or 1),
            data_parallel=int(flag(row, r"\bdp=(\d+)") or 1),
            has_expert_parallel="expert_parallel" in row["other_flags"],
        ),
        quantization=quantization_of(row["quant"]),
        kv_dtype=kv_of(row) if engine != "llama.cpp" else "f16",
        utilization=utilization_of(row, engine),
        engine_version=row["version"] or None,
        context_tokens=int(row["max_model_len"]) if row["max_model_len"].isdigit() else 4096,
        step=StepSize(
            batched_tokens=int(flag(row, r"max_num_batched_tokens=(\d+)") or usual.batched_tokens),
            sequences=int(flag(row, r"max_num_seqs=(\d+)") or usual.sequences),
        ),
    )


def workload_of(row: Row) -> Workload:
    """How many sequences a benchmark row decoded at once, and behind what.

    As many of the concurrent requests as the cache holds; each step reads as many prompt tokens
    as it decodes where prompts and answers are equally long. One request alone is never delayed
    by another's prompt.
    """
    if users := flag(row, r"(\d+) users"):
        preamble = int(flag(row, r"(\d+)k preamble") or 0) * 1000
        return Workload(sessions=int(users), context_tokens=preamble + 1000, shared_tokens=preamble)
    concurrency = flag(row, r"concurrency (\d+)")
    if not concurrency:
        return Workload(context_tokens=128 if row["quantity"] == "tg128" else 1024)
    prompt = int(flag(row, r"(\d+) in/") or DEFAULT_CONCURRENCY_CONTEXT)
    answer = int(flag(row, r"in/(\d+) out") or DEFAULT_CONCURRENCY_CONTEXT)
    context = prompt + answer // 2
    tokens = sum(memory_of(case_of(row)).kv_available_tokens) // 2
    sessions = max(1, min(int(concurrency) // replicas_of(row), tokens // context))
    prefill = 0 if int(concurrency) == 1 else sessions * prompt // answer
    return Workload(sessions=sessions, context_tokens=context, prefill_tokens=prefill)


def replicas_of(row: Row) -> int:
    """Independent servers behind one number."""
    return int(flag(row, r"x ?(\d+) replicas") or 1)


def flag(row: Row, pattern: str) -> str | None:
    """Find something in a row's free text."""
    match = re.search(pattern, row["other_flags"])
    return match[1] if match else None


def engine_of(row: Row) -> EngineName:
    """Which engine; experts on the CPU are another matter."""
    for engine in ENGINES:
        if row["engine"] == engine:
            return engine
    raise InputError(f"no prediction for the engine {row['engine']!r}")


def utilization_of(row: Row, engine: EngineName) -> float:
    """The share of memory, where it is said or the default is known."""
    if engine == "llama.cpp":
        return 1.0
    if match := re.search(r"0\.\d+", row["gpu_mem_util"]):
        return float(match[0])
    if row["quantity"] in {"kv_available", "kv_cache_tokens"}:
        raise InputError("the row does not say which share of memory was given")
    return 0.9


def gpu_name(text: str) -> str:
    """A card's name without its memory and power."""
    name = re.sub(r"\b(\d+ ?GB|\d+W|Edition|unified|Blackwell|\(.*\))\b|[(),]", " ", text)
    name = " ".join(name.split()).lower().removesuffix(" workstation")
    return {"gb10 dgx spark": "gb10"}.get(name, name).replace(" ", "-")


def kv_of(row: Row) -> str:
    """`auto` is the model's own data type."""
    return "fp8" if row["kv_dtype"].startswith("fp8") else "bf16"


def quantization_of(text: str) -> str:
    """`fp8 (runtime)` → fp8-tensor."""
    return "fp8-tensor" if "runtime" in text else text


def model_of(row: Row) -> ModelSpec:
    """The shape of the row's model.

    Raises:
        InputError: it is not one of those in models.json.
    """
    for name, config in _models().items():
        if name in row["model"]:
            return spec_of(config)
    raise InputError(f"the model {row['model']!r} is not known here")


@cache
def _models() -> dict[str, dict[str, object]]:
    models: dict[str, dict[str, object]] = json.loads((DATA / "models.json").read_text())
    return models


def report(rows: list[Row]) -> dict[str, tuple[int, int]]:
    """Print every row's verdict, and return how many of each kind hold, of how many."""
    held: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for row in rows:
        verdict = judge(row)
        if verdict is None:
            continue
        print(verdict)
        if verdict.holds is not None:
            total[verdict.kind] += 1
            held[verdict.kind] += verdict.holds
    for name, error in arithmetic(rows):
        total["kv tokens"] += 1
        held["kv tokens"] += abs(error) <= 0.001
        print(f"{'ok  ' if abs(error) <= 0.001 else 'MISS'} kv tokens   {name} {error:+.3%}")
    return {kind: (held[kind], total[kind]) for kind in total}


def read_rows(path: Path) -> list[Row]:
    """Read a table of log numbers."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    """Judge the rows of a file, by default those in the repository."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("rows", nargs="?", type=Path, default=SHIPPED_ROWS, help="a CSV file")
    for kind, (held, total) in sorted(report(read_rows(parser.parse_args().rows)).items()):
        print(f"{kind:12} {held}/{total} ({held / total:.0%})")


if __name__ == "__main__":
    main()
