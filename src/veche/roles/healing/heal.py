"""Heal a changed model: plan, fit by layers, distil, write a whole checkpoint, measure it."""

import hashlib
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from veche.checkpoint.reader import open_checkpoint
from veche.core.errors import InputError, UnsupportedError
from veche.core.files import require_apart, require_empty, require_space
from veche.core.json_text import json_text
from veche.core.progress import Progress, Silent
from veche.experts.dial.figures import WindowFigures
from veche.experts.new_parts import find_asleep
from veche.roles.healing.kept import FOLDER_NAME, Kept
from veche.roles.healing.layer_fit import can_fit, fit_layers
from veche.roles.healing.lesson import Lesson
from veche.roles.healing.loop import Material, num_steps_for, read_states, train
from veche.roles.healing.measure import Heldout, recovery
from veche.roles.healing.memory import memory_plan, trained_parameters
from veche.roles.healing.report import HealPlan, HealReport
from veche.roles.healing.result import write_companions, write_provenance, write_weights
from veche.roles.healing.self_written import self_written
from veche.roles.healing.settings import HealSettings
from veche.roles.healing.texts import HealTexts
from veche.roles.healing.trainee import Trainee
from veche.surgery.loading import Model, load_model
from veche.surgery.verification.compare import windows
from veche.surgery.verification.form import free_memory
from veche.surgery.verification.verify import DeviceChoice, device_of
from veche.surgery.verification.weights import scaled_in_place
from veche.surgery.workshop import finish_if_done, work_key, workshop

_FIT_WINDOW = 512
_LONG_WINDOW = 512
"""Where positions are rotated otherwise: short windows would not show it."""


def plan_healing(lesson: Lesson, settings: HealSettings, texts: HealTexts) -> HealPlan:
    """Decide what is trained, and what that needs; no weight is read.

    Raises:
        InputError: the text is too short.
        UnsupportedError: a part is to be trained that the model has not.
    """
    settings = _completed(lesson, settings)
    spec = lesson.spec
    chosen = settings.train or lesson.parts()
    _require_parts(lesson, chosen)
    _require_text(settings, texts)
    is_fitted = bool(settings.fit_tokens) and can_fit(lesson, chosen)
    parts = trained_parameters(lesson, settings, chosen)
    learnt = min(len(texts.train), _most_tokens(settings)) + settings.generate_tokens
    return HealPlan(
        lesson=lesson,
        settings=settings,
        parts=parts,
        is_fitted=is_fitted,
        train_tokens=learnt,
        heldout_tokens=min(
            len(texts.heldout),
            settings.heldout_windows * min(settings.heldout_tokens, spec.position_limit),
        ),
        text=texts.source,
        memory=memory_plan(lesson, settings, parts, train_tokens=learnt, is_fitted=is_fitted),
        free_bytes=free_memory(),
    )


def heal(
    plan: HealPlan,
    target: Path,
    texts: HealTexts,
    *,
    device: DeviceChoice = "auto",
    progress: Progress | None = None,
) -> HealReport:
    """Carry a plan out, into the new folder `target`.

    The work is done in `target`.partial, which becomes `target` by one rename. What an interruption
    or a kill leaves there is continued by the same command, and gives the same files. Student and
    teacher are only read.

    Args:
        plan: as `plan_healing` made it.
        target: must not exist, or be empty.
        texts: those that the plan was made with.
        device: where the models run.
        progress: where to report.

    Raises:
        CheckpointError: a folder is damaged.
        OutputError: the target is taken, or something else is at work there.
        DiskError: the disk is full; what is done is kept.
        FailureError: training went astray; what was kept before it stays.
    """
    progress = progress or Silent()
    lesson = plan.lesson
    require_apart(target, lesson.student, lesson.teacher)
    checkpoint = open_checkpoint(lesson.student)
    place = device_of(device)
    key = _key(plan, texts, place)
    finish_if_done(target, key)
    require_empty(target, advice="choose another folder, or remove this one first")
    target.parent.mkdir(parents=True, exist_ok=True)
    require_space(
        target.parent, plan.memory.disk, advice="free some space, then run the same command again"
    )
    with workshop(target, key, resume=True, discard_stale=False) as folder:
        work = _Work(plan, texts, Kept(folder / FOLDER_NAME), place, progress)
        model, changed = work.healed()
        shards = write_weights(folder, checkpoint, model, changed, progress)
        del model
        write_companions(folder, checkpoint, lesson)
        report = work.report(folder, target)
        write_provenance(folder, checkpoint, shards, report.as_dict())
    shutil.rmtree(target / FOLDER_NAME, ignore_errors=True)
    return report


def _completed(lesson: Lesson, settings: HealSettings) -> HealSettings:
    """Return the settings with what depends on the models."""
    limit = lesson.spec.position_limit
    window = settings.window_tokens
    if lesson.has_other_positions and window == HealSettings().window_tokens:
        window = _LONG_WINDOW
        batch = max(1, settings.batch * settings.window_tokens // window)
        settings = replace(settings, batch=batch)
    return replace(
        settings,
        window_tokens=min(window, limit),
        heldout_tokens=min(settings.heldout_tokens, limit),
    )


def _most_tokens(settings: HealSettings) -> int:
    """Return how many tokens so many steps can read."""
    if settings.steps is None:
        return 1 << 62
    return settings.steps * settings.batch * settings.window_tokens


def _require_parts(lesson: Lesson, parts: Sequence[str]) -> None:
    if not parts:
        raise InputError("nothing is to be trained", hint="--train routers,experts,attention")
    if not lesson.spec.is_moe and {"routers", "experts"} & set(parts):
        raise UnsupportedError(
            f"{lesson.student} is dense: it has no routers and no experts to train",
            hint="--train attention",
        )
    if "new" in parts and lesson.capacity is None:
        raise UnsupportedError(
            f"nothing says what of {lesson.student} is new against {lesson.teacher}",
            hint="leave `new` out of --train, or heal a folder that veche build made",
        )


def _require_text(settings: HealSettings, texts: HealTexts) -> None:
    least = settings.batch * settings.window_tokens
    if len(texts.train) + settings.generate_tokens < least:
        raise InputError(
            f"{len(texts.train):,} tokens are too few to learn from: one step reads {least:,}",
            hint="give a longer --text, or let the teacher write: --generate 50000",
        )
    if len(texts.heldout) < 2 * settings.heldout_tokens:
        raise InputError(
            f"{len(texts.heldout):,} tokens of held-out text are too few: two windows of "
            f"{settings.heldout_tokens:,} are the least",
            hint="give a longer --text or --heldout, or shorter windows: --heldout-tokens 64",
        )


def _key(plan: HealPlan, texts: HealTexts, device: torch.device) -> str:
    """Return what the result depends on, as a hash."""
    teacher = [
        [file.name, file.stat().st_size, file.stat().st_mtime_ns]
        for file in open_checkpoint(plan.lesson.teacher).shards
    ]
    tokens = hashlib.sha256(json_text({"a": texts.train, "b": texts.heldout}).encode()).hexdigest()
    settings = {**plan.settings.as_dict(), "save_every": None}
    content = {
        "heal": settings,
        "config": plan.lesson.config,
        "teacher": teacher,
        "text": tokens,
        "device": device.type,
        "threads": torch.get_num_threads(),
    }
    return work_key(open_checkpoint(plan.lesson.student), content)


@dataclass(slots=True)
class _Work:
    """One healing at work."""

    plan: HealPlan
    texts: HealTexts
    kept: Kept
    device: torch.device
    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)
    losses: tuple[float, ...] = ()
    heldout: Heldout | None = None
    before: WindowFigures | None = None
    fitted: WindowFigures | None = None

    def healed(self) -> tuple[Model, set[str]]:
        """Return the healed model, adapters merged, and which parameters may differ."""
        plan, lesson, settings = self.plan, self.plan.lesson, self.plan.settings
        teacher = load_model(lesson.teacher).to(self.device)
        student = load_model(lesson.student, changes=lesson.changes).to(self.device)
        with torch.no_grad():
            scaled_in_place(dict(student.named_parameters()), lesson.gain, student.dtype)
        with self._timed("measure"):
            self._measure_before(teacher, student)
        material = self._material(teacher)
        with self._timed("fit"):
            changed = self._fit(teacher, student)
        trainee = Trainee(student, lesson, settings, tuple(plan.parts))
        steps = self._num_steps(trainee, teacher, material)
        with self._timed("read"):
            seen = material.windows_until(steps)
            states = read_states(teacher, material, seen, self.kept, self.progress)
        del teacher
        with self._timed("distil"):
            self.losses = train(
                trainee, states, material, self.kept, settings,
                num_steps=steps, progress=self.progress,
            )  # fmt: skip
        changed |= trainee.merge()
        if lesson.gain != 1:
            changed |= {
                name for name, _ in student.named_parameters() if name.endswith("down_proj")
            }
        return student, changed

    def report(self, folder: Path, target: Path) -> HealReport:
        """Measure what was written, and say what was done."""
        if self.heldout is None or self.before is None:
            raise AssertionError("what was not measured before cannot be compared")
        with self._timed("measure"):
            model = load_model(folder).to(self.device)
            after = self.heldout.figures(model, "healed model reads held-out text")
        teacher_nll = self.heldout.teacher_nll
        return HealReport(
            plan=self.plan,
            target=str(target),
            num_steps=len(self.losses),
            losses=self.losses,
            fitted=None if self.fitted is None else recovery(teacher_nll, self.before, self.fitted),
            recovery=recovery(teacher_nll, self.before, after),
            heldout_windows=len(self.heldout.text.tokens),
            woke=self._woke(folder),
            seconds=dict(self.seconds),
        )

    def _measure_before(self, teacher: Model, student: Model) -> None:
        settings = self.plan.settings
        tokens_WT = windows(
            self.texts.heldout,
            num_windows=settings.heldout_windows,
            window_tokens=settings.heldout_tokens,
        ).to(self.device)
        self.heldout = Heldout(teacher, tokens_WT, self.progress)
        self.before = self.heldout.figures(student, "student reads held-out text")

    def _material(self, teacher: Model) -> Material:
        """Cut the text that is learnt from, and let the teacher write its share."""
        settings = self.plan.settings
        length = settings.window_tokens
        parts = []
        if len(self.texts.train) >= length:
            count = len(self.texts.train) // length
            parts.append(windows(self.texts.train, num_windows=count, window_tokens=length))
        if settings.generate_tokens:
            with self._timed("write"):
                parts.append(self._self_written(teacher, -(-settings.generate_tokens // length)))
        return Material(tokens=torch.cat(parts), batch=settings.batch, seed=settings.seed)

    def _self_written(self, teacher: Model, count: int) -> Tensor:
        found = self.kept.load_text()
        if found is None:
            config, settings = teacher.config, self.plan.settings
            first = config.bos_token_id if config.bos_token_id is not None else config.eos_token_id
            found = self_written(
                teacher,
                int(first[0] if isinstance(first, list) else first or 0),
                num_windows=count,
                window_tokens=settings.window_tokens,
                seed=settings.seed,
                progress=self.progress,
            ).cpu()
            self.kept.save_text(found)
        return found

    def _fit(self, teacher: Model, student: Model) -> set[str]:
        """Fit layers, or put back what an interrupted run fitted; return what moved."""
        if not self.plan.is_fitted:
            return set()
        settings = self.plan.settings
        found = self.kept.load_fit()
        parameters: dict[str, Any] = dict(student.named_parameters())
        if found is None:
            length = min(_FIT_WINDOW, self.plan.lesson.spec.position_limit, len(self.texts.train))
            tokens_WT = windows(
                self.texts.train,
                num_windows=max(1, settings.fit_tokens // length),
                window_tokens=length,
            ).to(self.device)
            moved = fit_layers(
                teacher, student, tokens_WT, self.plan.lesson, tuple(self.plan.parts),
                seed=settings.seed, progress=self.progress,
            )  # fmt: skip
            self.kept.save_fit(moved)
        else:
            moved = found
            with torch.no_grad():
                for name, value in moved.items():
                    parameters[name].copy_(value)
        if self.heldout is not None:
            self.fitted = self.heldout.figures(student, "fitted student reads held-out text")
        return set(moved)

    def _num_steps(self, trainee: Trainee, teacher: Model, material: Material) -> int:
        point = self.kept.num_steps()
        if point is None:
            spent = sum(self.seconds.get(name, 0.0) for name in ("fit", "write"))
            point = num_steps_for(trainee, teacher, material, self.plan.settings, spent_s=spent)
            self.kept.save_num_steps(point)
        return point

    def _woke(self, folder: Path) -> dict[str, dict[str, dict[str, int]]]:
        if self.plan.lesson.capacity is None:
            return {}
        before, after = (
            find_asleep(each, progress=self.progress).totals()
            for each in (self.plan.lesson.student, folder)
        )
        return {name: {"before": before[name], "after": after[name]} for name in before}

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started
