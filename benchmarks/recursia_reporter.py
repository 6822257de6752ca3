"""Train RECURSIA's adapter to report on reasoning, and measure its reports.

Usage: python benchmarks/recursia_reporter.py SET [--model folder] [--work folder] [--train 400]
       [--test 150] [--steps 150] [--batch 8] [--rank 16] [--optimizer adamw] [--difficulty 4]
       [--kinds a,b] [--language en] [--max-steps 16] [--seed 0] [--unconstrained]
       [--elsewhere SET …]

SET is "problems", or a file or folder that `read_examples` knows (gsm8k_solutions, a task of
big_bench_mistake). Examples are split by problem. Reported: share of valid JSON, AUROC of the
confidence (its expectation) and of pairs within one question, ECE, first-error exact match beside
guesses that read nothing, minutes of training; intervals resample whole problems. The model without
the adapter reports too: what the schema and the prompt alone give. Of each set of --elsewhere, as
many examples are reported on with the adapter that learnt from SET: out of domain.

The adapter is kept in the working folder and trained once; reports are kept four by four, so that
the same command goes on after an interruption. The result is WORK/SETTINGS/result.json.
"""

import argparse
import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from veche.core.files import read_json_object, write_json
from veche.plugins.registry import load
from veche.roles.data.example import Example
from veche.roles.data.problems.generate import generate
from veche.roles.data.problems.puzzle import KINDS
from veche.roles.data.read import read_examples
from veche.roles.data.split import split_by_group
from veche.roles.evaluation.report import part_dict
from veche.roles.evaluation.reports import HEADLINE, candidate, guessed
from veche.roles.evaluation.scored import Prepared
from veche.roles.evaluation.scored import measured as figures_of
from veche.roles.probe.steps import steps_of
from veche.roles.registry import Registry
from veche.roles.reporter.ask import Reported, report_on
from veche.roles.reporter.confidence import DigitTokens
from veche.roles.reporter.report import Report, parse_report
from veche.roles.reporter.training_data import report_examples
from veche.roles.role import Role
from veche.roles.speaker import Speaker
from veche.surgery.loading import load_tokenizer

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "out" / "demo" / "model"
ADAPTER = "recursia"
KEPT_EVERY = 4


def examples_of(arguments: argparse.Namespace) -> tuple[list[Example], list[Example]]:
    """Return labelled answers to train on and to test on, of different problems."""
    wanted = arguments.train + arguments.test
    if arguments.set == "problems":
        kinds = arguments.kinds.split(",")
        found = [
            example
            for kind in kinds
            for example in generate(
                kind,
                language=arguments.language,
                difficulty=arguments.difficulty,
                count=-(-wanted // (2 * len(kinds))),
                seed=arguments.seed,
            )
        ]
    else:
        found = [e for e in read_examples(Path(arguments.set)) if e.is_right is not None]
    short = [example for example in found if len(steps_of(example)) <= arguments.max_steps]
    share = arguments.train / wanted
    train, test = split_by_group(short, [share, 1 - share], seed=arguments.seed)
    return train[: arguments.train], test[: arguments.test]


def trained(
    arguments: argparse.Namespace, work: Path, train: Sequence[Example]
) -> tuple[Path, Role, float]:
    """Train the adapter, unless it is there; return its folder, its role, and the minutes."""
    from veche.roles.training.settings import TrainingSettings
    from veche.roles.training.train import train_adapter

    out, note = work / "adapter", work / "training.json"
    role = Registry().get("recursia")
    if not out.is_dir():
        start = time.monotonic()
        settings = TrainingSettings(
            method="alora",
            optimizer=arguments.optimizer,
            rank=arguments.rank,
            steps=arguments.steps,
            batch=arguments.batch,
            seed=arguments.seed,
        )
        resume = (work / "adapter.partial").is_dir()
        done = train_adapter(
            arguments.model, report_examples(train), settings, out, role=role, resume=resume
        )
        minutes = (time.monotonic() - start) / 60
        write_json(note, {"minutes": minutes, "invocation": done.role.invocation})
    told = read_json_object(note)
    return out, replace(role, invocation=told["invocation"]), float(told["minutes"])


def reports_of(
    engine: Any,
    examples: Sequence[Example],
    speaker: Speaker,
    digits: DigitTokens,
    kept: Path,
    *,
    is_constrained: bool,
) -> list[Reported]:
    """Report on all examples; what was reported before is read from `kept`."""
    rows = read_json_object(kept)["reports"] if kept.is_file() else []
    while len(rows) < len(examples):
        part = examples[len(rows) : len(rows) + KEPT_EVERY]
        for item in report_on(engine, part, speaker, digits, is_constrained=is_constrained):
            text = item.report.as_json() if isinstance(item.report, Report) else item.report.text
            rows.append([text, item.confidence, item.num_tokens])
        write_json(kept, {"reports": rows})
        print(f"  {len(rows)} of {len(examples)} reports", flush=True)
    return [
        Reported(
            report=parse_report(text, len(steps_of(example))),
            confidence=confidence,
            num_tokens=num_tokens,
        )
        for (text, confidence, num_tokens), example in zip(rows, examples, strict=True)
    ]


def measured(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Train, report with and without the adapter, and compare with the labels."""
    train, test = examples_of(arguments)
    folder, role, minutes = trained(arguments, work, train)
    engine = load("engines", "transformers")(str(arguments.model), top_k=None)
    engine.load_adapter(ADAPTER, folder)
    digits = DigitTokens(load_tokenizer(arguments.model))
    result: dict[str, Any] = {
        "settings": {key: str(value) for key, value in vars(arguments).items()},
        "train": len(train),
        "test": len(test),
        "share_right": sum(bool(example.is_right) for example in test) / len(test),
        "training_minutes": minutes,
    }

    def figures(test: Sequence[Example], speakers: dict[str, str | None], place: str) -> Any:
        """Report on examples with each of the speakers, and compare with the labels."""
        candidates = []
        for name, adapter in speakers.items():
            reported = reports_of(
                engine,
                test,
                Speaker(role=role, adapter=adapter),
                digits,
                work / f"reports-{name}{place}.json",
                is_constrained=not arguments.unconstrained,
            )
            candidates.append(candidate(name, test, reported, reported))
        prepared = Prepared(
            measures="report",
            candidates=(*candidates, *guessed(test, train)),
            groups=tuple(example.group for example in test),
            headline=HEADLINE,
        )
        return part_dict(figures_of(prepared))

    result |= figures(test, {"adapter": ADAPTER, "without": None}, "")
    for other in arguments.elsewhere:
        _, there = examples_of(argparse.Namespace(**{**vars(arguments), "set": other}))
        found = figures(there, {"adapter": ADAPTER}, f"-{Path(other).stem}")
        result.setdefault("elsewhere", {})[other] = {"test": len(there)} | found
    return result


def main() -> None:
    """Measure, write the result, and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set")
    parser.add_argument("--model", type=Path, default=DEMO)
    parser.add_argument("--work", type=Path, default=Path("recursia_reporter"))
    parser.add_argument("--train", type=int, default=400)
    parser.add_argument("--test", type=int, default=150)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--optimizer", choices=("adamw", "loft"), default="adamw")
    parser.add_argument("--difficulty", type=int, default=4)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--language", choices=("en", "ru"), default="en")
    parser.add_argument("--max-steps", type=int, default=16, help="longer answers are left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--unconstrained", action="store_true", help="no schema: is JSON learnt?")
    parser.add_argument("--elsewhere", nargs="*", default=[], metavar="SET", help="test there too")
    arguments = parser.parse_args()
    outside = ("work", "elsewhere")
    told = {key: str(value) for key, value in vars(arguments).items() if key not in outside}
    name = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]
    work = arguments.work / f"{Path(arguments.set).stem}-{name}"
    result = measured(arguments, work)
    write_json(work / "result.json", result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
