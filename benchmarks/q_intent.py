"""Q-INTENT on clinc150: intents in scope, what is none of them, beside TF-IDF.

    python benchmarks/q_intent.py DATA MODEL [--per-intent 33] [--per-intent 100]
                                  [--russian 40] [--cache FOLDER] [--out q_intent.json]

DATA is clinc150's data_full.json. The authors' parts are kept: a reader learns from `train` (so
many examples of each intent, the first of a seeded draw) and from `oos_train`, and is measured on
`test` and `oos_test`; `val` is not looked at. TF-IDF (words 1-2, letters 2-5, logistic regression)
learns from the same examples in scope. Intervals: bootstrap over questions; gains are paired.

`by_states`, `by_words`: the reader's two halves alone. Minutes are of reading the training
questions with MODEL and of fitting; they are true of a fresh `--cache` only.

--russian N: the same with N questions of each kind of procedural problem in Russian and in English,
and syllogisms, a kind that is left out of training, as what is out of scope.
"""

import argparse
import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from veche.cli.terminal import TerminalProgress
from veche.engines.protocol import Engine, local
from veche.engines.transformers import create
from veche.experts.metrics import softmax
from veche.roles.data.example import Example
from veche.roles.data.problems.generate import generate
from veche.roles.data.public_sets import OUT_OF_SCOPE
from veche.roles.data.read import read_examples
from veche.roles.data.split import split_by_group
from veche.roles.evaluation.baselines import Guesses
from veche.roles.evaluation.questions import candidate, prepare_questions
from veche.roles.evaluation.report import part_dict
from veche.roles.evaluation.scored import Part, measured
from veche.roles.intent.reader import IntentReader, question_of
from veche.roles.intent.states import read_states
from veche.roles.intent.train import fit_reader, intents_of, questions_of, reading_layers


def main() -> None:
    """Measure, print, and write."""
    arguments = _arguments()
    engine = create(arguments.model)
    layers = reading_layers(local(engine).num_layers)
    states = States(engine, layers, arguments.cache)
    train, test = (read_examples(arguments.data, split=part) for part in ("train", "test"))
    known = {example.group for example in test}
    train = [example for example in train if example.group not in known]
    report: dict[str, Any] = {"model": str(arguments.model), "layers": layers, "clinc150": []}
    for count in arguments.per_intent or [33]:
        learnt = drawn(train, count, arguments.seed)
        report["clinc150"].append({"per_intent": count} | run(states, learnt, test))
        _write(arguments.out, report)
    if arguments.russian:
        report["procedural"] = [
            {"language": language} | run(states, *procedural(language, arguments.russian))
            for language in ("ru", "en")
        ]
    _write(arguments.out, report)


class States:
    """States of questions, read once for all that need them."""

    def __init__(self, engine: Engine, layers: Sequence[int], cache: Path | None) -> None:
        self.engine, self.layers, self._cache = engine, layers, cache
        self._known: dict[str, NDArray[np.float32]] = {}

    def of(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the states of texts; a cache makes later runs quick, and their minutes untrue."""
        told = json.dumps([local(self.engine).identity, list(self.layers), sorted(set(texts))])
        name = hashlib.sha256(told.encode()).hexdigest()[:16]
        path = None if self._cache is None else self._cache / f"{name}.npy"
        if path is not None and path.is_file():
            found: NDArray[np.float32] = np.load(path)
            return found[np.searchsorted(sorted(set(texts)), texts)]
        unique = sorted(set(texts))
        missing = [text for text in unique if text not in self._known]
        if missing:
            read = read_states(self.engine, missing, self.layers, progress=TerminalProgress())
            self._known.update(zip(missing, read, strict=True))
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, np.stack([self._known[text] for text in unique]))
        return np.stack([self._known[text] for text in texts])


def run(states: States, learnt: Sequence[Example], test: Sequence[Example]) -> dict[str, Any]:
    """Train a reader and return what was measured of it, its halves and TF-IDF."""
    start = time.perf_counter()
    texts = [question_of(example) for example in learnt]
    intents = intents_of(learnt, OUT_OF_SCOPE)
    learnt_NF = states.of(texts)
    read_s = time.perf_counter() - start
    reader, record = fit_reader(questions_of(learnt, intents, learnt_NF), states.layers)
    fit_s = time.perf_counter() - start - read_s
    asked = [question_of(example) for example in test]
    test_NF = states.of(asked)
    in_scope = [example for example in learnt if example.intent != OUT_OF_SCOPE]
    prepared = prepare_questions(reader, test, test_NF, in_scope)
    labels = [e.intent if e.intent in reader.intents else None for e in test]
    halves = [candidate(n, g, labels) for n, g in halves_of(reader, asked, test_NF).items()]
    part = measured(replace(prepared, candidates=(*prepared.candidates, *halves)))
    show(part, read_s, fit_s)
    return {
        "examples": len(learnt),
        "read_minutes": round(read_s / 60, 2),
        "fit_minutes": round(fit_s / 60, 2),
        **record,
        "measured": part_dict(part),
    }


def halves_of(
    reader: IntentReader, texts: Sequence[str], states_NF: NDArray[np.float32]
) -> dict[str, Guesses]:
    """Return what each half of a reader takes questions for."""
    scores = {
        "by_states": reader.shares[0] * reader.states.scores(states_NF),
        "by_words": reader.shares[1] * reader.words.scores(texts),
    }
    return {
        name: Guesses(
            intents=tuple(reader.intents[index] for index in logits.argmax(1)),
            confidence=softmax(logits).max(1),
            in_scope=logits.max(1),
        )
        for name, logits in scores.items()
    }


def drawn(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    """Return so many examples of each intent, at random; of what is out of scope, all."""
    by_intent: defaultdict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_intent[str(example.intent)].append(example)
    rng = np.random.default_rng(seed)
    chosen: list[Example] = []
    for intent, those in sorted(by_intent.items()):
        order = rng.permutation(len(those))[: None if intent == OUT_OF_SCOPE else count]
        chosen += [those[index] for index in order]
    return chosen


def procedural(language: Any, count: int) -> tuple[list[Example], list[Example]]:
    """Return questions to learn from and to be measured on, one kind in the latter alone."""
    made: list[Example] = []
    for kind in ("arithmetic", "dates", "units", "lists", "syllogisms"):
        made += [
            replace(example, messages=example.messages[:1], steps=(), intent=kind)
            for example in generate(kind, language=language, difficulty=2, count=count, seed=0)
        ]
    unique = list({question_of(example): example for example in made}.values())
    learnt, test = split_by_group(unique, [0.5, 0.5], seed=0)
    unknown = [replace(e, intent=OUT_OF_SCOPE) if e.intent == "syllogisms" else e for e in test]
    return [example for example in learnt if example.intent != "syllogisms"], unknown


def show(part: Part, read_s: float, fit_s: float) -> None:
    """Print the figures of each method."""
    print(f"{part.num_rows} questions; read {read_s / 60:.1f} min, fitted {fit_s / 60:.1f} min")
    for method in part.methods:
        told = [
            f"{name} {each.mean:.3f} [{each.low:.3f}, {each.high:.3f}]"
            for name, each in method.figures.items()
        ]
        gains = [f"gain {g.mean:+.3f} [{g.low:+.3f}, {g.high:+.3f}]" for g in method.gains.values()]
        print(f"  {method.name:10} {'; '.join([*told, *gains])}", flush=True)


def _write(path: Path, report: dict[str, Any]) -> None:
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--per-intent", type=int, action="append")
    parser.add_argument("--russian", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--out", type=Path, default=Path("q_intent.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
