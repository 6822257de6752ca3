"""Four branches over one prefilled trunk, against four calls of transformers' own generate().

    python benchmarks/council_branches.py [MODEL_FOLDER] [--branches 4] [--trunk 1000] [--new 64]

A third side, our own loop with one branch at a time over a fresh trunk, tells what sharing gains
apart from what our loop gains over generate(). The same model object, greedy, and every branch
decodes exactly the same number of tokens on all sides. Rounds are paired: each measures all
sides, in alternating order, and medians are of rounds.

Bounds, for N branches over P trunk tokens with suffixes of s tokens: prefill at most
N(P + s) / (P + N s); decode at most N, when a step costs the same for one row as for N.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from veche.engines.embedded.engine import EmbeddedEngine
from veche.engines.protocol import Branch, Sampling
from veche.engines.transformers import create

_SYSTEM = "You are a helpful assistant."
_TASKS = (
    "\n\nBe direct and concrete. Answer the question.",
    "\n\nExplain your reasoning. Answer the question.",
    "\n\nBe careful and exact. Answer the question.",
    "\n\nBe fair and exact. Answer the question.",
)


def main() -> None:
    """Measure and print one JSON object."""
    arguments = _arguments()
    engine = create(arguments.model, dtype=arguments.dtype)
    if not isinstance(engine, EmbeddedEngine):
        raise TypeError(type(engine))
    # No end token on our side: both sides decode the same number of tokens.
    engine._end_ids = frozenset()  # noqa: SLF001
    user = _user_text(engine, arguments.trunk)
    tasks = [_TASKS[index % len(_TASKS)] for index in range(arguments.branches)]
    sides: dict[str, Callable[[], dict[str, float]]] = {
        "branches": lambda: _branches(engine, user, tasks, arguments.new),
        "alone": lambda: _alone(engine, user, tasks, arguments.new),
        "generate": lambda: _generate(engine, user, tasks, arguments.new),
    }
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for index in range(arguments.rounds + 1):
        order = list(sides) if index % 2 else list(reversed(sides))
        measured = {name: sides[name]() for name in order}
        if index:  # the first round only warms up
            for name in sides:
                rounds[name].append(measured[name])
    print(json.dumps(_report(arguments, engine, user, tasks, rounds), indent=2))


def _branches(
    engine: EmbeddedEngine, user: str, tasks: list[str], num_new: int
) -> dict[str, float]:
    start = time.perf_counter()
    trunk = engine.open_trunk(system=_SYSTEM, user=user)
    opened = time.perf_counter()
    sampling = Sampling(max_new_tokens=num_new)
    engine.decode(
        trunk,
        [
            Branch(voice=str(index), instruction=task, sampling=sampling)
            for index, task in enumerate(tasks)
        ],
    )
    end = time.perf_counter()
    engine.close_trunk(trunk)
    return {"total_s": end - start, "trunk_s": opened - start}


def _alone(engine: EmbeddedEngine, user: str, tasks: list[str], num_new: int) -> dict[str, float]:
    parts = [_branches(engine, user, [task], num_new) for task in tasks]
    return {"total_s": sum(part["total_s"] for part in parts)}


def _generate(
    engine: EmbeddedEngine, user: str, tasks: list[str], num_new: int
) -> dict[str, float]:
    start = time.perf_counter()
    for task in tasks:
        ids = torch.tensor([_prompt(engine, user, task)])
        engine._model.generate(  # noqa: SLF001
            ids,
            attention_mask=torch.ones_like(ids),
            min_new_tokens=num_new,
            max_new_tokens=num_new,
            do_sample=False,
            pad_token_id=0,
        )
    return {"total_s": time.perf_counter() - start}


def _prompt(engine: EmbeddedEngine, user: str, task: str) -> list[int]:
    chat = engine._format  # noqa: SLF001
    return chat.head_ids(_SYSTEM, user) + chat.suffix_ids(task)


def _user_text(engine: EmbeddedEngine, num_tokens: int) -> str:
    """Return a text that makes the trunk about `num_tokens` long."""
    sentence = "The assembly met by the river, and every voice was heard before anyone decided. "
    repeats = num_tokens // engine.count_tokens(sentence)
    return sentence * repeats + "What did the assembly do?"


def _report(
    arguments: argparse.Namespace,
    engine: EmbeddedEngine,
    user: str,
    tasks: list[str],
    rounds: dict[str, list[dict[str, float]]],
) -> dict[str, Any]:
    chat = engine._format  # noqa: SLF001
    trunk = len(chat.head_ids(_SYSTEM, user))
    suffix = statistics.mean(len(chat.suffix_ids(task)) for task in tasks)
    num = len(tasks)
    return {
        "model": engine.name,
        "dtype": str(engine._model.dtype),  # noqa: SLF001
        "threads": torch.get_num_threads(),
        "branches": num,
        "trunk_tokens": trunk,
        "mean_suffix_tokens": suffix,
        "new_tokens": arguments.new,
        "rounds": arguments.rounds,
        "branches_s": statistics.median(r["total_s"] for r in rounds["branches"]),
        "branches_trunk_s": statistics.median(r["trunk_s"] for r in rounds["branches"]),
        "alone_s": statistics.median(r["total_s"] for r in rounds["alone"]),
        "generate_s": statistics.median(r["total_s"] for r in rounds["generate"]),
        "generate_over_branches": _ratios(rounds, "generate"),
        "alone_over_branches": _ratios(rounds, "alone"),
        "bound_prefill": num * (trunk + suffix) / (trunk + num * suffix),
        "bound_decode": num,
    }


def _ratios(rounds: dict[str, list[dict[str, float]]], side: str) -> dict[str, float]:
    ratios = [
        other["total_s"] / branches["total_s"]
        for branches, other in zip(rounds["branches"], rounds[side], strict=True)
    ]
    return {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Branches over one trunk against generate().")
    parser.add_argument("model", nargs="?", default="out/demo/model", help="a Hugging Face folder")
    parser.add_argument("--branches", type=int, default=4)
    parser.add_argument("--trunk", type=int, default=1000)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", default="auto")
    return parser.parse_args()


if __name__ == "__main__":
    main()
