"""What share of made problems does a model get right, by kind, language and difficulty?

Usage: python benchmarks/problem_difficulty.py [model folder] [--out FILE.json] [--kinds a,b]
       [--languages en,ru] [--levels 1,2,3,4,6,8] [--count 40] [--shots 3] [--max-tokens 96]
       [--minutes 60] [--engine transformers]

Without a folder the demo's grown model is used. Answers are greedy, with worked problems of the
same kind and difficulty shown first. Cells are written as they are measured, so that the same
command goes on after an interruption, or when its minutes are over; a cell of other settings is
measured anew. Wilson's 95 % intervals; guessing gets half of the syllogisms and a fourteenth of the
dates.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from veche.core.files import read_json_object, write_json
from veche.engines.protocol import local
from veche.plugins.registry import load
from veche.roles.data.problems.difficulty import FitSettings, try_level
from veche.roles.data.problems.puzzle import KINDS

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "out" / "demo" / "model"


def cells(arguments: argparse.Namespace) -> Iterator[tuple[Any, Any, int]]:
    """Yield kind, language and difficulty: the easiest of all kinds first."""
    for level in arguments.levels.split(","):
        for language in arguments.languages.split(","):
            for kind in arguments.kinds.split(","):
                yield kind, language, int(level)


def main() -> None:
    """Measure cell by cell, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", type=Path, default=DEMO)
    parser.add_argument("--out", type=Path, default=Path("problem_difficulty.json"))
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--languages", default="en,ru")
    parser.add_argument("--levels", default="1,2,3,4,6,8")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--shots", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--engine", default="transformers")
    arguments = parser.parse_args()
    engine = load("engines", arguments.engine)(str(arguments.model), top_k=None)
    settings = FitSettings(
        count=arguments.count, shots=arguments.shots, max_new_tokens=arguments.max_tokens
    )
    about = {"model": local(engine).identity, **asdict(settings), "band": list(settings.band)}
    known = read_json_object(arguments.out) if arguments.out.is_file() else {}
    found = known["cells"] if known.get("settings") == about else {}
    end = time.monotonic() + 60 * arguments.minutes
    for kind, language, level in cells(arguments):
        key = f"{kind} {language} {level}"
        if key not in found and time.monotonic() < end:
            start = time.monotonic()
            tried = try_level(engine, kind, language, level, settings)
            found[key] = tried.as_dict() | {"seconds": time.monotonic() - start}
            write_json(arguments.out, {"settings": about, "cells": found})
        if key in found:
            low, high = found[key]["interval"]
            print(f"{key:<28}{found[key]['share']:>6.0%}  [{low:.0%}, {high:.0%}]", flush=True)
        else:
            print(f"{key:<28}not measured: the minutes are over")


if __name__ == "__main__":
    main()
