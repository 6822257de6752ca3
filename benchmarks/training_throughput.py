"""Tokens a second of veche's trainer against TRL's SFTTrainer with PEFT, on the same work.

Both train attention adapters of the same rank on the same examples, in the same order and batches,
from the same checkpoint in the same type, without dropout; both learn the answers' tokens alone.
They alternate, step by step, in one process, and each step's ratio is one paired sample. TRL pads
each batch to its longest row, as it does by default. `alora` is what veche does by default: the
prefix is read without a gradient. `lora` has no prefix, so both do the same arithmetic.

    python benchmarks/training_throughput.py MODEL DATA/gsm8k_solutions
"""

import argparse
import json
import statistics
import tempfile
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from veche.roles.data.example import Example
from veche.roles.data.read import read_examples
from veche.roles.role import Role
from veche.roles.training.batches import examples_of_step
from veche.roles.training.loop import Loop
from veche.roles.training.rendering import TokenisedExample
from veche.roles.training.settings import TrainingSettings
from veche.roles.training.train import Preparation, model_with_adapter, prepare
from veche.surgery.loading import load_model, load_tokenizer

ROLE = Role(
    name="logician",
    kind="drafter",
    title={"en": "Logician", "ru": "Логик"},
    prompt={"en": "Explain your reasoning.", "ru": "Объясни своё рассуждение."},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One step's work."""

    examples: list[TokenisedExample]

    @property
    def num_tokens(self) -> int:
        """All of them."""
        return sum(example.num_tokens for example in self.examples)

    @property
    def num_loss(self) -> int:
        """Those that are learnt."""
        return sum(example.num_loss for example in self.examples)


class Ours:
    """Our loop, one step at a time."""

    def __init__(self, folder: Path, ready: Preparation, scratch: Path) -> None:
        model = model_with_adapter(folder, ready.settings)
        accelerator = Accelerator(cpu=True)
        self._loop = Loop(model, ready.tokenised.examples, ready.settings, accelerator, scratch)

    def step(self, number: int) -> float:
        """Make a step; return its loss."""
        if self._loop.step != number:
            raise ValueError(f"step {number} is not {self._loop.step}")
        return self._loop.advance()["loss"]


class Trl:
    """TRL's trainer, one training_step and one optimiser's step at a time."""

    def __init__(self, folder: Path, ready: Preparation, scratch: Path) -> None:
        from datasets import Dataset
        from peft import LoraConfig
        from trl import SFTConfig, SFTTrainer

        settings = ready.settings
        model = load_model(
            folder, dtype="auto" if settings.dtype == "auto" else getattr(torch, settings.dtype)
        )
        for module in model.modules():
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = 0.0
        self._settings, self._num = settings, len(ready.tokenised.examples)
        arguments = SFTConfig(
            output_dir=str(scratch),
            per_device_train_batch_size=settings.batch,
            learning_rate=settings.learning_rate,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=settings.gradient_checkpointing,
            report_to="none",
            save_strategy="no",
            max_length=None,
            router_aux_loss_coef=0.0,
            disable_tqdm=True,
        )
        targets = ["q_proj", "k_proj", "v_proj", "o_proj"]
        self._trainer = SFTTrainer(
            model=model,
            args=arguments,
            train_dataset=Dataset.from_list([_row(e) for e in ready.tokenised.examples]),
            processing_class=load_tokenizer(folder),
            peft_config=LoraConfig(
                r=settings.rank,
                lora_alpha=int(settings.alpha),
                target_modules=targets,
                task_type="CAUSAL_LM",
            ),
        )
        self._trainer.create_optimizer_and_scheduler(1000)

    def step(self, number: int) -> float:
        """Make a step; return its loss."""
        trainer, settings = self._trainer, self._settings
        order = examples_of_step(
            number, num_examples=self._num, batch=settings.batch, seed=settings.seed
        )
        batch = trainer.data_collator([trainer.train_dataset[place] for place in order])
        num_loss = int((batch["labels"] != -100).sum())
        loss: Any = trainer.training_step(trainer.model, batch, num_loss)
        torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
        for group in trainer.optimizer.param_groups:
            group["lr"] = settings.learning_rate_at(number)
        trainer.optimizer.step()
        trainer.model.zero_grad()
        return float(loss)


def _row(example: TokenisedExample) -> dict[str, list[int]]:
    ids = [*example.prefix_ids, *example.suffix_ids]
    silent = len(ids) - example.num_loss
    return {"input_ids": ids, "labels": [-100] * silent + ids[silent:]}


def measure(folder: Path, examples: list[Example], arguments: Any) -> dict[str, Any]:
    """Alternate both; return tokens a second and the paired ratio."""
    settings = TrainingSettings(
        method=arguments.method,
        batch=arguments.batch,
        steps=arguments.steps + arguments.warm_up,
        max_length=arguments.max_length,
        dtype=arguments.dtype,
        gradient_checkpointing=arguments.gradient_checkpointing,
    )
    ready = prepare(folder, examples, settings, role=ROLE)
    times: dict[str, list[float]] = {"veche": [], "trl": []}
    losses: dict[str, list[float]] = {"veche": [], "trl": []}
    work: list[Work] = []
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        both: dict[str, Ours | Trl] = {
            "veche": Ours(folder, ready, Path(scratch)),
            "trl": Trl(folder, ready, Path(scratch)),
        }
        for number in range(arguments.steps + arguments.warm_up):
            order = examples_of_step(
                number,
                num_examples=len(ready.tokenised.examples),
                batch=settings.batch,
                seed=settings.seed,
            )
            work.append(Work(examples=[ready.tokenised.examples[place] for place in order]))
            names = ["veche", "trl"] if number % 2 else ["trl", "veche"]
            for name in names:
                began = time.perf_counter()
                losses[name].append(both[name].step(number))
                times[name].append(time.perf_counter() - began)
    return _result(times, losses, work, arguments.warm_up)


def _result(
    times: dict[str, list[float]], losses: dict[str, list[float]], work: list[Work], warm_up: int
) -> dict[str, Any]:
    kept = slice(warm_up, None)
    tokens = sum(each.num_tokens for each in work[kept])
    learnt = sum(each.num_loss for each in work[kept])
    ratios = [
        trl / ours for ours, trl in zip(times["veche"][kept], times["trl"][kept], strict=True)
    ]
    draws = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.quantile(np.exp(np.log(draws).mean(1)), [0.025, 0.975])
    return {
        "steps": len(ratios),
        "tokens": tokens,
        "loss_tokens": learnt,
        **{
            f"{name}_{what}_per_s": round(count / sum(times[name][kept]), 1)
            for name in times
            for what, count in (("tokens", tokens), ("loss_tokens", learnt))
        },
        "ratio": round(statistics.geometric_mean(ratios), 3),
        "ratio_low": round(float(low), 3),
        "ratio_high": round(float(high), 3),
        "last_loss": {name: round(values[-1], 4) for name, values in losses.items()},
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--examples", type=int, default=256)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--warm-up", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--gradient-checkpointing", action="store_true")
    parser.add_argument("--methods", default="alora,lora")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    examples = [e for e in read_examples(arguments.data) if e.is_right is not False]
    examples = examples[: arguments.examples]
    found = {}
    for method in arguments.methods.split(","):
        arguments.method = method
        found[method] = measure(arguments.model, examples, arguments)
        if not arguments.json:
            print(method, json.dumps(found[method]), flush=True)
    if arguments.json:
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
