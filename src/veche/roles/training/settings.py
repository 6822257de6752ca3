"""How an adapter is trained: few dials, and for each that was not given a value with its reason."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from veche.checkpoint.spec import ModelSpec
from veche.core.errors import InputError

Method = Literal["alora", "lora", "merged-experts"]
OptimizerName = Literal["adamw", "loft"]
METHODS: tuple[Method, ...] = ("alora", "lora", "merged-experts")
OPTIMIZERS: tuple[OptimizerName, ...] = ("adamw", "loft")
_LEARNING_RATES: dict[OptimizerName, float] = {"adamw": 2e-4, "loft": 2e-4}
_LARGE_PARAMETERS = 1_000_000_000
_NUM_CHECKPOINTS = 10
_USUAL_LENGTH = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """What may be chosen; None is computed, see `chosen`.

    Attributes:
        method: "alora" acts on attention from the invocation on, so that every voice shares the
            trunk's keys and values; "lora" acts on attention at every token; "merged-experts" acts
            on the experts, and is written as a whole checkpoint with the adapter merged in.
        optimizer: "adamw", or "loft" (arXiv 2505.21289).
        rank: of each pair of factors.
        alpha: their product is multiplied by alpha / rank.
        learning_rate: its highest, after the warm-up.
        steps: optimiser steps; None goes through the data `epochs` times.
        epochs: times that every example is seen.
        batch: examples of one step, over all processes.
        micro_batch: examples of one forward pass of one process.
        max_length: tokens; longer examples are left out, and counted.
        warmup_share: share of the steps in which the learning rate rises.
        weight_decay: decoupled; with "loft" it is on the product of the factors.
        max_grad_norm: longer gradients are shortened.
        router_aux_loss_coef: weight of the balance loss of the routers.
        gradient_checkpointing: whether layers are computed again in the backward pass.
        dtype: of the base model: "bfloat16", "float32", or "auto", the checkpoint's; adapters and
            their optimiser are in float32.
        seed: of the first weights and of the order of the examples.
        save_every: steps between checkpoints.
    """

    method: Method = "alora"
    optimizer: OptimizerName = "adamw"
    rank: int = 16
    alpha: float | None = None
    learning_rate: float | None = None
    steps: int | None = None
    epochs: float = 1.0
    batch: int = 8
    micro_batch: int | None = None
    max_length: int | None = None
    warmup_share: float = 0.05
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    router_aux_loss_coef: float | None = None
    gradient_checkpointing: bool | None = None
    dtype: str = "auto"
    seed: int = 0
    save_every: int | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing.

        Raises:
            InputError: names the dial.
        """
        require_one_of("method", self.method, METHODS)
        require_one_of("optimizer", self.optimizer, OPTIMIZERS)
        require_one_of("dtype", self.dtype, ("auto", "float32", "bfloat16"))
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not least <= value < float("inf"):
                raise InputError(f"{name} {value} is not at least {least}", hint=_hint(name))
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"{name} {value} is not above 0", hint=_hint(name))
        for name, most in _MOST.items():
            value = getattr(self, name)
            if value is not None and value > most:
                raise InputError(f"{name} {value} is above {most}", hint=_hint(name))
        if not 0 <= self.warmup_share < 1:
            raise InputError(f"warmup_share {self.warmup_share} is not in [0, 1)")
        if self.micro_batch is not None and self.micro_batch > self.batch:
            raise InputError(
                f"micro_batch {self.micro_batch} is more than the batch, {self.batch}",
                hint="a step has `batch` examples, computed `micro_batch` at a time",
            )
        if self.method == "merged-experts" and self.optimizer == "loft":
            raise InputError(
                "loft trains attention adapters only: an expert adapter holds all experts of a "
                "layer in one pair of factors, whose ranks are not its own",
                hint="--optimizer adamw, or --method alora",
            )

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return asdict(self)


_LEAST = {
    "rank": 1, "steps": 1, "batch": 1, "micro_batch": 1, "max_length": 2, "seed": 0,
    "save_every": 1, "weight_decay": 0, "router_aux_loss_coef": 0,
}  # fmt: skip
_MOST: dict[str, float] = {
    "rank": 4096, "steps": 10_000_000, "batch": 65_536, "seed": 2**63 - 1, "epochs": 1e6,
    "learning_rate": 1e30,
}  # fmt: skip
"""More is a slip of the hand, and would run for ever or not fit the numbers of PyTorch."""
_POSITIVE = ("alpha", "learning_rate", "epochs", "max_grad_norm")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChosenSettings:
    """Settings in which nothing is left open.

    Attributes:
        method: as `TrainingSettings`, like all that follow up to `save_every`.
        num_steps: optimiser steps.
        reasons: why a dial that was not given has its value, by name.
    """

    method: Method
    optimizer: OptimizerName
    rank: int
    alpha: float
    learning_rate: float
    num_steps: int
    batch: int
    micro_batch: int
    max_length: int
    warmup_share: float
    weight_decay: float
    max_grad_norm: float
    router_aux_loss_coef: float
    gradient_checkpointing: bool
    dtype: str
    seed: int
    save_every: int
    reasons: Mapping[str, str]

    @property
    def num_warmup(self) -> int:
        """Steps in which the learning rate rises."""
        return round(self.warmup_share * self.num_steps)

    def learning_rate_at(self, step: int) -> float:
        """Return the learning rate of a step, from 0: linear to its highest, then a half cosine.

        It ends at a tenth of the highest.
        """
        import math

        if step < self.num_warmup:
            return self.learning_rate * (step + 1) / self.num_warmup
        done = (step - self.num_warmup) / max(1, self.num_steps - self.num_warmup)
        return self.learning_rate * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))

    def as_dict(self) -> dict[str, Any]:
        """Return what decides the result as JSON values; reasons do not."""
        names = [field.name for field in fields(self) if field.name != "reasons"]
        return {name: getattr(self, name) for name in names}


def chosen(
    settings: TrainingSettings, spec: ModelSpec, *, num_examples: int, num_processes: int = 1
) -> ChosenSettings:
    """Compute the dials that were not given.

    Args:
        settings: what was given.
        spec: the base model's.
        num_examples: how many there are to learn from.
        num_processes: that share a batch.

    Raises:
        InputError: the batch cannot be shared by the processes, or the model has no experts.
    """
    if settings.method == "merged-experts" and not spec.is_moe:
        raise InputError(
            f"method merged-experts needs experts, and {spec.model_type} is dense",
            hint="--method alora",
        )
    if settings.batch % num_processes:
        raise InputError(
            f"a batch of {settings.batch} cannot be shared by {num_processes} processes",
            hint=f"--batch {-(-settings.batch // num_processes) * num_processes}",
        )
    picked = _Picked(settings)
    per_epoch = -(-num_examples // settings.batch)
    num_steps = picked(
        "steps",
        max(1, round(settings.epochs * per_epoch)),
        f"{settings.epochs:g} × {num_examples} examples / {settings.batch}",
    )
    _require_an_end(num_steps)
    values = {
        "alpha": picked("alpha", float(settings.rank), "α = r, so the product is not scaled"),
        "learning_rate": picked(
            "learning_rate", _LEARNING_RATES[settings.optimizer], "usual for low-rank adapters"
        ),
        "micro_batch": picked(
            "micro_batch", settings.batch // num_processes, "all of a process's share at once"
        ),
        "max_length": min(
            picked("max_length", _USUAL_LENGTH, "longer than most dialogues"), spec.position_limit
        ),
        "router_aux_loss_coef": picked("router_aux_loss_coef", *_aux_loss(settings, spec)),
        "gradient_checkpointing": picked("gradient_checkpointing", *_checkpointing(spec)),
        "save_every": picked(
            "save_every",
            max(1, -(-num_steps // _NUM_CHECKPOINTS)),
            "a tenth of all steps",
        ),
    }
    given = {
        name: getattr(settings, name)
        for name in (
            "method", "optimizer", "rank", "batch", "warmup_share", "weight_decay",
            "max_grad_norm", "dtype", "seed",
        )
    }  # fmt: skip
    return ChosenSettings(num_steps=num_steps, reasons=picked.reasons, **given, **values)


def _require_an_end(num_steps: int) -> None:
    if num_steps > _MOST["steps"]:
        raise InputError(
            f"so many epochs are {num_steps:,} steps, above {_MOST['steps']:,}",
            hint="fewer --epochs, a larger --batch, or --steps",
        )


def longest_of(settings: TrainingSettings, spec: ModelSpec) -> int:
    """Return how many tokens an example may have: not more than the model's positions."""
    return min(settings.max_length or _USUAL_LENGTH, spec.position_limit)


def require_one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse a dial's value that is none of those that are known.

    Raises:
        InputError: names the dial, and the nearest value.
    """
    if value not in known:
        import difflib

        near = difflib.get_close_matches(value, known, n=1)
        raise InputError(
            f"{name} {value!r} is unknown",
            hint=(f"did you mean {near[0]!r}? " if near else "") + f"known: {', '.join(known)}",
        )


class _Picked:
    """Take what was given, or else a computed value, and remember why."""

    def __init__(self, settings: TrainingSettings) -> None:
        self._settings = settings
        self.reasons: dict[str, str] = {}

    def __call__(self, name: str, value: Any, reason: str) -> Any:
        given = getattr(self._settings, name)
        if given is not None:
            return given
        self.reasons["num_steps" if name == "steps" else name] = reason
        return value


def _aux_loss(settings: TrainingSettings, spec: ModelSpec) -> tuple[float, str]:
    if settings.method != "merged-experts":
        return 0.0, "routers are not trained, and a voice need not use all experts alike"
    if spec.router_aux_loss_coef is None:
        return 0.0, "config.json names none"
    return spec.router_aux_loss_coef, "router_aux_loss_coef of config.json"


def _checkpointing(spec: ModelSpec) -> tuple[bool, str]:
    from veche.planning.accounting import parameter_groups

    is_large = parameter_groups(spec).total > _LARGE_PARAMETERS
    if is_large:
        return True, "the model has more than 10⁹ parameters: memory counts for more than time"
    return False, "the model has less than 10⁹ parameters: time counts for more than memory"


def _hint(name: str) -> str:
    return f"leave --{name.replace('_', '-')} out: it is then computed"
