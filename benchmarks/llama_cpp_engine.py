"""One model in llama.cpp and in transformers: do they agree, and how fast is each?

    VECHE_LLAMA_CPP=.venv-llamacpp python benchmarks/llama_cpp_engine.py [MODEL_FOLDER]

Agreement: both engines read the same answer behind the same prompt in float32 (cache included);
expert sets are compared for each layer and token, router logits and next-token logits by value.
Speed: every side decodes the same number of tokens, alone and as a batch of 5 branches, behind the
same trunk; a llama.cpp side with `routing` has its routers listened to, one without has not.
Rounds are paired: each measures all sides, in alternating order, and medians are of rounds.
With --threads, speed is tokens per second of one thread's CPU time and not of the clock's, so that
others who use the machine change little.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

from veche.engines import llamacpp, transformers
from veche.engines.protocol import Branch, BranchResult, Capture, Sampling, scoring
from veche.surgery.gguf.export import export_gguf

_SYSTEM = "You are a helpful assistant."
_QUESTION = "Why do people hold councils, and when is it better that one of them decides?"
_ANSWER = (
    " A council hears many voices before it decides. Each voice sees something that the others "
    "miss, and a mistake is found before it is made. Where there is no time, one must decide; "
    "Решать одному быстрее, но ошибку тогда никто не заметит. When the matter is small, a council "
    "costs more than it brings."
)
_TASKS = ("Be direct.", "Explain.", "Be careful.", "Be fair.", "Object.")
_RESOLUTION = 4 * 2**-23
"""Logits that differ by less may be equal as float32 probabilities, by which both sides choose."""
_KINDS = ("f32", "bf16", "q8_0")


def main() -> None:
    """Measure and print one JSON object."""
    arguments = _arguments()
    if home := os.environ.get("VECHE_LLAMA_CPP"):
        sys.path.extend(str(path) for path in Path(home).glob("lib/python*/site-packages"))
    if find_spec("llama_cpp") is None:
        print("llama-cpp-python is not installed: see 'llama.cpp' in CONTRIBUTING.md")
        return
    with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
        files = {kind: Path(folder) / f"{kind}.gguf" for kind in _KINDS}
        for kind, file in files.items():
            export_gguf(arguments.model, file, type_name=kind)
        report: dict[str, Any] = {
            f"agreement, top_k {top_k or 'as it is'}": _agreement(arguments, files["f32"], top_k)
            for top_k in (None, *arguments.top_k)
        }
        if arguments.rounds:
            report["tokens_per_s"] = _speed(arguments, files)
    print(json.dumps(report, indent=2))


def _agreement(arguments: argparse.Namespace, file: Path, top_k: int | None) -> dict[str, Any]:
    wide = {
        "transformers": transformers.create(arguments.model, dtype="float32", top_k=top_k),
        "llama.cpp": llamacpp.create(file, kv_type="f32", threads=arguments.threads, top_k=top_k),
    }
    read = {name: _read(engine) for name, engine in wide.items()}
    one, two = (_Seen(read[name]) for name in ("transformers", "llama.cpp"))
    width = one.expert_ids.shape[-1]
    same = (np.sort(one.expert_ids, -1) == np.sort(two.expert_ids, -1)).all(-1)
    ordered = -np.sort(-one.router_logits, -1)
    margin = ordered[..., width - 1] - ordered[..., min(width, ordered.shape[-1] - 1)]
    distance = np.abs(one.router_logits - two.router_logits).max(-1)
    is_clear = margin > 2 * distance + _RESOLUTION
    log_p, log_q = (_log_softmax(side.logits) for side in (one, two))
    return {
        "answer_tokens": len(one.logits),
        "same_tokens": one.token_ids == two.token_ids,
        "layers_times_tokens": int(same.size),
        "expert_sets_equal": float(same.mean()),
        "expert_sets_equal_where_margin_beyond_rounding": float(same[is_clear].mean())
        if is_clear.any()
        else None,
        "share_with_margin_beyond_rounding": float(is_clear.mean()),
        "router_logits_max_difference": float(distance.max()),
        "router_logits_spread": float(one.router_logits.std()),
        "router_margin_median": float(np.median(margin)),
        "logits_max_difference_over_scale": float(
            np.abs(one.logits - two.logits).max() / np.abs(one.logits).max()
        ),
        "mean_kl_nats": float((np.exp(log_p) * (log_p - log_q)).sum(-1).mean()),
        "likeliest_token_equal": float((one.logits.argmax(-1) == two.logits.argmax(-1)).mean()),
    }


class _Seen:
    """What was asked for and is there."""

    def __init__(self, result: BranchResult) -> None:
        routing, logits = result.routing, result.logits
        if routing is None or routing.logits is None or logits is None:
            raise TypeError(result.voice)
        self.token_ids = result.token_ids
        self.expert_ids, self.router_logits, self.logits = (
            routing.expert_ids,
            routing.logits,
            logits,
        )


def _read(engine: Any) -> BranchResult:
    trunk = engine.open_trunk(system=_SYSTEM, user=_QUESTION)
    asked = Branch(voice="reader", instruction="", capture=Capture(router_logits=True, logits=True))
    return scoring(engine).score(trunk, [asked], [_ANSWER])[0]


def _log_softmax(logits_TV: np.ndarray) -> np.ndarray:
    shifted = logits_TV.astype(float) - logits_TV.max(-1, keepdims=True)
    difference: np.ndarray = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return difference


def _speed(arguments: argparse.Namespace, files: dict[str, Path]) -> dict[str, dict[str, float]]:
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    engines: dict[str, Any] = {}
    for dtype in ("float32", "bfloat16"):
        engines[f"transformers {dtype}"] = transformers.create(arguments.model, dtype=dtype)
        engines[f"transformers {dtype}"]._end_ids = frozenset()  # noqa: SLF001
    for kind, file in files.items():
        engine: Any = llamacpp.create(file, threads=arguments.threads)
        engine._vocabulary.is_end = lambda token_id: False  # noqa: SLF001
        engines[f"llama.cpp {kind}"] = engines[f"llama.cpp {kind} routing"] = engine
    sides = {name: _trunk(engine, arguments.trunk) for name, engine in engines.items()}
    rounds: dict[str, dict[int, list[float]]] = {name: {1: [], 5: []} for name in sides}
    for index in range(arguments.rounds + 1):
        for name in list(sides) if index % 2 else list(reversed(sides)):
            for width, measured in rounds[name].items():
                is_heard = not name.startswith("llama.cpp") or name.endswith("routing")
                clock = time.process_time if arguments.threads else time.perf_counter
                rate = _rate(engines[name], sides[name], width, arguments.new, is_heard, clock)
                measured.extend([rate] if index else [])  # the first round only warms up
    return {
        name: {f"{width} branches": statistics.median(rates) for width, rates in measured.items()}
        for name, measured in rounds.items()
    }


def _trunk(engine: Any, num_tokens: int) -> Any:
    words = " ".join([_QUESTION] * (num_tokens // engine.count_tokens(_QUESTION)))
    return engine.open_trunk(system=_SYSTEM, user=words)


def _rate(
    engine: Any,
    trunk: Any,
    num_branches: int,
    num_new: int,
    is_heard: bool,
    clock: Callable[[], float],
) -> float:
    asked = [
        Branch(
            voice=task,
            instruction=f" {task}",
            sampling=Sampling(max_new_tokens=num_new),
            capture=Capture(routing=is_heard),
        )
        for task in _TASKS[:num_branches]
    ]
    start = clock()
    results = engine.decode(trunk, asked)
    elapsed = clock() - start
    return sum(len(result.token_ids) for result in results) / elapsed


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", type=Path, default=Path("out/demo/model"))
    parser.add_argument("--top-k", type=int, nargs="*", default=[16], help="compare these too")
    parser.add_argument("--trunk", type=int, default=300)
    parser.add_argument("--new", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--work", type=Path, default=None, help="where the GGUF files go")
    return parser.parse_args()


if __name__ == "__main__":
    main()
