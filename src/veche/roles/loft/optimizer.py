"""LoFT as an optimizer of PyTorch: factors are trained as AdamW would train their product."""

from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from veche.core.errors import FailureError, InputError, UnsupportedError
from veche.roles.loft.groups import PAIRS_EPS, problem_of
from veche.roles.loft.pair_step import STEP, Factor, FactorState, PairStep, chunks, new_state
from veche.roles.loft.plain_adamw import new_plain_state, plain_adamw
from veche.roles.loft.projected_adam import AdamSettings


class LoFT(torch.optim.Optimizer):
    """AdamW of the product BA of low-rank factors (arXiv 2505.21289), and of other parameters.

    Two kinds of parameter groups, as `pairs.parameter_groups` makes them: of kind "pairs", whose
    parameters are A [r, n], B [m, r] of one pair after the other; and of kind "plain", for which a
    step is that of torch.optim.AdamW. Moments are float32, and float64 for parameters of that type.
    Parameters are rounded to their own type after each step: of a bfloat16 parameter, changes below
    1/256 of its value are lost, as with any optimizer; PEFT keeps adapters in float32.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float = 1e-4,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = PAIRS_EPS,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = None,
        maximize: bool = False,
    ) -> None:
        """Take groups, and what holds for groups that do not say otherwise.

        Args:
            params: groups: {"kind": "pairs" or "plain", "params": …, …}.
            lr: learning rate.
            betas: decay of both moments.
            eps: added to the root of the second moment of an entry of the full matrix.
            weight_decay: decoupled, times lr; of a pair on BA.
            max_grad_norm: gradients are scaled down until the full gradient, projected to what this
                step can change, has at most this norm, over all groups. None: they are not.
            maximize: go up, not down.
        """
        if max_grad_norm is not None and not max_grad_norm > 0:
            raise ValueError(f"max_grad_norm is {max_grad_norm}, and must be above 0")
        self.max_grad_norm = max_grad_norm
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take another group.

        Raises:
            ValueError: its kind, shapes or dials make no sense.
        """
        super().add_param_group(param_group)
        problem = problem_of(self.param_groups[-1])
        if problem:
            self.param_groups.pop()
            raise ValueError(problem)

    @torch.no_grad()
    def step(  # type: ignore[override]  # torch overloads it on whether a closure is given
        self, closure: Callable[[], float] | None = None
    ) -> float | None:
        """Make one step; parameters without a gradient stay as they are.

        Args:
            closure: computes the loss anew, and gradients.

        Raises:
            FailureError: a gradient is not a number, or only one factor of a pair has one; nothing
                was changed.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            _require_finite(group)
        steps = [
            (group, step) for group in self._of_kind("pairs") for step in self._pair_steps(group)
        ]
        scale = self._gradient_scale([step for _, step in steps])
        for group, step in steps:
            settings = AdamSettings(
                lr=float(group["lr"]),
                betas=group["betas"],
                eps=group["eps"],
                weight_decay=group["weight_decay"],
                step=step.step,
            )
            step.run(settings, gradient_scale=scale)
        for group in self._of_kind("plain"):
            params = _with_gradients(group)
            states = [self._state_of(param, new_plain_state) for param in params]
            if params:
                plain_adamw(params, states, group, gradient_scale=scale)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state; moments stay as they are, where torch would round them to bfloat16.

        Raises:
            InputError: it is the state of another optimizer, or of other parameters.
        """
        saved = self._saved_states(state_dict)
        super().load_state_dict(state_dict)
        for param, state in saved:
            self.state[param] = {
                key: value.detach().to(value.device if key == STEP else param.device).clone()
                for key, value in state.items()
            }

    def _of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [group for group in self.param_groups if group["kind"] == kind]

    def _state_of(self, param: Tensor, new: Callable[[Tensor], FactorState]) -> FactorState:
        if param not in self.state:
            self.state[param] = new(param)
        return cast("FactorState", self.state[param])

    def _pair_steps(self, group: dict[str, Any]) -> list[PairStep]:
        """Return the steps of a group's pairs that have gradients, stacked by shape."""
        alike: dict[tuple[Any, ...], list[tuple[Factor, Factor]]] = defaultdict(list)
        for a, b in zip(group["params"][::2], group["params"][1::2], strict=True):
            if a.grad is None and b.grad is None:
                continue
            if a.grad is None or b.grad is None:
                raise FailureError(
                    f"one factor of a pair {tuple(b.shape)} × {tuple(a.shape)} has a gradient, the "
                    "other has none; no parameter was changed",
                    hint="train both factors of an adapter, or neither",
                )
            of_a = Factor(
                param=a, is_a=True, state=self._state_of(a, lambda a: new_state(a, is_a=True))
            )
            of_b = Factor(
                param=b, is_a=False, state=self._state_of(b, lambda b: new_state(b, is_a=False))
            )
            step = int(of_b.state[STEP])
            alike[a.shape, b.shape, a.dtype, b.dtype, a.device, step].append((of_a, of_b))
        maximize = group["maximize"]
        return [
            PairStep(of_a, of_b, maximize=maximize)
            for pairs in alike.values()
            for of_a, of_b in chunks(pairs)
        ]

    def _gradient_scale(self, steps: list[PairStep]) -> float:
        """Return what gradients are multiplied by, at most 1."""
        if self.max_grad_norm is None:
            return 1.0
        squares = [step.projected_square_norm() for step in steps]
        squares += [_norm_of(_with_gradients(group)) ** 2 for group in self._of_kind("plain")]
        norm = float(sum(float(square) for square in squares)) ** 0.5
        return min(1.0, self.max_grad_norm / norm) if norm > 0 else 1.0

    def _saved_states(self, state_dict: dict[str, Any]) -> list[tuple[Tensor, FactorState]]:
        """Return a saved state by parameter, looked at."""
        groups = state_dict["param_groups"]
        found: list[tuple[Tensor, FactorState]] = []
        kinds = [(group.get("kind"), len(group["params"])) for group in groups]
        if kinds != [(group["kind"], len(group["params"])) for group in self.param_groups]:
            raise _foreign("its groups are others")
        ids = chain.from_iterable(group["params"] for group in groups)
        for group in self.param_groups:
            for index, param in enumerate(group["params"]):
                saved = state_dict["state"].get(next(ids))
                if saved is None:
                    continue
                is_pair = group["kind"] == "pairs"
                own = new_state(param, is_a=index % 2 == 0) if is_pair else new_plain_state(param)
                shapes = {key: tuple(value.shape) for key, value in saved.items()}
                expected = {key: tuple(value.shape) for key, value in own.items()}
                if shapes != expected:
                    raise _foreign(f"it has {shapes} where {expected} is needed")
                found.append((param, saved))
        return found


def _with_gradients(group: dict[str, Any]) -> list[Tensor]:
    return [param for param in group["params"] if param.grad is not None]


def _norm_of(params: list[Tensor]) -> Tensor:
    # In float32: half-precision sums of squares overflow.
    return get_total_norm([cast("Tensor", param.grad).float() for param in params])


def _require_whole(params: list[Tensor]) -> None:
    # DTensors have one; torch.distributed need not be there to be asked.
    if any(hasattr(param, "device_mesh") for param in params):
        raise UnsupportedError(
            "LoFT was given parameters that are sharded over devices, and a step of a factor needs "
            "the whole of the other",
            hint="train with DDP (adapters are small), or with --optimizer adamw",
        )


def _require_finite(group: dict[str, Any]) -> None:
    _require_whole(group["params"])
    if bool(_norm_of(_with_gradients(group)).isfinite()):
        return
    names = group.get("param_names", [f"parameter {i}" for i in range(len(group["params"]))])
    name = next(
        name
        for name, param in zip(names, group["params"], strict=True)
        if param.grad is not None and not bool(_norm_of([param]).isfinite())
    )
    raise FailureError(
        f"the gradient of {name} is not finite, or too large for float32; nothing was changed",
        hint="lower the learning rate, clip gradients (max_grad_norm), or compute in bfloat16 or "
        "float32 where it was float16",
    )


def _foreign(why: str) -> InputError:
    return InputError(
        f"this is no state of LoFT for these parameters: {why}",
        hint="resume with the adapter, rank and optimizer that the state was saved with",
    )
