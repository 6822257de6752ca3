"""Who is healed towards whom: a changed model, and the model that it was made from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from veche.checkpoint.config import read_config, spec_of
from veche.checkpoint.edit import edited
from veche.checkpoint.spec import ModelSpec
from veche.core.errors import CheckpointError, InputError, RecipeError
from veche.core.files import sha256_of
from veche.experts.dial.points import DialName, chosen_points
from veche.experts.dial.turning import variant_of
from veche.experts.growth import NewCapacity, new_capacity
from veche.planning.plan import read_plan
from veche.roles.healing.settings import Part
from veche.surgery.names import GROWTH_NAME, PLAN_NAME

_TOKENIZER = "tokenizer.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """A student, its teacher, and what lies between them.

    Attributes:
        student: the folder whose weights are healed; only read.
        teacher: the folder whose answers are wanted back; only read.
        dials: dials that are turned on the student's config, and their values.
        changes: the same as fields of ModelSpec.
        gain: what the experts' `down` is multiplied by, because of top-k (decision 0003).
        capacity: what of the student is new; None where nothing is.
    """

    student: Path
    teacher: Path
    dials: Mapping[str, float] = field(default_factory=dict)
    changes: Mapping[str, Any] = field(default_factory=dict)
    gain: float = 1.0
    capacity: NewCapacity | None = None

    @property
    def config(self) -> dict[str, Any]:
        """The healed model's config.json."""
        config = read_config(self.student)
        return edited(config, dict(self.changes)) if self.changes else dict(config)

    @property
    def spec(self) -> ModelSpec:
        """The healed model's."""
        return spec_of(self.config)

    @property
    def teacher_spec(self) -> ModelSpec:
        """The teacher's."""
        return spec_of(read_config(self.teacher))

    @property
    def has_fewer_experts(self) -> bool:
        """Whether a token has another share of the experts than in the teacher."""
        own, base = self.spec, self.teacher_spec
        if not own.is_moe or not base.is_moe:
            return own.is_moe and own.num_experts_per_tok < own.num_experts
        return own.num_experts_per_tok * base.num_experts != (
            base.num_experts_per_tok * own.num_experts
        )

    @property
    def has_other_positions(self) -> bool:
        """Whether positions are rotated by other angles."""
        return self.spec.rope != self.teacher_spec.rope

    def parts(self) -> tuple[Part, ...]:
        """Return what the change has damaged, which is what is trained unless chosen otherwise."""
        chosen: list[Part] = []
        if self.has_fewer_experts:
            chosen += ["routers", "experts", "attention"]
        elif self.has_other_positions:
            chosen += ["attention"]
        if self.capacity is not None:
            chosen += ["new"]
        return tuple(chosen) or ("attention",)


def lesson_of(
    model: Path,
    *,
    teacher: Path | None = None,
    top_k: int | None = None,
    rope_theta: float | None = None,
    yarn: float | None = None,
) -> Lesson:
    """Find out who is healed towards whom.

    With a dial, the model with it turned is healed towards the model as it is. Without one, a model
    that `veche build` made is healed towards its source, which its plan names.

    Args:
        model: a checkpoint folder.
        teacher: of the same vocabulary; None finds it as above.
        top_k: active experts a token.
        rope_theta: base of the rotary frequencies.
        yarn: factor of YaRN.

    Raises:
        InputError: there is nothing to heal, or a dial has a value that it cannot have.
        CheckpointError: a folder is no checkpoint.
    """
    spec = spec_of(read_config(model), where=str(model / "config.json"))
    asked: dict[DialName, float | None] = {"top_k": top_k, "rope_theta": rope_theta, "yarn": yarn}
    dials: dict[str, float] = {}
    changes: dict[str, Any] = {}
    gain = 1.0
    for name, value in asked.items():
        if value is None:
            continue
        chosen_points(name, f"{float(value)!r}", spec)
        variant = variant_of(model, name, value)
        dials[name] = float(value)
        changes, gain = {**changes, **variant.changes}, gain * variant.gain
    found = teacher or (model if dials else _source_of(model))
    lesson = Lesson(
        student=model,
        teacher=found,
        dials=dials,
        changes=changes,
        gain=gain,
        capacity=new_capacity(model) if _is_grown(model, found) else None,
    )
    _require_lesson(lesson)
    return lesson


def _is_grown(model: Path, teacher: Path) -> bool:
    return model.resolve() != teacher.resolve() and (model / GROWTH_NAME).is_file()


def _source_of(model: Path) -> Path:
    """Return the folder that a built model was made from.

    Raises:
        InputError: nothing says which it is, or it is not there.
    """
    path = model / PLAN_NAME
    advice = "name the model to heal it towards: --teacher FOLDER, or a dial: --top-k, --rope-theta"
    if not path.is_file():
        raise InputError(
            f"{model} was not made by veche build, and no dial is turned: there is nothing to heal",
            hint=advice,
        )
    try:
        base = read_plan(path).base
    except RecipeError as error:
        raise CheckpointError(error.message, hint=advice) from error
    for folder in (Path(base), model / base, model.parent / base):
        if folder.is_dir():
            return folder
    raise InputError(
        f"{path} says that {model} was made from {base!r}, which is no folder here",
        hint="name the folder where it lies: --teacher FOLDER",
    )


def _require_lesson(lesson: Lesson) -> None:
    student, teacher = lesson.spec, lesson.teacher_spec
    if lesson.student.resolve() == lesson.teacher.resolve() and student == teacher:
        raise InputError(
            f"{lesson.student} is its own teacher, and no dial changes it: nothing was lost",
            hint="turn a dial, e.g. --top-k, or name another model: --teacher FOLDER",
        )
    if student.vocab_size != teacher.vocab_size:
        raise InputError(
            f"{lesson.student} has {student.vocab_size:,} tokens, and its teacher {lesson.teacher} "
            f"{teacher.vocab_size:,}: their answers cannot be compared token by token",
            hint="name the model that it was made from: --teacher FOLDER",
        )
    files = [folder / _TOKENIZER for folder in (lesson.student, lesson.teacher)]
    if all(file.is_file() for file in files) and len({sha256_of(file) for file in files}) > 1:
        raise InputError(
            f"{files[0]} and {files[1]} differ: the same token is another text to each model",
            hint="name the model that it was made from: --teacher FOLDER",
        )
