"""How much of what a dial costs does healing give back, in how many minutes?

    python benchmarks/healing.py [MODEL] [--out FOLDER] [--minutes 15 | --steps N]
        [--cases half three_quarters theta yarn] [--optimizers adamw loft]
        [--other FILE.jsonl|FILE.txt] [--windows 16] [--tokens 512]

Without a MODEL it is the demo's carved one. Cases: half and three quarters of its experts, twice
its rope_theta, YaRN by 2. Each is healed towards the model as it is, and measured on held-out
windows of the help topics that nothing was learnt from: NLL above the source before, after the fit
by layers, after training; the share recovered, with 95 % intervals over windows; and, with --other,
before and after on a text of another kind. The bar: at least 40 % of half and of theta.

A case's result is kept in FOLDER/CASE-OPTIMIZER.json, and is not computed again; an interrupted
one goes on. Threads are torch's own: OMP_NUM_THREADS sets them. `cpu_minutes` counts all of them,
measuring included.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from veche.checkpoint.config import read_config, spec_of
from veche.checkpoint.spec import ModelSpec
from veche.core.files import write_json
from veche.core.paths import home
from veche.core.progress import Silent
from veche.roles.data.read import read_examples
from veche.roles.healing.heal import heal, plan_healing
from veche.roles.healing.lesson import Lesson, lesson_of
from veche.roles.healing.measure import Heldout, recovery
from veche.roles.healing.settings import HealSettings
from veche.roles.healing.texts import texts_of
from veche.roles.training.settings import OPTIMIZERS, OptimizerName
from veche.surgery.loading import load_model, load_tokenizer
from veche.surgery.verification.compare import windows
from veche.surgery.verification.weights import scaled_in_place

CASES = ("half", "theta", "three_quarters", "yarn")
BAR = 0.4
_WITH_BAR = ("half", "theta")


class Told(Silent):
    """Progress whose lines are printed."""

    def say(self, text: str) -> None:
        """Print the line."""
        print(f"  {text}", flush=True)


def lesson_for(model: Path, case: str, spec: ModelSpec) -> Lesson:
    """Return the lesson of a case."""
    if case == "theta":
        return lesson_of(model, rope_theta=2 * spec.rope.rope_theta)
    if case == "yarn":
        return lesson_of(model, yarn=2 * spec.rope.factor)
    share = {"half": 0.5, "three_quarters": 0.75}[case]
    return lesson_of(model, top_k=max(1, round(share * spec.num_experts)))


def on_other_text(lesson: Lesson, healed: Path, text: Path, count: int, length: int) -> Any:
    """Compare before and after on a text of another kind."""
    tokenizer = load_tokenizer(lesson.student)
    joined = "\n\n".join(
        message.content for example in read_examples(text) for message in example.messages
    )
    ids = tokenizer(joined, add_special_tokens=False, verbose=False)["input_ids"]
    tokens_WT = windows(ids, num_windows=count, window_tokens=length)
    heldout = Heldout(load_model(lesson.teacher), tokens_WT, Silent())
    student = load_model(lesson.student, changes=lesson.changes).requires_grad_(False)
    scaled_in_place(dict(student.named_parameters()), lesson.gain, student.dtype)
    before = heldout.figures(student, "before")
    after = heldout.figures(load_model(healed), "after")
    return recovery(heldout.teacher_nll, before, after).as_dict()


def run(case: str, optimizer: OptimizerName, given: argparse.Namespace) -> dict[str, Any]:
    """Heal one case, and return its figures."""
    spec = spec_of(read_config(given.model))
    lesson = lesson_for(given.model, case, spec)
    settings = HealSettings(
        minutes=None if given.steps is not None else given.minutes,
        steps=given.steps,
        optimizer=optimizer,
        fit_tokens=given.fit_tokens,
        heldout_windows=given.windows,
        heldout_tokens=given.tokens,
    )
    texts = texts_of(load_tokenizer(given.model), [], None, seed=0)
    target = given.out / f"{case}-{optimizer}"
    cpu, wall = time.process_time(), time.perf_counter()
    report = heal(plan_healing(lesson, settings, texts), target, texts, progress=Told())
    figures = {
        "case": case,
        "optimizer": optimizer,
        "wall_minutes": (time.perf_counter() - wall) / 60,
        "cpu_minutes": (time.process_time() - cpu) / 60,
        **report.as_dict(),
    }
    if given.other is not None:
        figures["other"] = on_other_text(lesson, target, given.other, given.windows, given.tokens)
    return figures


def show(figures: dict[str, Any]) -> None:
    """Print one case as a line."""
    healed, fitted = figures["recovery"], figures["fitted"]
    line = (
        f"{figures['case']:<15}{figures['optimizer']:<7}{figures['num_steps']:>5} steps "
        f"{figures['wall_minutes']:>5.1f} min ({figures['cpu_minutes']:.1f} CPU)  "
        f"lost {healed['lost']:+.4f}"
    )
    if fitted:
        line += f"  fitted {fitted['left']:+.4f}"
    line += (
        f"  healed {healed['left']:+.4f}  KL {healed['kl_before']:.4f} → {healed['kl_after']:.4f}"
    )
    print(line + _share(healed))
    if "other" in figures:
        other = figures["other"]
        print(f"{'':<15}other text: {other['lost']:+.4f} → {other['left']:+.4f}{_share(other)}")
    if figures["case"] in _WITH_BAR and healed["recovered"] is not None:
        print(f"{'':<15}bar {BAR:.0%}: {'met' if healed['recovered'] >= BAR else 'NOT met'}")


def _share(figures: dict[str, Any]) -> str:
    if figures["recovered"] is None:
        return "  (hardly anything was lost)"
    low, high = figures["recovered_interval"]
    return f"  recovered {figures['recovered']:.1%} [{low:.1%}, {high:.1%}]"


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the arguments; run what is missing; print everything."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", nargs="?", type=Path, help="a mixture of experts")
    parser.add_argument("--out", type=Path, default=Path("out/healing"))
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--fit-tokens", type=int, default=HealSettings().fit_tokens)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS))
    parser.add_argument("--other", type=Path, help="text of another kind")
    parser.add_argument("--windows", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=512)
    given = parser.parse_args(arguments)
    found = sorted((home() / "models").glob("*-carved-*"), key=lambda path: path.stat().st_mtime)
    given.model = given.model or (found[-1] if found else None)
    if given.model is None:
        parser.error("name a model, or run `veche demo` first, which carves one")
    for case in given.cases:
        for optimizer in given.optimizers:
            kept = given.out / f"{case}-{optimizer}.json"
            if not kept.is_file():
                print(f"{case}, {optimizer}", flush=True)
                write_json(kept, run(case, optimizer, given))
            show(json.loads(kept.read_text()))


if __name__ == "__main__":
    main()
