"""Step after step: gradients of a batch, an optimiser's step, a checkpoint now and then."""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from veche.core.errors import FailureError
from veche.core.progress import Progress
from veche.roles.training.adapter import adapter_weights, load_adapter_weights
from veche.roles.training.batches import examples_of_step, share_of
from veche.roles.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from veche.roles.training.curve import Events
from veche.roles.training.learner import Learner
from veche.roles.training.optimizer import (
    OPTIMIZERS,
    load_state,
    set_learning_rate,
    shorten_gradients,
)
from veche.roles.training.rendering import TokenisedExample
from veche.roles.training.settings import ChosenSettings


class Loop:
    """One training, in one process or in one of several.

    NOTE: a step is a function of the weights, the optimiser's state and the step's number. Nothing
    is drawn at random, so that a resumed run computes what an uninterrupted one would.
    """

    def __init__(
        self,
        model: Any,
        examples: Sequence[TokenisedExample],
        settings: ChosenSettings,
        accelerator: Accelerator,
        checkpoints: Path,
    ) -> None:
        """Prepare a PEFT model, and go back to the last checkpoint if there is one."""
        self.model = model
        self.step = 0
        self.seconds = 0.0
        self.curve: dict[str, list[float]] = defaultdict(list)
        self._examples = examples
        self._settings = settings
        self._accelerator = accelerator
        self._folder = checkpoints
        last = read_checkpoint(checkpoints)
        if last is not None:
            load_adapter_weights(model, last.weights)
        learner = Learner(model, wants_balance=settings.router_aux_loss_coef > 0)
        learner.to(accelerator.device)
        optimizer = OPTIMIZERS[settings.optimizer](model, settings)
        self._learner, self._optimizer = accelerator.prepare(learner, optimizer)
        if last is not None:
            load_state(self._optimizer, last.optimizer)
            self.step, self.seconds = last.step, last.seconds
            for name, values in last.curve.items():
                self.curve[name] = values.tolist()

    def run(self, progress: Progress, events: Events | None) -> None:
        """Make all steps that are left.

        Raises:
            FailureError: the loss or a gradient is not a number; the last checkpoint is kept.
            DiskError: the disk is full or refuses.
        """
        total = self._settings.num_steps
        with progress.task("train the adapter", total=total) as advance:
            advance(self.step)
            while self.step < total:
                measured = self.advance()
                if events is not None:
                    events.add(self.step, measured)
                if self.step % self._settings.save_every == 0 and self.step < total:
                    self._save()
                advance(1)

    def advance(self) -> Mapping[str, float]:
        """Make one step; return what was measured.

        Raises:
            FailureError: the loss or a gradient is not a number; the weights are as they were.
        """
        began = time.perf_counter()
        settings, accelerator = self._settings, self._accelerator
        batch = examples_of_step(
            self.step,
            num_examples=len(self._examples),
            batch=settings.batch,
            seed=settings.seed,
        )
        examples = [self._examples[number] for number in batch]
        rate = settings.learning_rate_at(self.step)
        set_learning_rate(self._optimizer, rate)
        loss, balance = self._gradients(examples)
        self._require_number(loss)
        if not shorten_gradients(self._learner, settings):
            self._require_number(float("nan"), "gradient")
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if accelerator.device.type == "cuda":
            torch.cuda.synchronize(accelerator.device)
        seconds = time.perf_counter() - began
        self.seconds += seconds
        measured = {"loss": loss, "learning_rate": rate, "seconds": seconds}
        if settings.router_aux_loss_coef:
            measured["balance"] = balance
        for name, value in measured.items():
            self.curve[name].append(value)
        self.step += 1
        return measured

    def _gradients(self, examples: Sequence[TokenisedExample]) -> tuple[float, float]:
        """Add up gradients of the batch's mean loss; return it, and the balance loss."""
        accelerator, settings = self._accelerator, self._settings
        num_processes = accelerator.num_processes
        num_loss = sum(example.num_loss for example in examples)
        mine = share_of(examples, process=accelerator.process_index, num_processes=num_processes)
        parts = [
            mine[at : at + settings.micro_batch] for at in range(0, len(mine), settings.micro_batch)
        ]
        sums = torch.zeros(2, dtype=torch.float64)
        for number, part in enumerate(parts, 1):
            is_last = number == len(parts)
            with nullcontext() if is_last else accelerator.no_sync(self._learner):
                loss, balance = self._learner(part)
                # Gradients are averaged over processes: each counts as if it were all of them.
                total = loss * (num_processes / num_loss)
                if settings.router_aux_loss_coef:
                    total = total + balance * (settings.router_aux_loss_coef / len(parts))
                total.backward()
            sums += torch.stack([loss.detach(), balance.detach() / len(parts)]).double().cpu()
        if num_processes > 1:
            shared = accelerator.reduce(sums.to(accelerator.device, torch.float32))
            sums = shared.double().cpu()
        return float(sums[0]) / num_loss, float(sums[1]) / num_processes

    def _require_number(self, value: float, what: str = "loss") -> None:
        if value == value and abs(value) != float("inf"):
            return
        kept = read_checkpoint(self._folder)
        where = f"the last good checkpoint is of step {kept.step}" if kept else "none was saved yet"
        raise FailureError(
            f"the {what} of step {self.step + 1} is not a finite number, so training stopped; "
            f"{where}, in {self._folder}",
            hint="begin again with a lower learning rate: --learning-rate "
            f"{self._settings.learning_rate / 4:g}",
        )

    def _save(self) -> None:
        adapter = adapter_weights(self.model)
        if not all(bool(torch.isfinite(weight).all()) for weight in adapter.values()):
            self._require_number(float("nan"), "adapter")
        checkpoint = Checkpoint(
            step=self.step,
            weights=adapter,
            optimizer=self._optimizer.state_dict(),
            curve={
                name: torch.tensor(values, dtype=torch.float64)
                for name, values in self.curve.items()
            },
            seconds=self.seconds,
        )
        if self._accelerator.is_main_process:
            write_checkpoint(self._folder, checkpoint)
        self._accelerator.wait_for_everyone()
