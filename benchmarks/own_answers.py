"""The system's own answers: does what is inside add to the log-probabilities?

    python benchmarks/own_answers.py ANSWERS MODEL [--dtype bfloat16] [--layers 18]
        [--cache FOLDER] [--out FILE.json]

ANSWERS is what the system said to questions that can be checked, with labels and signals; MODEL the
folder that said it:

    veche role data collect MODEL QUESTIONS --out ANSWERS

Blocks that are read: surface (the text alone), logprob (probabilities of its tokens), voices (how
many of the others came to another answer), router and load, hidden. Every gain is paired, over
"logprob" and over "surface + logprob", in five folds that never part a question, with 95 %
intervals over resampled questions. One seed; about a minute beside the reading of the answers.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from veche.core.files import write_json
from veche.engines.transformers import create
from veche.roles.data.example import Example
from veche.roles.data.read import read_examples
from veche.roles.evaluation.intervals import same_group_pairs
from veche.roles.evaluation.metrics import ece
from veche.roles.probe.compare import (
    Method,
    auroc_interval,
    gain,
    held_out_scores,
    methods,
    of_blocks,
)
from veche.roles.probe.features import HIDDEN, LOAD, LOGPROB, ROUTER, SURFACE
from veche.roles.probe.fitting import FitSettings
from veche.roles.probe.observe import observe
from veche.roles.probe.rows import Rows, answer_rows
from veche.roles.probe.train import as_json

VOICES = "voices"
DISAGREEMENT = "disagreement"
BASES = ("logprob", "surface + logprob")


def with_voices(rows: Rows, examples: Sequence[Example]) -> Rows:
    """Add what the other voices came to, where that was noted."""
    noted = [examples[source].signals for source in rows.source]
    if not all(DISAGREEMENT in signals for signals in noted):
        return rows
    column = np.array([[signals[DISAGREEMENT]] for signals in noted])
    return replace(rows, blocks={**rows.blocks, VOICES: column})


def ways(rows: Rows) -> dict[str, Method]:
    """Return each block behind the log-probabilities, and behind text and log-probabilities."""
    added = {
        "voices": (VOICES,),
        "routing": (ROUTER, LOAD),
        "hidden": (HIDDEN,),
        "routing + hidden": (ROUTER, LOAD, HIDDEN),
        "voices + routing + hidden": (VOICES, ROUTER, LOAD, HIDDEN),
    }
    bases = {"logprob": (LOGPROB,), "surface + logprob": (SURFACE, LOGPROB)}
    found = {name: of_blocks(blocks) for name, blocks in bases.items()}
    for name, blocks in bases.items():
        for more, its in added.items():
            if set(its) <= set(rows.blocks):
                found[f"{name} + {more}"] = of_blocks((*blocks, *its))
    if VOICES in rows.blocks:
        found["voices"] = of_blocks((VOICES,))
    return methods(rows) | found


def measured(rows: Rows) -> dict[str, Any]:
    """Return AUROC, gains, pairs of one question and calibration of each way."""
    scores = held_out_scores(rows, ways(rows), FitSettings())
    found: dict[str, Any] = {
        "rows": len(rows),
        "questions": len(set(rows.groups)),
        "right_share": round(float(rows.is_positive.mean()), 4),
        "methods": {},
    }
    for name, each in scores.items():
        told: dict[str, Any] = {"auroc": as_json(auroc_interval(each, rows))}
        told |= {f"gain_over_{base}": as_json(gain(scores[base], each, rows)) for base in BASES}
        told["same_question_pairs"] = as_json(same_group_pairs(each, rows.is_positive, rows.groups))
        if each.min() >= 0 and each.max() <= 1:
            told["ece"] = round(ece(each, rows.is_positive), 4)
        found["methods"][name] = told
    return found


def main() -> None:
    """Measure, print, and write down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("answers", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--layers", default="18")
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    start = time.perf_counter()
    examples = read_examples(arguments.answers)
    layers = [int(layer) for layer in arguments.layers.split(",")]
    engine = create(arguments.model, dtype=arguments.dtype)
    seen = observe(engine, examples, layers, cache=arguments.cache)
    found = {"model": str(arguments.model), "dtype": arguments.dtype}
    found |= measured(with_voices(answer_rows(examples, seen), examples))
    found["minutes"] = round((time.perf_counter() - start) / 60, 1)
    print(json.dumps(found, indent=2))
    if arguments.out is not None:
        write_json(arguments.out, found)


if __name__ == "__main__":
    main()
