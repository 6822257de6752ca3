"""Any YAML either plans or gives one clear error: tens of thousands of generated recipes.

    .venv/bin/python benchmarks/plan_fuzz.py            # 24,000 cases
    .venv/bin/python benchmarks/plan_fuzz.py --cases 2000 --seed 7

Four kinds, a quarter of the cases each: recipes of known fields with odd values, growths of shipped
and dense bases with values near those that are possible, shipped recipes with characters changed
at random, and arbitrary YAML. A case passes if it gives a plan that
survives JSON, or one VecheError with a message; a traceback of anything else fails the run.
"""

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from veche.core.errors import VecheError
from veche.planning.bases import shipped_bases
from veche.planning.field_facts import known_fields
from veche.planning.fields import FIELDS
from veche.planning.plan import plan_from_dict
from veche.planning.planner import make_plan
from veche.planning.recipe import parse_recipe, recipe_text, shipped_recipes

FACTORS = ("x2", "x1.5", "x4/3", "x0", "x-1", "x1e9", "x1/0", "x", "xx2", "x999999999")
TEXTS = ("yarn", "silu", "", "null", "bfloat16", "🜁", "а" * 200, "true", "../..", "{", "%s", "\x00")
NUMBERS = (0, 1, -1, 2, 3, 7, 12, 48, 127, 128, 129, 1024, 2**31, 2**63, 10**30)
FLOATS = (0.0, -0.5, 0.005, 1e-6, 1e300, float("inf"), float("nan"), 2e6)
GROWING = (
    "num_experts", "num_experts_per_tok", "num_hidden_layers", "tie_word_embeddings",
    "num_attention_heads", "num_key_value_heads", "moe_intermediate_size", "intermediate_size",
    "shared_expert_intermediate_size", "num_hidden_layers", "num_attention_heads",
    "moe_intermediate_size", "mlp_only_layers", "decoder_sparse_step", "layer_types", "model_type",
    "norm_topk_prob",
)  # fmt: skip
GROWN: tuple[Any, ...] = (
    "x2", "x3", "x3/2", 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128, 256, 1024, 4097, True, False,
    [0], [], [1, 2], ["full_attention"] * 3, "mixtral", None,
)  # fmt: skip
_SHAPE = {
    "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "vocab_size": 100, "intermediate_size": 80, "tie_word_embeddings": True,
}  # fmt: skip
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
SMALL_BASES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "llama-biased": {"model_type": "llama", "mlp_bias": True},
    "qwen2": {"model_type": "qwen2"},
    "qwen2-windows": {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 8},
    "qwen3": {"model_type": "qwen3", "head_dim": 24, "attention_bias": True},
    "qwen2_moe": {
        "model_type": "qwen2_moe", **_EXPERTS, "shared_expert_intermediate_size": 48,
        "mlp_only_layers": [1], "layer_types": ["full_attention"] * 3,
    },
    "qwen3_moe": {"model_type": "qwen3_moe", **_EXPERTS, "decoder_sparse_step": 2},
}  # fmt: skip
ROPE_KEYS = ("rope_type", "type", "factor", "original_max_position_embeddings", "rope_theta", "zzz")


def main() -> None:
    """Run the cases; print how many planned, and which errors the others gave."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cases", type=int, default=24_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    chance = random.Random(given.seed)  # noqa: S311 - no secret
    started = time.perf_counter()
    with TemporaryDirectory() as folder:
        outcomes = _outcomes(given.cases, chance, Path(folder))
    seconds = time.perf_counter() - started
    report = {
        "cases": given.cases,
        "seed": given.seed,
        "outcomes": {kind: dict(counts.most_common()) for kind, counts in outcomes.items()},
        "seconds": round(seconds, 1),
        "milliseconds_a_case": round(1000 * seconds / given.cases, 2),
    }
    if given.json:
        print(json.dumps(report, indent=2))
        return
    print(f"{given.cases} recipes in {seconds:.1f} s ({report['milliseconds_a_case']} ms each)")
    for kind, counts in outcomes.items():
        print(f"  {kind}: " + ", ".join(f"{name} {n}" for name, n in counts.most_common()))


def _outcomes(cases: int, chance: random.Random, folder: Path) -> dict[str, Counter[str]]:
    """Run the kinds in turn; return how each ended."""
    bases = [_written(folder, name, config) for name, config in SMALL_BASES.items()]
    kinds: dict[str, Callable[[random.Random], str]] = {
        "fields": _fields,
        "growths": partial(_growths, [*bases, *shipped_bases()]),
        "mutated": _mutated,
        "arbitrary": _arbitrary,
    }
    outcomes = {kind: Counter[str]() for kind in kinds}
    for number in range(cases):
        kind = list(kinds)[number % len(kinds)]
        outcomes[kind][_outcome(kinds[kind](chance))] += 1
    return outcomes


def _written(folder: Path, name: str, config: dict[str, Any]) -> str:
    base = folder / name
    base.mkdir()
    (base / "config.json").write_text(json.dumps({**_SHAPE, **config}))
    return str(base)


def _growths(bases: list[str], chance: random.Random) -> str:
    """A recipe of growths, many of which are possible."""
    base = chance.choice(bases)
    values = ["x2"] * 20 + ["x3"] * 10 + list(GROWN)
    fields = {name: chance.choice(values) for name in chance.sample(GROWING, chance.randint(1, 3))}
    if chance.random() < 0.5:
        fields |= {"num_experts": "x2", "num_experts_per_tok": "x2"}
        if "/" in base and chance.random() < 0.9:  # most of these are dense
            fields |= {"num_experts": chance.choice([1, 4, 8]), "num_experts_per_tok": 1}
    recipe = {
        "name": "fuzz", "base": base, "fields": fields,
        "allow_lossy": chance.choice([True, False]), "mode": chance.choice(["zero", "split"]),
    }  # fmt: skip
    return yaml.safe_dump(recipe)


def _outcome(text: str) -> str:
    """Return "planned" or the name of the error; anything else stops the run with the recipe."""
    try:
        plan = make_plan(parse_recipe(text, where="fuzz"))
        again = plan_from_dict(json.loads(json.dumps(plan.as_dict())))
    except VecheError as error:
        if not error.message or "Traceback" in error.message:
            _stop(text, error)
        return type(error).__name__
    except Exception as error:  # noqa: BLE001 - to find exactly these is what this is for
        _stop(text, error)
    if again != plan:
        _stop(text, AssertionError("the plan does not survive JSON"))
    return "undecided" if plan.conflicts else "planned"


def _stop(text: str, error: BaseException) -> None:
    print(f"FAILED on this recipe:\n{text}\n{type(error).__name__}: {error}", file=sys.stderr)
    raise SystemExit(1) from error


def _fields(chance: random.Random) -> str:
    """A recipe of the right form whose fields have odd values."""
    names = [*FIELDS, *FIELDS, *sorted(known_fields()), "rope_parameters", "nonsense"]
    fields = {chance.choice(names): _wish(chance) for _ in range(chance.randint(0, 4))}
    recipe: dict[str, Any] = {
        "name": "fuzz",
        "base": chance.choice([*shipped_bases(), *shipped_bases(), "no-such-base"]),
        "fields": fields,
        "allow_lossy": chance.choice([True, True, False, 1, "yes"]),
    }
    if chance.random() < 0.3:
        recipe["rope_length"] = chance.choice(["extend", "keep-length", "as-written", "bogus"])
    if chance.random() < 0.2:
        recipe["tensor_parallel"] = chance.choice([1, 2, 3, 8, 48, 0, 10**9])
    return yaml.safe_dump(recipe, allow_unicode=True)


def _wish(chance: random.Random) -> Any:
    value = _value(chance, depth=2)
    if chance.random() < 0.3:
        return {"value": value, "apply": chance.choice([True, False]), "reason": "why"}
    return value


def _value(chance: random.Random, depth: int) -> Any:
    makers: list[Callable[[], Any]] = [
        lambda: chance.choice(NUMBERS),
        lambda: chance.choice(FACTORS),
        lambda: chance.choice(FLOATS),
        lambda: chance.choice(TEXTS),
        lambda: chance.choice([True, False, None]),
        lambda: chance.randint(1, 300),
    ]
    if depth:
        makers.append(lambda: [_value(chance, depth - 1) for _ in range(chance.randint(0, 3))])
        makers.append(lambda: {k: _value(chance, depth - 1) for k in chance.sample(ROPE_KEYS, 3)})
    return chance.choice(makers)()


def _mutated(chance: random.Random) -> str:
    """A shipped recipe with characters deleted, doubled, or replaced."""
    text = list(recipe_text(chance.choice(shipped_recipes())))
    for _ in range(chance.randint(1, 12)):
        place = chance.randrange(len(text))
        text[place] = chance.choice(
            ["", text[place] * 2, chance.choice("{}[]:,-#&*!|>'\"%@` 0xй\n\t")]
        )
    return "".join(text)


def _arbitrary(chance: random.Random) -> str:
    """Any YAML at all: random characters, or a random value dumped."""
    if chance.random() < 0.5:
        signs = "abcxyz0123456789{}[]:,-#&*!|>'\"%@` \n\tйё\x00\x7f"
        return "".join(chance.choice(signs) for _ in range(chance.randint(0, 80)))
    return yaml.safe_dump(_value(chance, depth=4), allow_unicode=True)


if __name__ == "__main__":
    main()
