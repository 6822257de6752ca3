"""A council's shape: N branches over one prefilled trunk, against N calls of generate().

    python benchmarks/council_branches.py [MODEL] [--branches 5] [--trunk 1500] [--suffix 32]
                                          [--new 64] [--rounds 3] [--dtype auto]

Sides, of one checkpoint, greedy, each decoding exactly the same number of tokens:

  branches   our engine, one trunk and one batch
  alone      our engine, one branch at a time over a fresh trunk: what sharing gains, apart from the
             loop
  generate   transformers' own generate() as it comes, once for each prompt
  reused     generate() over a copy of one prefilled cache (its own way to reuse a prefix)

Rounds are paired: each measures all sides, in alternating order; medians are of rounds.

The bound of sharing: prefill N (P + s) / (P + N s) times, decode N times as fast as alone. With
p the seconds of one prefill of P + s tokens and d of one decode, measured alone, N branches take at
least p (P + N s) / (P + s) + d. `share_of_bound` is that bound over what the branches took.

Memory: bytes of keys and values as allocated, and the process's peak over what it held before
(VmHWM, which Linux can reset; glibc's arenas are trimmed before).
"""

import argparse
import copy
import ctypes
import gc
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, DynamicCache

from veche.engines.embedded.engine import EmbeddedEngine
from veche.engines.protocol import Branch, BranchResult, Capture, Sampling
from veche.engines.transformers import create

_SYSTEM = "You are a helpful assistant."
_SENTENCE = "The assembly met by the river, and every voice was heard before anyone decided. "
_TASKS = (" Be direct.", " Explain your reasoning.", " Be exact.", " Be fair.", " Object.")
Timed = dict[str, float]


class Bench:
    """Both models, and the prompts."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        engine = create(arguments.model, dtype=arguments.dtype)
        if not isinstance(engine, EmbeddedEngine):
            raise TypeError(type(engine))
        # No end token on our side: both sides decode the same number of tokens.
        engine._end_ids = frozenset()  # noqa: SLF001
        self.engine = engine
        self.peer: Any = AutoModelForCausalLM.from_pretrained(
            arguments.model,
            dtype=engine._model.dtype,  # noqa: SLF001
        ).eval()
        self.peer.generation_config.eos_token_id = None  # on both sides
        self.num_new = arguments.new
        chat = engine._format  # noqa: SLF001
        self.user = _SENTENCE * (arguments.trunk // len(chat.text_ids(_SENTENCE)))
        self.tasks = [_task(engine, index, arguments.suffix) for index in range(arguments.branches)]
        self.head = chat.head_ids(_SYSTEM, self.user)
        self.suffixes = [chat.suffix_ids(task) for task in self.tasks]
        self.said: dict[str, list[list[int]]] = {}

    def branches(self) -> Timed:
        """One trunk, one batch."""
        start = time.perf_counter()
        trunk = self.engine.open_trunk(system=_SYSTEM, user=self.user)
        opened = time.perf_counter()
        results = self._decode(trunk, self.tasks)
        end = time.perf_counter()
        self.said["branches"] = [list(result.token_ids) for result in results]
        self.engine.close_trunk(trunk)
        return {"total_s": end - start, "trunk_s": opened - start}

    def alone(self) -> Timed:
        """One branch at a time; the prefill is timed by a branch of one token."""
        total, prefill = 0.0, 0.0
        for task in self.tasks:
            start = time.perf_counter()
            trunk = self.engine.open_trunk(system=_SYSTEM, user=self.user)
            self._decode(trunk, [task], num_new=1)
            prefill += time.perf_counter() - start
            self.engine.close_trunk(trunk)
            start = time.perf_counter()
            trunk = self.engine.open_trunk(system=_SYSTEM, user=self.user)
            self._decode(trunk, [task])
            total += time.perf_counter() - start
            self.engine.close_trunk(trunk)
        num = len(self.tasks)
        return {"total_s": total, "prefill_s": prefill / num, "decode_s": (total - prefill) / num}

    def generate(self) -> Timed:
        """Whole prompts, one after the other."""
        start = time.perf_counter()
        self.said["generate"] = [self._generate(suffix, None) for suffix in self.suffixes]
        return {"total_s": time.perf_counter() - start}

    def reused(self) -> Timed:
        """A copy of one prefilled cache for each prompt."""
        start = time.perf_counter()
        with torch.inference_mode():
            cache = self.peer(
                torch.tensor([self.head]), past_key_values=DynamicCache(), logits_to_keep=1
            ).past_key_values
            self.said["reused"] = [
                self._generate(suffix, copy.deepcopy(cache)) for suffix in self.suffixes
            ]
        return {"total_s": time.perf_counter() - start}

    def memory(self) -> dict[str, Any]:
        """Return bytes of keys and values, and peaks over what was held before."""
        per_token = self.engine.memory.bytes_per_token
        num = len(self.tasks)
        own = max(map(len, self.suffixes)) + self.num_new
        before = _reset_peak()
        self.branches()
        shared_peak = _peak() - before
        before = _reset_peak()
        caches = [self._separate(suffix) for suffix in self.suffixes]
        separate_peak = _peak() - before
        del caches
        return {
            "kv_bytes_per_token": per_token,
            "shared_kv_bytes": per_token * (len(self.head) + num * own),
            "separate_kv_bytes": per_token * num * (len(self.head) + own),
            "kv_ratio": num * (len(self.head) + own) / (len(self.head) + num * own),
            "shared_peak_bytes": shared_peak,
            "separate_peak_bytes": separate_peak,
        }

    def _separate(self, suffix: list[int]) -> Any:
        cache = DynamicCache()
        self._generate(suffix, cache, num_new=2)
        return cache

    def _decode(
        self, trunk: Any, tasks: list[str], num_new: int | None = None
    ) -> list[BranchResult]:
        sampling = Sampling(max_new_tokens=num_new or self.num_new)
        return self.engine.decode(
            trunk,
            [
                Branch(
                    voice=str(index),
                    instruction=task,
                    sampling=sampling,
                    capture=Capture(routing=False),
                )
                for index, task in enumerate(tasks)
            ],
        )

    def _generate(self, suffix: list[int], cache: Any, num_new: int | None = None) -> list[int]:
        ids = torch.tensor([self.head + suffix])
        num_new = num_new or self.num_new
        generated = self.peer.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            past_key_values=cache,
            max_new_tokens=num_new,
            do_sample=False,
            pad_token_id=0,
        )
        return [int(token) for token in generated[0, ids.shape[1] :]]


def main() -> None:
    """Measure and print one JSON object."""
    arguments = _arguments()
    bench = Bench(arguments)
    sides: dict[str, Callable[[], Timed]] = {
        "branches": bench.branches,
        "alone": bench.alone,
        "reused": bench.reused,
        "generate": bench.generate,
    }
    rounds: list[dict[str, Timed]] = []
    for index in range(arguments.rounds):
        order = list(sides) if index % 2 else list(reversed(sides))
        if index == 0:
            bench.branches()  # warms up
        rounds.append({name: sides[name]() for name in order})
    print(json.dumps(_report(bench, rounds), indent=2))


def _report(bench: Bench, rounds: list[dict[str, Timed]]) -> dict[str, Any]:
    num, trunk = len(bench.tasks), len(bench.head)
    suffix = statistics.mean(map(len, bench.suffixes))
    return {
        "model": bench.engine.name,
        "dtype": str(bench.engine._model.dtype),  # noqa: SLF001
        "threads": torch.get_num_threads(),
        "branches": num,
        "trunk_tokens": trunk,
        "mean_suffix_tokens": suffix,
        "new_tokens": bench.num_new,
        "rounds": len(rounds),
        "seconds": {
            side: statistics.median(each[side]["total_s"] for each in rounds) for side in rounds[0]
        },
        "trunk_s": statistics.median(each["branches"]["trunk_s"] for each in rounds),
        "alone_prefill_s": statistics.median(each["alone"]["prefill_s"] for each in rounds),
        "alone_decode_s": statistics.median(each["alone"]["decode_s"] for each in rounds),
        "generate_over_branches": _ratios(rounds, "generate"),
        "reused_over_branches": _ratios(rounds, "reused"),
        "alone_over_branches": _ratios(rounds, "alone"),
        "bound_prefill": num * (trunk + suffix) / (trunk + num * suffix),
        "bound_decode": num,
        "share_of_bound": _spread([_share(each, num, trunk, suffix) for each in rounds]),
        "equal_answers": {
            side: sum(map(list.__eq__, bench.said["branches"], bench.said[side]))
            for side in ("generate", "reused")
        },
        "memory": bench.memory(),
    }


def _share(measured: dict[str, Timed], num: int, trunk: int, suffix: float) -> float:
    prefill = measured["alone"]["prefill_s"] * (trunk + num * suffix) / (trunk + suffix)
    return (prefill + measured["alone"]["decode_s"]) / measured["branches"]["total_s"]


def _ratios(rounds: list[dict[str, Timed]], side: str) -> Timed:
    return _spread([each[side]["total_s"] / each["branches"]["total_s"] for each in rounds])


def _spread(values: list[float]) -> Timed:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def _task(engine: EmbeddedEngine, index: int, num_tokens: int) -> str:
    """Return an instruction whose suffix has about `num_tokens`."""
    task = _TASKS[index % len(_TASKS)]
    while len(engine._format.suffix_ids(task + " Answer")) <= num_tokens:  # noqa: SLF001
        task += " Answer"
    return task


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))


def _reset_peak() -> int:
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed goes back, and counts when taken again
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> int:
    return _status("VmHWM")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Branches over one trunk against generate().")
    parser.add_argument("model", nargs="?", default="out/demo/model", help="a Hugging Face folder")
    parser.add_argument("--branches", type=int, default=5)
    parser.add_argument("--trunk", type=int, default=1500)
    parser.add_argument("--suffix", type=int, default=32)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="auto")
    return parser.parse_args()


if __name__ == "__main__":
    main()
