"""The parameters that move, in float32 beside a model of any type. This file imports torch.

Legend: A [r, n] and B [m, r] are the factors of a change of a weight [m, n].
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor

from veche.core.errors import UnsupportedError
from veche.roles.healing.lesson import Lesson
from veche.roles.healing.masks import new_masks
from veche.roles.healing.settings import HealSettings, Part
from veche.roles.healing.straight_through import close_routers, open_routers
from veche.roles.loft.optimizer import LoFT
from veche.roles.loft.pairs import lora_pairs
from veche.surgery.loading import Model

_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_ADAPTER = "heal"
_BETAS = (0.9, 0.99)
"""A run has a few hundred steps: moments must not remember longer."""
_PLAIN_EPS = 1e-8
_MOST_GRAD_NORM = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Moving:
    """A parameter that is trained.

    Attributes:
        name: transformers' name of it, or of an adapter's factor.
        part: which part it belongs to.
        parameter: what the model computes with.
        master: its value in float32, which the optimiser moves; the parameter itself where that is
            in float32 already. Under a mask, a vector of the entries that may move, no others.
        mask: True where it may move; None is everywhere.
    """

    name: str
    part: Part
    parameter: Tensor
    master: Tensor
    mask: Tensor | None = None


class Trainee:
    """A student's trained parameters, and their optimiser.

    NOTE: the optimiser sees masters alone. An entry that may not move is in none, so it stays bit
    for bit whatever the optimiser does.
    """

    def __init__(
        self, model: Model, lesson: Lesson, settings: HealSettings, parts: Sequence[Part]
    ) -> None:
        """Freeze all of the model but what is trained.

        Args:
            model: the student, with its dials turned.
            lesson: what of it is new.
            settings: ranks and rates.
            parts: what is trained.

        Raises:
            UnsupportedError: the model has no such part.
        """
        self.model, self._settings = model, settings
        self._own_experts = str(getattr(model.config, "_experts_implementation", ""))
        self._gates: list[Any] = []
        model.requires_grad_(False)
        chosen = _chosen(model, lesson, parts)
        if "routers" in parts and lesson.spec.has_equal_routing_weights:
            self._gates = open_routers(model)
        pairs = _inject(model, settings) if "attention" in parts else []
        self.moving = [*_full(model, chosen), *pairs]
        self.optimizer = _optimizer(self.moving, settings)
        self._rates = [float(group["lr"]) for group in self.optimizer.param_groups]

    @property
    def num_parameters(self) -> int:
        """Entries that may move."""
        return sum(each.master.numel() for each in self.moving)

    @torch.no_grad()
    def step(self, factor: float) -> float:
        """Move the parameters by their gradients, and return the gradient's norm.

        Args:
            factor: what the highest learning rates are multiplied by.
        """
        for each in self.moving:
            gradient = each.parameter.grad
            if gradient is None:
                continue
            if each.mask is not None:
                gradient = gradient[each.mask]
            each.master.grad = gradient.to(each.master.dtype)
            if each.master is not each.parameter:
                each.parameter.grad = None
        for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        masters = [each.master for each in self.moving]
        clip = _MOST_GRAD_NORM if not isinstance(self.optimizer, LoFT) else float("inf")
        norm = float(torch.nn.utils.clip_grad_norm_(masters, clip))
        if norm == norm and norm != float("inf"):  # NaN gradients must move nothing
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.show()
        return norm

    @torch.no_grad()
    def show(self) -> None:
        """Let the model compute with the masters' values."""
        for each in self.moving:
            if each.mask is not None:
                each.parameter.masked_scatter_(each.mask, each.master.to(each.parameter.dtype))
            elif each.master is not each.parameter:
                each.parameter.copy_(each.master)

    def forget(self) -> None:
        """Drop gradients."""
        for each in self.moving:
            each.parameter.grad = None

    @torch.no_grad()
    def merge(self) -> set[str]:
        """Put adapters into their weights and routers back to scale; return what may differ now.

        W + BA is computed in float32, and rounded to the model's type once.
        """
        changed = {each.name for each in self.moving if each.part != "attention"}
        for name, layer in _adapted(self.model):
            base, delta = layer.get_base_layer(), layer.get_delta_weight(_ADAPTER)
            base.weight.copy_(base.weight.float() + delta.float())
            changed.add(f"{name}.weight")
            _replace(self.model, name, base)
        if self._gates:
            close_routers(self.model, self._gates, self._own_experts)
        return changed


def _chosen(
    model: Model, lesson: Lesson, parts: Sequence[Part]
) -> dict[str, tuple[Part, Tensor | None]]:
    """Return the parameters that are trained themselves, their part and mask."""
    found: dict[str, tuple[Part, Tensor | None]] = {}
    parameters = dict(model.named_parameters())
    if "new" in parts:
        if lesson.capacity is None:
            raise UnsupportedError(
                f"{lesson.student} has no new units to train: growth.json is not there, or it is "
                "its own teacher",
                hint="leave `new` out of --train",
            )
        shapes = {name: value.shape for name, value in parameters.items()}
        masks = new_masks(shapes, lesson.capacity, lesson.spec)
        found |= {name: ("new", mask) for name, mask in masks.items()}
    wanted: list[tuple[Part, str]] = [
        ("routers", ".mlp.gate.weight"), ("experts", ".mlp.experts.down_proj")
    ]  # fmt: skip
    for part, ending in wanted:
        names = [name for name in parameters if name.endswith(ending)]
        if part in parts and not names:
            raise UnsupportedError(
                f"{lesson.student} is dense: it has no {part} to train",
                hint="leave it out of --train, e.g. --train attention",
            )
        if part in parts:
            found |= dict.fromkeys(names, (part, None))
    return found


def _full(model: Model, chosen: Mapping[str, tuple[Part, Tensor | None]]) -> list[Moving]:
    moving = []
    for name, parameter in model.named_parameters():
        own = name.replace(".base_layer.", ".")
        if own not in chosen:
            continue
        part, mask = chosen[own]
        parameter.requires_grad_(True)
        mask = None if mask is None else mask.to(parameter.device)
        if mask is not None:
            master = parameter.detach()[mask].float()
        else:
            is_exact = parameter.dtype == torch.float32
            master = parameter if is_exact else parameter.detach().float().clone()
        moving.append(Moving(name=own, part=part, parameter=parameter, master=master, mask=mask))
    return moving


def _inject(model: Model, settings: HealSettings) -> list[Moving]:
    """Give attention's projections low-rank adapters whose product is 0, by the seed."""
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.rank,
        lora_dropout=0.0,
        target_modules=rf".*\.self_attn\.({'|'.join(_ATTENTION)})",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        inject_adapter_in_model(config, model, adapter_name=_ADAPTER)
    moving = []
    for pair in lora_pairs(model, _ADAPTER):
        for kind, factor in (("A", pair.a), ("B", pair.b)):
            factor.data = factor.data.float()
            moving.append(
                Moving(
                    name=f"{pair.name}.{kind}", part="attention", parameter=factor, master=factor
                )
            )
    return moving


def _adapted(model: Model) -> Iterator[tuple[str, Any]]:
    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            yield name, module


def _replace(model: Model, name: str, module: Any) -> None:
    parent, _, own = name.rpartition(".")
    setattr(model.get_submodule(parent), own, module)


def _optimizer(moving: Sequence[Moving], settings: HealSettings) -> torch.optim.Optimizer:
    """Return AdamW over all, or LoFT over the pairs and its AdamW over the others."""
    is_loft = settings.optimizer == "loft"
    groups: list[dict[str, Any]] = []
    parts: list[Part] = ["attention", "experts", "new", "routers"]
    for part in parts:
        masters = [each.master for each in moving if each.part == part]
        if not masters:
            continue
        group: dict[str, Any] = {"params": masters, "lr": _rate(part, masters, settings)}
        if is_loft:
            group["kind"] = "pairs" if part == "attention" else "plain"
            group |= {} if part == "attention" else {"eps": _PLAIN_EPS}
        groups.append(group)
    if is_loft:
        return LoFT(groups, betas=_BETAS, max_grad_norm=_MOST_GRAD_NORM)
    return torch.optim.AdamW(groups, betas=_BETAS, eps=_PLAIN_EPS, weight_decay=0.0)


def _rate(part: Part, masters: Sequence[Tensor], settings: HealSettings) -> float:
    if part == "attention":
        return settings.factor_rate
    if part == "routers":
        size = torch.cat([master.detach().flatten() for master in masters]).std()
        return settings.routers_rate * float(size)
    return settings.experts_rate
