"""What healing needs, before it begins: parameters that move, bytes of memory and of disk."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from veche.checkpoint.reader import Checkpoint, open_checkpoint
from veche.checkpoint.spec import ModelSpec
from veche.roles.healing.lesson import Lesson
from veche.roles.healing.settings import HealSettings, Part

_MASTER_BYTES = 4
_GRADIENT_BYTES = 4
_KEPT_VALUES = 24
"""Of hidden size, that a layer keeps of each position for the backward pass."""
_KEPT_UNIT_VALUES = 5
"""The same, of each hidden unit that is computed."""
_RUNTIME_BYTES = 640 << 20
"""Of Python, torch, transformers and PEFT themselves."""
_LOGITS = 256 * 4 * 4
"""Bytes of logits for each entry of the vocabulary: rows, float32, copies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """Bytes.

    Attributes:
        weights: of student and teacher.
        states: masters, gradients and moments of what is trained.
        activations: of one step, about.
        fitting: of the fit by layers, about; it comes before training.
        disk: result, kept points and the teacher's states.
    """

    weights: int
    states: int
    activations: int
    fitting: int
    disk: int

    @property
    def peak(self) -> int:
        """The most at a time, about."""
        return _RUNTIME_BYTES + self.weights + max(self.fitting, self.states + self.activations)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {**asdict(self), "peak": self.peak}


def trained_parameters(
    lesson: Lesson, settings: HealSettings, parts: Sequence[Part]
) -> dict[Part, int]:
    """Return how many parameters of each part move."""
    spec = lesson.spec
    sparse, width = spec.num_sparse_layers, spec.moe_intermediate_size or 0
    io = 2 * (spec.hidden_size + spec.q_size) + 2 * (spec.hidden_size + spec.kv_size)
    counts: dict[Part, int] = {
        "routers": sparse * spec.num_experts * spec.hidden_size,
        "experts": sparse * spec.num_experts * width * spec.hidden_size,
        "attention": spec.num_hidden_layers * settings.rank * io,
        "new": _new_parameters(lesson),
    }
    return {part: counts[part] for part in parts}


def memory_plan(
    lesson: Lesson,
    settings: HealSettings,
    parts: Mapping[Part, int],
    *,
    train_tokens: int,
    is_fitted: bool,
) -> MemoryPlan:
    """Return what the run needs, from sizes alone.

    Args:
        lesson: student and teacher.
        settings: batch, fit.
        parts: trained parameters of each part.
        train_tokens: of the text that is learnt from.
        is_fitted: whether layers are fitted first.
    """
    spec = lesson.spec
    student, teacher = (open_checkpoint(path) for path in (lesson.student, lesson.teacher))
    element = _element_bytes(student)
    trained = sum(parts.values())
    per_token = (
        spec.num_hidden_layers
        * element
        * (_KEPT_VALUES * spec.hidden_size + _KEPT_UNIT_VALUES * _units(spec))
    )
    units = spec.num_experts * (spec.moe_intermediate_size or 0)
    fitting = settings.fit_tokens * (4 * units + 24 * spec.hidden_size) + 12 * units**2
    states = trained * _MASTER_BYTES + _moments_bytes(settings, parts)
    return MemoryPlan(
        weights=student.num_bytes + teacher.num_bytes,
        states=states + trained * _GRADIENT_BYTES,
        activations=settings.batch * settings.window_tokens * per_token + _LOGITS * spec.vocab_size,
        fitting=fitting if is_fitted else 0,
        disk=student.num_bytes + 2 * states + train_tokens * spec.hidden_size * element,
    )


def _moments_bytes(settings: HealSettings, parts: Mapping[Part, int]) -> int:
    """AdamW: two moments a value. LoFT: a row of r values has r and r(r + 1)/2."""
    num_bytes = {part: 8 * count for part, count in parts.items()}
    if settings.optimizer == "loft" and "attention" in parts:
        num_bytes["attention"] = parts["attention"] * 4 * (settings.rank + 3) // 2
    return sum(num_bytes.values())


def _units(spec: ModelSpec) -> int:
    """Return the hidden units that are computed for a position."""
    if not spec.is_moe:
        return spec.intermediate_size or 0
    experts = spec.num_experts if spec.has_equal_routing_weights else spec.num_experts_per_tok
    return experts * (spec.moe_intermediate_size or 0)


def _element_bytes(checkpoint: Checkpoint) -> int:
    info = next(iter(checkpoint.tensors.values()))
    return max(1, info.num_bytes // max(1, info.num_elements))


def _new_parameters(lesson: Lesson) -> int:
    """Return how many entries are new."""
    if lesson.capacity is None:
        return 0
    from veche.roles.healing.masks import new_masks
    from veche.surgery.loading import empty_model

    shapes = {name: value.shape for name, value in empty_model(lesson.student).named_parameters()}
    masks = new_masks(shapes, lesson.capacity, lesson.spec)
    return sum(int(mask.sum()) for mask in masks.values())
