"""One stream: our decode loop against transformers' generate(), and against the memory's speed.

    python benchmarks/single_stream.py [MODEL] [--prompt 64] [--new 64] [--rounds 7] [--dtype auto]

Sides, of one checkpoint, greedy: generate() of a model as transformers loads it; our engine without
captures; and with routing captured (what capturing costs). A step is timed as the difference of two
runs, so that prefill and set-up are left out. Rounds are paired and alternate; medians of rounds.

The limit: a token has to read every weight that it uses once (of experts: the active ones; the
embedding only where it is the output head), and its keys and values. `memory_limit_ms` is those
bytes over the speed at which this machine sums a large array, measured in the same run.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from veche.engines.embedded.engine import EmbeddedEngine
from veche.engines.protocol import Branch, Capture, Sampling
from veche.engines.transformers import create

_SENTENCE = "The assembly met by the river, and every voice was heard before anyone decided. "
_SHORT = 4
_ARRAY_BYTES = 400_000_000


class Bench:
    """Both models, and one prompt."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        engine = create(arguments.model, dtype=arguments.dtype)
        if not isinstance(engine, EmbeddedEngine):
            raise TypeError(type(engine))
        engine._end_ids = frozenset()  # noqa: SLF001 - both sides decode as many tokens
        self.engine = engine
        self.model = engine._model  # noqa: SLF001
        self.peer: Any = AutoModelForCausalLM.from_pretrained(
            arguments.model, dtype=self.model.dtype
        ).eval()
        self.peer.generation_config.eos_token_id = None  # on both sides
        self.num_new = arguments.new
        chat = engine._format  # noqa: SLF001
        user = _SENTENCE * max(1, arguments.prompt // len(chat.text_ids(_SENTENCE)))
        self.trunk = engine.open_trunk(system="", user=user)
        self.ids = torch.tensor([chat.head_ids("", user) + chat.suffix_ids(" Answer.")])
        self.said: dict[str, list[int]] = {}

    def generate(self, num_new: int) -> float:
        """Return the seconds of transformers' own loop."""
        start = time.perf_counter()
        ids = self.peer.generate(
            self.ids,
            attention_mask=torch.ones_like(self.ids),
            max_new_tokens=num_new,
            do_sample=False,
            pad_token_id=0,
        )
        seconds = time.perf_counter() - start
        self.said["generate"] = [int(token) for token in ids[0, self.ids.shape[1] :]]
        return seconds

    def plain(self, num_new: int) -> float:
        """Return the seconds of our loop, nothing captured."""
        return self._decode("plain", num_new, Capture(routing=False))

    def captured(self, num_new: int) -> float:
        """Return the seconds of our loop, routing captured."""
        return self._decode("captured", num_new, Capture())

    def _decode(self, name: str, num_new: int, capture: Capture) -> float:
        start = time.perf_counter()
        result = self.engine.decode(
            self.trunk,
            [
                Branch(
                    voice="v",
                    instruction=" Answer.",
                    sampling=Sampling(max_new_tokens=num_new),
                    capture=capture,
                )
            ],
        )[0]
        seconds = time.perf_counter() - start
        self.said[name] = list(result.token_ids)
        return seconds

    def step_ms(self, side: Callable[[int], float]) -> float:
        """Return the milliseconds of one decode step."""
        short = side(_SHORT)
        longer: float = side(_SHORT + self.num_new)
        return float(1e3 * (longer - short) / self.num_new)

    def token_bytes(self) -> int:
        """Return the bytes that one decoded token has to read."""
        config = self.model.config
        num_experts: Any = getattr(config, "num_local_experts", None) or getattr(
            config, "num_experts", 1
        )
        total: int = 0
        for name, weight in self.model.named_parameters():
            size = weight.numel() * weight.element_size()
            if ".experts." in name:
                size = size * int(config.num_experts_per_tok) // int(num_experts)
            is_embedding = "embed_tokens" in name
            total += 0 if is_embedding and not config.tie_word_embeddings else size
        num_tokens = int(self.ids.shape[1])
        return total + num_tokens * self.engine.memory.bytes_per_token


def main() -> None:
    """Measure and print one JSON object."""
    arguments = _arguments()
    bench = Bench(arguments)
    sides = {"generate": bench.generate, "plain": bench.plain, "captured": bench.captured}
    for side in sides.values():
        side(_SHORT)
    rounds = []
    for index in range(arguments.rounds):
        order = list(sides) if index % 2 else list(reversed(sides))
        rounds.append({name: bench.step_ms(sides[name]) for name in order})
    bandwidth = _bandwidth()
    limit = bench.token_bytes() / bandwidth * 1e3
    ours = statistics.median(each["plain"] for each in rounds)
    print(
        json.dumps(
            {
                "model": bench.engine.name,
                "dtype": str(bench.model.dtype),
                "threads": torch.get_num_threads(),
                "prompt_tokens": bench.ids.shape[1],
                "new_tokens": arguments.new,
                "rounds": arguments.rounds,
                "step_ms": {
                    side: statistics.median(each[side] for each in rounds) for side in sides
                },
                "generate_over_ours": _ratios(rounds, "generate", "plain"),
                "capture_overhead": _ratios(rounds, "captured", "plain"),
                "equal_tokens": bench.said["plain"] == bench.said["generate"],
                "equal_tokens_captured": bench.said["plain"] == bench.said["captured"],
                "token_bytes": bench.token_bytes(),
                "memory_bytes_per_s": bandwidth,
                "memory_limit_ms": limit,
                "ours_over_limit": ours / limit,
            },
            indent=2,
        )
    )


def _bandwidth() -> float:
    array = torch.ones(_ARRAY_BYTES // 4)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        array.sum()
        seconds.append(time.perf_counter() - start)
    return _ARRAY_BYTES / min(seconds)


def _ratios(rounds: list[dict[str, float]], side: str, other: str) -> dict[str, float]:
    ratios = [each[side] / each[other] for each in rounds]
    return {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="One stream against generate().")
    parser.add_argument("model", nargs="?", default="out/demo/model", help="a Hugging Face folder")
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dtype", default="auto")
    return parser.parse_args()


if __name__ == "__main__":
    main()
