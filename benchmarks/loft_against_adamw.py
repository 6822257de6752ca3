"""LoFT, AdamW on the same LoRA, and AdamW on the whole matrices: one task, equal steps.

    python benchmarks/loft_against_adamw.py --data clinc150/data_full.json [MODEL] [--out FOLDER]
        [--steps 60] [--batch 16] [--rank 8] [--seeds 0 1 2] [--examples 256] [--eps 1e-4]
    python benchmarks/loft_against_adamw.py --data … --step-time [--rounds 15]

The task: after "Text: how do i say hi in french", "Intent:" to write " translate" and a line break,
for the 150 intents of clinc150. A model of 135M parameters knows nothing of these labels and learns
them visibly in 60 steps; an answer has about 3 tokens, so that a step costs seconds on a CPU; and
there is a right answer, so that beside the loss there is an exact match.

Equal for all three: the matrices (attention's q, k, v, o), the model in float32, the batches of a
seed, the number of steps, warm-up over a tenth of them and then a cosine to 0, no weight decay,
gradients clipped to norm 1. The factors of both LoRA sides begin with the same values. Each method
begins with three learning rates of one ladder (`LADDER`, `STARTS`) and goes on beyond the better
end until the best is not at an end; the best has the least loss on the validation set, with the
first seed, after all steps. It is then run with the other seeds. What is reported is of the test
set, and the curves are of the training batches. A run whose loss is no number any more has lost.

Each run is a process of its own, so that its peak memory is its own. After each, FOLDER/loft.json
is written; an interrupted benchmark goes on from it. At the end FOLDER/loft.png shows the curves.

--step-time: the optimizer's step alone and a whole training step, of both LoRA sides, in pairs of
steps on the same batch that alternate; medians, and the median of the pairs' ratios. Run it on a
machine that does nothing else.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from veche.core.errors import FailureError
from veche.core.files import read_json_object, write_json
from veche.core.peak_memory import peak_memory_bytes
from veche.experts.figure import new_figure, png_of
from veche.roles.data.example import Example
from veche.roles.data.read import read_examples
from veche.roles.loft.groups import PAIRS_EPS
from veche.roles.loft.optimizer import LoFT
from veche.roles.loft.pairs import parameter_groups

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MAX_NORM = 1.0
LADDER = (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
STARTS = {"full": 1e-4, "adamw-lora": 1e-3, "loft": 3e-4}
"""The lowest of the first three rates."""
TITLES = {"full": "AdamW, whole matrices", "adamw-lora": "AdamW, LoRA", "loft": "LoFT, LoRA"}
_SMOOTHED_OVER = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training.

    Attributes:
        method: a key of STARTS.
        lr: peak learning rate.
        seed: of the batches' order and of the factors.
    """

    method: str
    lr: float
    seed: int

    @property
    def name(self) -> str:
        """A key for it."""
        return f"{self.method} lr={self.lr:g} seed={self.seed}"


class Task:
    """Texts and their intents as tokens."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(arguments.model)
        self.batch_size = arguments.batch
        self.path = Path(arguments.data)

    def batches(self, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches of training examples without end."""
        examples = self._known("train")
        generator = torch.Generator().manual_seed(seed)
        while True:
            order = torch.randperm(len(examples), generator=generator).tolist()
            for start in range(0, len(order) - self.batch_size + 1, self.batch_size):
                yield self.tensors([examples[i] for i in order[start : start + self.batch_size]])

    def held_out(self, split: Any, num_examples: int) -> list[tuple[Tensor, Tensor]]:
        """Return batches of a fixed sample of another part of the set."""
        examples = self._known(split)
        order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(0))
        chosen = [examples[i] for i in order[:num_examples].tolist()]
        chosen.sort(key=lambda example: len(example.messages[0].content))
        return [
            self.tensors(chosen[start : start + self.batch_size])
            for start in range(0, len(chosen), self.batch_size)
        ]

    def tensors(self, examples: list[Example]) -> tuple[Tensor, Tensor]:
        """Return ids [N, T], and labels [N, T]: the answer's tokens, -100 elsewhere."""
        rows = [self._ids(example) for example in examples]
        longest = max(len(question) + len(answer) for question, answer in rows)
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        labels = torch.full_like(ids, -100)
        for row, (question, answer) in enumerate(rows):
            end = len(question) + len(answer)
            ids[row, :end] = torch.tensor(question + answer)
            labels[row, len(question) : end] = torch.tensor(answer)
        return ids, labels

    def _known(self, split: Any) -> list[Example]:
        found = read_examples(self.path, split=split)
        return [example for example in found if example.intent not in (None, "oos")]

    def _ids(self, example: Example) -> tuple[list[int], list[int]]:
        words = str(example.intent).replace("_", " ")
        question = self.tokenizer.encode(f"Text: {example.messages[0].content}\nIntent:")
        answer = self.tokenizer.encode(f" {words}\n", add_special_tokens=False)
        return question, answer


class Side:
    """A model, and the optimizer that trains its attention."""

    def __init__(self, run: Run, arguments: argparse.Namespace) -> None:
        self.run = run
        torch.manual_seed(run.seed)
        model: Any = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
        model.requires_grad_(False)
        # Without dropout, and as cheap for one side as for the others.
        self.causal = model.eval()
        self.model = model
        if run.method == "full":
            for name, module in model.named_modules():
                if name.rpartition(".")[2] in ATTENTION:
                    module.weight.requires_grad_(True)
        else:
            rank = arguments.rank
            config = LoraConfig(r=rank, lora_alpha=rank, target_modules=ATTENTION)
            self.model = get_peft_model(model, config)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = self._optimizer(arguments.eps)

    def _optimizer(self, eps: float) -> torch.optim.Optimizer:
        if self.run.method == "loft":
            groups = parameter_groups(self.model)
            return LoFT(groups, lr=self.run.lr, eps=eps, max_grad_norm=MAX_NORM)
        return torch.optim.AdamW(self.trained, lr=self.run.lr, weight_decay=0.0)

    def learn(self, batch: tuple[Tensor, Tensor]) -> tuple[float, float]:
        """Make a step; return the loss before it, and the seconds of the optimizer in it."""
        loss, _ = self.answer_loss(batch)
        loss.backward()  # type: ignore[no-untyped-call]
        start = time.perf_counter()
        self.optimize()
        return float(loss.detach()), time.perf_counter() - start

    def optimize(self) -> None:
        """Clip and step; LoFT clips by itself."""
        if self.run.method != "loft":
            torch.nn.utils.clip_grad_norm_(self.trained, MAX_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def answer_loss(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the mean loss of an answer's token, and which answers are right to the token."""
        ids, labels = batch
        hidden = self.causal.model(input_ids=ids, attention_mask=(ids > 0).long(), use_cache=False)
        is_answer = labels[:, 1:] != -100
        # Only where an answer is: the vocabulary is most of the work.
        logits = self.causal.lm_head(hidden.last_hidden_state[:, :-1][is_answer])
        targets = labels[:, 1:][is_answer]
        loss = torch.nn.functional.cross_entropy(logits, targets)
        wrong = torch.zeros(len(ids))
        rows = is_answer.nonzero()[:, 0]
        wrong.index_add_(0, rows, (logits.argmax(-1) != targets).float())
        return loss, wrong == 0

    def measured(self, batches: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
        """Return the mean loss of a token and the share of right answers."""
        losses, weights, right = [], [], []
        with torch.inference_mode():
            for batch in batches:
                loss, is_right = self.answer_loss(batch)
                losses.append(float(loss))
                weights.append(int((batch[1] != -100).sum()))
                right += is_right.tolist()
        return {
            "loss": float(np.average(losses, weights=weights)),
            "exact_match": sum(right) / len(right),
        }


def rate_at(step: int, num_steps: int) -> float:
    """Return the share of the peak learning rate: warm-up, then a cosine to 0."""
    warm_up = max(1, num_steps // 10)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, num_steps - warm_up)))


def train(run: Run, arguments: argparse.Namespace) -> dict[str, Any]:
    """Carry a run out, in this process."""
    task = Task(arguments)
    side = Side(run, arguments)
    losses: list[float] = []
    seconds: list[float] = []
    optimizer_seconds: list[float] = []
    batches = task.batches(run.seed)
    for step in range(arguments.steps):
        for group in side.optimizer.param_groups:
            group["lr"] = run.lr * rate_at(step, arguments.steps)
        batch = next(batches)
        start = time.perf_counter()
        try:
            loss, of_optimizer = side.learn(batch)
        except FailureError:  # LoFT takes no gradient that is no number
            loss = math.nan
        if not math.isfinite(loss):
            return {**asdict(run), "losses": losses, "diverged_at": step}
        seconds.append(time.perf_counter() - start)
        optimizer_seconds.append(of_optimizer)
        losses.append(loss)
    return {
        **asdict(run),
        "losses": losses,
        "validation": side.measured(task.held_out("val", arguments.examples)),
        "test": side.measured(task.held_out("test", arguments.examples)),
        "step_s": statistics.median(seconds),
        "optimizer_s": statistics.median(optimizer_seconds),
        "trained_parameters": sum(param.numel() for param in side.trained),
        "optimizer_state_bytes": state_bytes(side.optimizer),
        "peak_rss_bytes": peak_memory_bytes(),
    }


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes of an optimizer's state."""
    return sum(value.nbytes for state in optimizer.state.values() for value in state.values())


class Results:
    """What is known so far, on disk after each run."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.path = Path(arguments.out) / "loft.json"
        keys = ("model", "data", "steps", "batch", "rank", "examples", "eps")
        settings = {key: getattr(arguments, key) for key in keys}
        settings["threads"] = torch.get_num_threads()
        self.content: dict[str, Any] = {"settings": settings, "runs": {}}
        if self.path.exists():
            self.content = read_json_object(self.path)
            if self.content["settings"] != settings:
                raise SystemExit(f"{self.path} is of other settings; name another --out")

    def of(self, run: Run) -> dict[str, Any]:
        """Return the results of a run, carried out now if it was not before."""
        runs = self.content["runs"]
        if run.name not in runs:
            print(f"{time.strftime('%H:%M:%S')} {run.name}", flush=True)
            command = [sys.executable, *sys.argv, "--run", json.dumps(asdict(run))]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(done.stderr)
            runs[run.name] = json.loads(done.stdout.splitlines()[-1])
            write_json(self.path, self.content)
        result: dict[str, Any] = runs[run.name]
        return result


def compare(arguments: argparse.Namespace) -> None:
    """Search each method's learning rate, run it with all seeds, sum up, draw."""
    results = Results(arguments)
    first, *others = arguments.seeds
    chosen: dict[str, list[dict[str, Any]]] = {}
    for method in STARTS:
        lr = best_rate(method, first, results)
        chosen[method] = [results.of(Run(method=method, lr=lr, seed=s)) for s in (first, *others)]
    lost = [run for runs in chosen.values() for run in runs if "diverged_at" in run]
    if lost:
        raise SystemExit(f"at its best rate a method diverged with another seed: {lost}")
    summary = {method: summed_up(runs) for method, runs in chosen.items()}
    results.content["summary"] = summary
    write_json(results.path, results.content)
    results.path.with_suffix(".png").write_bytes(picture(chosen, summary))
    print(json.dumps(summary, indent=2))


def best_rate(method: str, seed: int, results: Results) -> float:
    """Return the rate of the least validation loss that has a worse one on both sides."""
    low = LADDER.index(STARTS[method])
    high = low + 2
    while True:
        losses = {
            index: _validation_loss(results.of(Run(method=method, lr=LADDER[index], seed=seed)))
            for index in range(low, high + 1)
        }
        best = min(losses, key=lambda index: losses[index])
        if best == low > 0:
            low -= 1
        elif best == high < len(LADDER) - 1:
            high += 1
        else:
            return LADDER[best]


def _validation_loss(result: dict[str, Any]) -> float:
    return math.inf if "diverged_at" in result else float(result["validation"]["loss"])


def summed_up(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a method's means over seeds, and standard deviations."""

    def spread(values: list[float]) -> dict[str, float]:
        deviation = statistics.stdev(values) if len(values) > 1 else math.nan
        return {"mean": statistics.fmean(values), "stdev": deviation}

    return {
        "lr": runs[0]["lr"],
        "seeds": len(runs),
        "test_loss": spread([run["test"]["loss"] for run in runs]),
        "test_exact_match": spread([run["test"]["exact_match"] for run in runs]),
        "step_s": statistics.median(run["step_s"] for run in runs),
        "optimizer_s": statistics.median(run["optimizer_s"] for run in runs),
        "trained_parameters": runs[0]["trained_parameters"],
        "optimizer_state_bytes": runs[0]["optimizer_state_bytes"],
        "peak_rss_bytes": max(run["peak_rss_bytes"] for run in runs),
    }


def picture(chosen: dict[str, list[dict[str, Any]]], summary: dict[str, Any]) -> bytes:
    """Draw each method's training loss: the mean over seeds, and from least to most."""
    figure = new_figure(figsize=(9, 5))
    axes = figure.subplots()
    kernel = np.ones(_SMOOTHED_OVER) / _SMOOTHED_OVER
    for method, runs in chosen.items():
        curves = np.array([np.convolve(run["losses"], kernel, mode="valid") for run in runs])
        steps = np.arange(_SMOOTHED_OVER, _SMOOTHED_OVER + curves.shape[1])
        facts = summary[method]
        label = f"{TITLES[method]}: lr {facts['lr']:g}, test {facts['test_loss']['mean']:.2f}"
        (line,) = axes.plot(steps, curves.mean(0), label=label)
        axes.fill_between(steps, curves.min(0), curves.max(0), color=line.get_color(), alpha=0.2)
    axes.set_xlabel("step")
    axes.set_ylabel(f"loss of an answer's token, nats (mean of {_SMOOTHED_OVER} steps)")
    axes.set_title(f"Equal steps and batches; band: all {len(runs)} seeds")
    axes.legend()
    return png_of(figure)


def time_steps(arguments: argparse.Namespace) -> None:
    """Time both LoRA sides in turns, on the same batches."""
    task = Task(arguments)
    sides = {
        method: Side(Run(method=method, lr=1e-5, seed=0), arguments)
        for method in ("adamw-lora", "loft")
    }
    batches = task.batches(0)
    rounds: list[dict[str, tuple[float, float]]] = []
    for index in range(arguments.rounds + 1):
        batch = next(batches)
        order = list(sides) if index % 2 else list(reversed(sides))
        times = {}
        for method in order:
            start = time.perf_counter()
            _, of_optimizer = sides[method].learn(batch)
            times[method] = (time.perf_counter() - start, of_optimizer)
        rounds.append(times)
    rounds = rounds[1:]  # the first makes the states
    report: dict[str, Any] = {
        "model": arguments.model,
        "rank": arguments.rank,
        "batch_tokens": statistics.median(int((next(batches)[0] > 0).sum()) for _ in range(9)),
        "threads": torch.get_num_threads(),
        "rounds": arguments.rounds,
    }
    for part, name in enumerate(("training_step", "optimizer_step")):
        report[name] = {
            **{f"{m} s": statistics.median(r[m][part] for r in rounds) for m in sides},
            "ratio": statistics.median(r["loft"][part] / r["adamw-lora"][part] for r in rounds),
        }
    report["state_bytes"] = {m: state_bytes(side.optimizer) for m, side in sides.items()}
    print(json.dumps(report, indent=2))


def main() -> None:
    """Compare, or time, or carry out one run of a comparison."""
    arguments = _arguments()
    if arguments.run:
        print(json.dumps(train(Run(**json.loads(arguments.run)), arguments)))
    elif arguments.step_time:
        time_steps(arguments)
    else:
        compare(arguments)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("model", nargs="?", default="out/demo/model")
    parser.add_argument("--data", required=True, help="clinc150's data_full.json")
    parser.add_argument("--out", default="out/loft")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--examples", type=int, default=256, help="of validation and of test")
    parser.add_argument("--eps", type=float, default=PAIRS_EPS, help="of LoFT")
    parser.add_argument("--step-time", action="store_true")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
