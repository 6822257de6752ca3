"""What an observer sees in reasoning that it is given, beside what anyone can see in the text.

    python benchmarks/recursia_probe.py DATA MODEL [--dtype bfloat16] [--layers 18] [--limit N]
        [--parts answers,steps,elsewhere,procedural] [--tasks T,T] [--cache FOLDER]
        [--out FILE.json]

DATA holds gsm8k_solutions/ and big_bench_mistake/ as their authors publish them. MODEL is any
folder that the transformers engine loads, a mixture or dense (which has no router features).

Parts:
  answers     right or wrong, of GSM8K's model solutions
  steps       the first wrong step of BIG-Bench Mistake, each task by itself
  elsewhere   the same, learnt on all other tasks
  procedural  both, on problems that veche makes

Every method learns in five folds that never part a problem, and scores what it has not seen.
AUROC and gains have 95 % intervals over resampled problems; gains are paired, over two rivals that
need no model. "text + position": TF-IDF, length, digits, how many steps, which one. "surface": 55
or more features made for the purpose, which the stack has too. "boosted surface" is these in
gradient-boosted trees, which no linear stack is made of. Texts longer than the context are left
out.

Time: reading is all but a few minutes of it, and is kept in --cache: about 1.6 M tokens for all of
it, at about the speed of prefill (benchmarks/observer_cost.py).
"""

import argparse
import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from veche.core.files import write_json
from veche.engines.transformers import create
from veche.roles.data.example import Example
from veche.roles.data.problems.generate import generate
from veche.roles.data.problems.puzzle import KINDS
from veche.roles.data.read import read_examples
from veche.roles.evaluation.intervals import grouped_interval, same_group_pairs
from veche.roles.evaluation.metrics import ece
from veche.roles.probe.compare import (
    RIVAL,
    STACK,
    TEXT_AND_PLACE,
    Scores,
    auroc_at_equal_place,
    auroc_interval,
    gain,
    held_out_scores,
    methods,
    scores_of,
)
from veche.roles.probe.first_wrong import first_wrong_step
from veche.roles.probe.fitting import FitSettings
from veche.roles.probe.observation import Observation
from veche.roles.probe.observe import observe
from veche.roles.probe.rows import Rows, answer_rows, step_rows
from veche.roles.probe.stack import Fits
from veche.roles.probe.train import as_json

TASKS = ("multistep_arithmetic", "dyck_languages", "word_sorting", "logical_deduction")
PARTS = ("answers", "steps", "elsewhere", "procedural")
SETTINGS = FitSettings()
BOOSTED = "boosted surface"
_MARKUP_TOKENS = 256


class Bench:
    """A model that reads, and what it has read."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.engine = create(arguments.model, dtype=arguments.dtype)
        self.layers = tuple(int(layer) for layer in arguments.layers.split(","))
        self.limit = arguments.limit
        self.cache = arguments.cache
        self.tokens, self.read_s = 0, 0.0

    def fits(self, example: Example) -> bool:
        """Whether question and answer are in reach of the model's context."""
        tokens = self.engine.count_tokens("\n".join(each.content for each in example.messages))
        return tokens + _MARKUP_TOKENS <= self.engine.context_tokens

    def read(self, examples: Sequence[Example]) -> tuple[list[Example], list[Observation]]:
        """Observe examples of some problems, all where there is no limit."""
        groups = sorted({example.group for example in examples})
        random.Random(0).shuffle(groups)  # noqa: S311 - a sample, not secrecy
        kept = set(groups[: self.limit])
        chosen = [example for example in examples if example.group in kept and self.fits(example)]
        start = time.perf_counter()
        seen = observe(self.engine, chosen, self.layers, cache=self.cache)
        self.read_s += time.perf_counter() - start
        self.tokens += int(sum(each.num_tokens.sum() for each in seen))
        return chosen, seen


def boosted(seen: Rows, left_out: Rows, fits: Fits) -> Scores:
    """Score by gradient-boosted trees over surface features."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    model = HistGradientBoostingClassifier(
        max_iter=150, learning_rate=0.05, max_leaf_nodes=8, l2_regularization=1.0, random_state=0
    )
    model.fit(seen.blocks[RIVAL], seen.is_positive)
    return np.asarray(model.predict_proba(left_out.blocks[RIVAL])[:, 1], np.float64)


def table(rows: Rows, scores: dict[str, Scores]) -> dict[str, Any]:
    """Return the figures of each method."""
    judged = rows.judged
    return {
        "rows": len(judged),
        "problems": len(set(judged.groups)),
        "positive": judged.labels[1],
        "positive_share": round(float(judged.is_positive.mean()), 4),
        "methods": {
            name: {
                "auroc": as_json(auroc_interval(each, rows)),
                "gain_over_surface": as_json(gain(scores[RIVAL], each, rows)),
                "gain_over_text_and_place": as_json(gain(scores[TEXT_AND_PLACE], each, rows)),
            }
            for name, each in scores.items()
        },
        "stack_over_boosted_surface": as_json(gain(scores[BOOSTED], scores[STACK], rows)),
        "stack_ece": round(ece(scores[STACK][rows.is_judged], judged.is_positive), 4),
    }


def answers(rows: Rows) -> dict[str, Any]:
    """Return how well right answers are told from wrong ones."""
    scores = held_out_scores(rows, methods(rows) | {BOOSTED: boosted}, SETTINGS)
    found = table(rows, scores)
    found["same_problem_pairs"] = {
        name: as_json(same_group_pairs(scores[name], rows.is_positive, rows.groups))
        for name in (RIVAL, STACK)
    }
    return found


def steps(rows: Rows, examples: Sequence[Example], train: Rows | None = None) -> dict[str, Any]:
    """Return how well the first wrong step is found, learnt here or on other rows."""
    ways = methods(rows) | {BOOSTED: boosted}
    scores = (
        held_out_scores(rows, ways, SETTINGS)
        if train is None
        else scores_of(train.judged, rows, ways, SETTINGS)
    )
    found = table(rows, scores)
    for name in (RIVAL, "hidden", STACK, BOOSTED):
        told = found["methods"][name]
        told["auroc_at_equal_place"] = as_json(auroc_at_equal_place(scores[name], rows))
        told["exact_match"] = exact_match(rows, scores[name], examples)
    return found


def exact_match(rows: Rows, scores: Scores, examples: Sequence[Example]) -> dict[str, Any]:
    """Return how often the first wrong step is named, or that there is none."""
    is_named, groups = [], []
    for source in np.unique(rows.source):
        example = examples[source]
        named = first_wrong_step(np.clip(scores[rows.source == source], 0, 1))
        is_named.append(named == example.first_bad_step)
        groups.append(example.group)
    hits = np.array(is_named, np.float64)
    return as_json(grouped_interval(lambda at: float(hits[at].mean()), groups))


def procedural(bench: Bench) -> dict[str, Any]:
    """Return both, on problems that are right and wrong by construction."""
    made = [
        example
        for kind in KINDS
        for language in ("en", "ru")
        for example in generate(kind, language=language, difficulty=2, count=100, seed=0)
    ]
    examples, seen = bench.read(made)
    return {
        "answers": answers(answer_rows(examples, seen)),
        "steps": steps(step_rows(examples, seen), examples),
    }


def mistakes(
    bench: Bench, data: Path, parts: Sequence[str], tasks: Sequence[str]
) -> dict[str, Any]:
    """Return each task of BIG-Bench Mistake, learnt on itself and on the others."""
    examples: list[Example] = []
    seen: list[Observation] = []
    for task in tasks:
        some, their = bench.read(read_examples(data / "big_bench_mistake" / f"{task}.jsonl"))
        examples += some
        seen += their
    rows = step_rows(examples, seen)
    found: dict[str, Any] = {}
    for part in parts:
        for task in tasks:
            is_here = np.array([name == task for name in rows.tasks])
            here = rows.taken(np.flatnonzero(is_here))
            others = rows.taken(np.flatnonzero(~is_here)) if part == "elsewhere" else None
            found.setdefault(part, {})[task] = show(
                f"{part}: {task}", steps(here, examples, others)
            )
    return found


def show(title: str, found: dict[str, Any]) -> dict[str, Any]:
    """Print a table, and return it."""
    print(f"\n{title}: {found['rows']} rows of {found['problems']} problems, ECE "
          f"{found['stack_ece']:.3f}")  # fmt: skip
    for name, told in found["methods"].items():
        line = f"  {name:27s} AUROC {_told(told['auroc'], is_plain=True)}"
        line += f"  over surface {_told(told['gain_over_surface'])}"
        line += f"  over text + position {_told(told['gain_over_text_and_place'])}"
        if "exact_match" in told:
            line += f"  equal place {_told(told['auroc_at_equal_place'], is_plain=True)}"
            line += f"  exact {_told(told['exact_match'], is_plain=True)}"
        print(line, flush=True)
    print(f"  stack over boosted surface: {_told(found['stack_over_boosted_surface'])}")
    if "same_problem_pairs" in found:
        for name, pairs in found["same_problem_pairs"].items():
            print(f"  pairs of one problem, {name}: {_told(pairs, is_plain=True)}")
    return found


def _told(interval: dict[str, float | None], *, is_plain: bool = False) -> str:
    mean, low, high = (
        float("nan") if (value := interval[end]) is None else value
        for end in ("mean", "low", "high")
    )
    sign = "" if is_plain else "+"
    return f"{mean:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def main() -> None:
    """Measure, print, and write down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("data", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--layers", default="18")
    parser.add_argument("--limit", type=int, default=None, help="problems of each set")
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--tasks", default=",".join(TASKS), help="of BIG-Bench Mistake")
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    parts = arguments.parts.split(",")
    bench = Bench(arguments)
    start = time.perf_counter()
    found: dict[str, Any] = {"model": str(arguments.model), "dtype": arguments.dtype}
    if "answers" in parts:
        solutions = arguments.data / "gsm8k_solutions" / "example_model_solutions.jsonl"
        read = bench.read(read_examples(solutions))
        found["answers"] = show("answers: GSM8K", answers(answer_rows(*read)))
    if wanted := [part for part in ("steps", "elsewhere") if part in parts]:
        found |= mistakes(bench, arguments.data, wanted, arguments.tasks.split(","))
    if "procedural" in parts:
        found["procedural"] = procedural(bench)
        for name, told in found["procedural"].items():
            show(f"procedural: {name}", told)
    found["minutes"] = round((time.perf_counter() - start) / 60, 1)
    found["read_minutes"] = round(bench.read_s / 60, 1)
    found["tokens"] = bench.tokens
    print(json.dumps({key: found[key] for key in ("minutes", "read_minutes", "tokens")}))
    if arguments.out is not None:
        write_json(arguments.out, found)


if __name__ == "__main__":
    main()
