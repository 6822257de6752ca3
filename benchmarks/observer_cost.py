"""What looking inside costs: reading against plain prefill, decoding with captures and without.

    python benchmarks/observer_cost.py MODEL [--dtype bfloat16] [--layers 18] [--problems 24]
        [--new 64] [--rounds 5]

Reading: `observe` without a cache, against one forward pass over each whole text, question and
answer, which computes all logits and keeps nothing; tokens of questions count on both sides.
Decoding: four branches behind one trunk, with what an observer's probe asks for, and with what a
council asks for without one; then the time of the report itself. Rounds alternate; medians.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from veche.engines.embedded.engine import EmbeddedEngine
from veche.engines.protocol import Branch, Capture, Sampling
from veche.engines.transformers import create
from veche.roles.data.problems.generate import generate
from veche.roles.probe.features import answer_blocks, step_blocks
from veche.roles.probe.observe import capture_of, observation_of, observe
from veche.roles.probe.reading import reading_of
from veche.roles.probe.steps import cut

QUESTION = "A shop sells 12 pears a day. How many does it sell in 5 days? Explain, line by line."


def seconds(work: Callable[[], Any]) -> float:
    """Return how long a piece of work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def medians(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Time sides in turns; the first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds + 1):
        for name, work in sides.items():
            times[name].append(seconds(work))
    return {name: statistics.median(each[1:]) for name, each in times.items()}


def reading(engine: EmbeddedEngine, layers: list[int], problems: int, rounds: int) -> Any:
    """Return tokens a second of reading, and of plain prefill."""
    examples = generate("arithmetic", language="en", difficulty=3, count=problems, seed=0)
    runner, chat = engine._runner, engine._format  # noqa: SLF001 - the peer reads the same tokens
    rows = []
    for example in examples:
        question, answer = (message.content for message in example.messages)
        ids = chat.head_ids("", question) + chat.suffix_ids("") + chat.text_ids(f"{answer}\n")
        rows.append(torch.tensor([ids]))

    def prefill() -> None:
        """Run the model over each text, and keep nothing."""
        with torch.inference_mode():
            for row in rows:
                length = row.shape[1]
                runner.feed(runner.rows((), 1, length), row, logits_to_keep=length)

    sides = {"observe": lambda: observe(engine, examples, layers), "prefill": prefill}
    tokens = sum(row.shape[1] for row in rows)
    return {name: round(tokens / s) for name, s in medians(sides, rounds).items()}


def decoding(engine: EmbeddedEngine, layers: list[int], num_new: int, rounds: int) -> Any:
    """Return milliseconds of a step of four voices, watched and not, and of the report."""
    trunk = engine.open_trunk(system="", user=QUESTION)

    def said(capture: Capture) -> Any:
        """Decode four branches."""
        sampling = Sampling(max_new_tokens=num_new, temperature=0.7)
        branches = [
            Branch(voice=str(voice), instruction="", sampling=sampling, capture=capture)
            for voice in range(4)
        ]
        return engine.decode(trunk, branches)

    watched = capture_of(engine, layers)
    results = said(watched)
    example = generate("arithmetic", language="en", difficulty=1, count=1, seed=0)[0]

    def report() -> None:
        """Compute the features of all four."""
        for result in results:
            steps, owner = cut(result.text)
            seen = observation_of(reading_of(result, owner, len(steps)))
            read = replace(example, steps=steps)
            answer_blocks(read, seen)
            step_blocks(read, seen)

    sides = {
        "plain_ms": lambda: said(Capture()),
        "watched_ms": lambda: said(watched),
        "report_ms": report,
    }
    return {name: round(1000 * s, 1) for name, s in medians(sides, rounds).items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("model", type=Path)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--layers", default="18")
    parser.add_argument("--problems", type=int, default=24)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    engine = create(arguments.model, dtype=arguments.dtype)
    if not isinstance(engine, EmbeddedEngine):
        raise TypeError(type(engine))
    layers = [int(layer) for layer in arguments.layers.split(",")]
    speed = reading(engine, layers, arguments.problems, arguments.rounds)
    step = decoding(engine, layers, arguments.new, arguments.rounds)
    share = (step["watched_ms"] + step["report_ms"]) / step["plain_ms"] - 1
    print(json.dumps({"tokens_per_s": speed, "step": step, "observer_share": round(share, 3)}))


if __name__ == "__main__":
    main()
