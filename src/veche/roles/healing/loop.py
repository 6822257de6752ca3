"""Train a student towards its teacher's logits, step by step, with points to go on from.

Legend: W windows of text, B of a step, T tokens, H hidden size. This file imports torch.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from veche.core.errors import FailureError
from veche.core.progress import Progress
from veche.roles.healing.distill import distillation_loss
from veche.roles.healing.kept import Kept
from veche.roles.healing.settings import DEFAULT_MINUTES, HealSettings
from veche.roles.healing.trainee import Trainee
from veche.surgery.loading import Model

WARM_UP = 0.05
"""Share of the steps in which learning rates rise."""
STATES_AT_ONCE = 64
"""Windows of a file of the teacher's states."""
_TOLD_EVERY = 10
_TIMED_STEPS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What is learnt.

    Attributes:
        tokens: all windows, [W, T].
        batch: windows of a step.
        seed: of their order.
    """

    tokens: Tensor
    batch: int
    seed: int

    def windows_of(self, step: int) -> Tensor:
        """Return the windows of a step, [B]: each once in W/B steps, every time in another order.

        NOTE: it depends on seed and step alone, so a training that goes on reads what it would have
        read.
        """
        count = len(self.tokens)
        per_epoch = max(1, count // self.batch)
        epoch, index = divmod(step, per_epoch)
        random = torch.Generator().manual_seed(1_000_003 * self.seed + epoch)
        order = torch.randperm(count, generator=random)
        return order[index * self.batch : (index + 1) * self.batch]

    def windows_until(self, num_steps: int) -> list[int]:
        """Return the windows that so many steps read, ascending."""
        seen: set[int] = set()
        for step in range(num_steps):
            seen.update(self.windows_of(step).tolist())
            if len(seen) == len(self.tokens):
                break
        return sorted(seen)


@torch.no_grad()
def read_states(
    teacher: Model, material: Material, windows: list[int], kept: Kept, progress: Progress
) -> "TeacherStates":
    """Let the teacher read the windows once, and keep what its output head reads.

    States are exact, and of H values a position: less than a few hundred of the logits that follow
    from them.
    """
    parts = _cut(windows, STATES_AT_ONCE)
    place = {}
    with progress.task("teacher reads", len(windows)) as advance:
        for number, part in enumerate(parts):
            place.update({window: (number, row) for row, window in enumerate(part)})
            if not kept.states_path(number).is_file():
                rows = [
                    teacher.model(
                        input_ids=material.tokens[some].to(teacher.device), use_cache=False
                    ).last_hidden_state
                    for some in _cut(part, material.batch)
                ]
                kept.save_states(number, torch.cat(rows))
            advance(len(part))
    return TeacherStates(kept, place, teacher.get_output_embeddings())


class TeacherStates:
    """What the teacher's output head reads of each window."""

    def __init__(self, kept: Kept, place: dict[int, tuple[int, int]], head: Any) -> None:
        self._kept, self._place, self.head = kept, place, head
        self._parts: dict[int, Tensor] = {}

    def of(self, windows_B: Tensor) -> Tensor:
        """Return the states of some windows, [B, T, H]."""
        rows = []
        for window in windows_B.tolist():
            part, row = self._place[window]
            if part not in self._parts:
                found = self._kept.load_states(part)
                if found is None:
                    raise FailureError(
                        f"{self._kept.states_path(part)} is gone", hint="run the same command again"
                    )
                self._parts[part] = found
            rows.append(self._parts[part][row])
        return torch.stack(rows)


def num_steps_for(
    trainee: Trainee,
    teacher: Model,
    material: Material,
    settings: HealSettings,
    *,
    spent_s: float,
) -> int:
    """Return how many steps fit into the time that was given, or the number that was.

    A few steps are timed, and move nothing; so is the teacher's reading of what they read.

    Args:
        trainee: the student.
        teacher: its teacher.
        material: what is learnt.
        settings: minutes or steps.
        spent_s: seconds that were spent already.
    """
    if settings.steps is not None:
        return settings.steps
    minutes = DEFAULT_MINUTES if settings.minutes is None else settings.minutes
    tokens_BT = material.tokens[material.windows_of(0)].to(teacher.device)
    started = time.perf_counter()
    teacher_s, step_s = math.inf, math.inf
    for _ in range(_TIMED_STEPS):
        before = time.perf_counter()
        with torch.no_grad():
            states_BTH = teacher.model(input_ids=tokens_BT, use_cache=False).last_hidden_state
        between = time.perf_counter()
        loss = _loss(trainee.model, tokens_BT, states_BTH, teacher.get_output_embeddings())
        torch.autograd.backward(loss)
        trainee.forget()
        teacher_s = min(teacher_s, between - before)
        step_s = min(step_s, time.perf_counter() - between)
    left_s = 60 * minutes - spent_s - (time.perf_counter() - started)
    once = len(material.tokens) // material.batch  # steps until every window was read
    within = left_s / (step_s + teacher_s)
    return max(1, int(within if within <= once else (left_s - once * teacher_s) / step_s))


def train(
    trainee: Trainee,
    states: TeacherStates,
    material: Material,
    kept: Kept,
    settings: HealSettings,
    *,
    num_steps: int,
    progress: Progress,
) -> tuple[float, ...]:
    """Make the steps that are missing, and return the loss of every step.

    Raises:
        FailureError: the loss or a gradient is not a number; the last point is kept.
    """
    losses = kept.load_training(trainee)
    with progress.task("distil", num_steps) as advance:
        advance(len(losses))
        for step in range(len(losses), num_steps):
            losses.append(_one_step(trainee, states, material, step, num_steps))
            _tell(progress.say, losses, num_steps)
            advance(1)
            if len(losses) % settings.save_every == 0 or len(losses) == num_steps:
                kept.save_training(trainee, losses)
    return tuple(losses)


def _cut(windows: list[int], size: int) -> list[list[int]]:
    return [windows[start : start + size] for start in range(0, len(windows), size)]


def _one_step(
    trainee: Trainee, states: TeacherStates, material: Material, step: int, num_steps: int
) -> float:
    windows_B = material.windows_of(step)
    device = trainee.model.device
    loss = _loss(
        trainee.model,
        material.tokens[windows_B].to(device),
        states.of(windows_B).to(device),
        states.head,
    )
    torch.autograd.backward(loss)
    value = float(loss.detach())
    norm = trainee.step(rate_factor(step, num_steps)) if math.isfinite(value) else math.nan
    if not math.isfinite(norm):
        raise FailureError(
            f"at step {step + 1} of {num_steps} the loss is {value:g} and its gradient "
            f"{norm:g}: training has gone astray",
            hint="train with lower rates, e.g. --learning-rate 1e-4 --experts-rate 1e-5",
        )
    return value


def rate_factor(step: int, num_steps: int) -> float:
    """Return what the highest rates are multiplied by: up in a straight line, then down to 0."""
    warm = max(1, round(WARM_UP * num_steps))
    if step < warm:
        return (step + 1) / warm
    return (num_steps - step) / max(1, num_steps - warm)


def _loss(model: Model, tokens_BT: Tensor, teacher_BTH: Tensor, teacher_head: Any) -> Tensor:
    states_BTH = model.model(input_ids=tokens_BT, use_cache=False).last_hidden_state
    return distillation_loss(
        states_BTH.flatten(0, 1),
        teacher_BTH.flatten(0, 1),
        model.get_output_embeddings(),
        teacher_head,
    )


def _tell(say: Callable[[str], None], losses: list[float], num_steps: int) -> None:
    if len(losses) % _TOLD_EVERY == 0 or len(losses) == num_steps:
        recent = losses[-_TOLD_EVERY:]
        say(f"step {len(losses)}/{num_steps}: KL {sum(recent) / len(recent):.4f} nats a token")
