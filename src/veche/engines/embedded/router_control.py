"""Watch a model's routers, steered row by row of the batch.

Shapes: B batch rows, S tokens of each, T = B·S, L layers that route, E experts, k experts a token.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from veche.core.errors import UnsupportedError
from veche.engines.embedded.router_choice import RoutingRule, RowChoice, row_choice
from veche.engines.protocol import Branch, Routing

_PROBE_TOKENS = 4
_PROBE_TOLERANCE = 0.02
"""Relative; bfloat16 weights are rounded by 0.004."""
_Answer = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""A router's logits [T, E], weights [T, k] and expert ids [T, k]."""


class RowRouting(NamedTuple):
    """Where one batch row's S tokens of a forward pass were sent; k is what its branch may use."""

    ids: NDArray[np.uint16]
    """[S, L, k], best expert first."""
    weights: NDArray[np.float16]
    """[S, L, k]; 0 where the token used fewer experts."""
    logits: NDArray[np.float32] | None
    """[S, L, E] before any steering; None where no row asked for them."""


class RouterControl:
    """Forward hooks on every router module, in the order of layers.

    A router is a module whose class is named `…Router` with a `top_k`, and that answers
    (logits [T, E], weights [T, k], ids [T, k]), as in transformers 5: Mixtral, Qwen2/3-MoE, OLMoE.

    NOTE: hooks are in place only inside `installed()`, and rows that ask for nothing get the very
    tensors that the router answered. So a trunk, which is prefilled outside, is what it would be
    without any branch.
    """

    def __init__(self, model: nn.Module) -> None:
        self._routers = [module for module in model.modules() if _is_router(module)]
        self._rule = _rule(self._routers, getattr(model, "config", None))
        self._device = next(model.parameters()).device
        self.is_steerable = bool(self._routers) and all(
            _follows(router, self._rule) for router in self._routers
        )
        """Whether rows can be steered: the family makes weights of logits as we do."""
        self._branches: Sequence[Branch] = ()
        self._choice: RowChoice | None = None
        self._is_recording = False
        self._records_logits = False
        self._calls: list[_Answer] = []

    @property
    def num_layers(self) -> int:
        """How many layers route."""
        return self._rule.num_layers

    @property
    def num_experts(self) -> int:
        """How many experts a router chooses from; 0 without routers."""
        return self._rule.num_experts

    @property
    def top_k(self) -> int:
        """How many experts the checkpoint gives a token; 0 without routers."""
        return self._rule.top_k

    @property
    def logit_unit(self) -> float:
        """What these routers' logits are divided by to be in nats; see `AdaptiveExperts`."""
        return self._rule.logit_unit

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Keep hooks in place until the block ends, however it ends."""
        try:
            with ExitStack() as stack:
                for layer, router in enumerate(self._routers):
                    handle = router.register_forward_hook(partial(self._on_answer, layer))
                    stack.callback(handle.remove)
                yield
        finally:
            self.set_rows(())

    def set_rows(self, branches: Sequence[Branch]) -> None:
        """Say whose tokens the batch rows of the next forward passes are; forget older ones.

        Raises:
            InputError: a branch asks for a number of experts or a bias that the model can't follow.
            UnsupportedError: it asks for one, and these routers can't be steered.
        """
        self._calls = []
        self._choice = row_choice(branches, self._rule, self._device)
        if self._choice is not None and not self.is_steerable:
            raise UnsupportedError(
                "this model has no routers that can be steered",
                hint="leave out steering and num_experts_per_tok",
            )
        self._branches = branches
        self._is_recording = any(branch.capture.routing for branch in branches)
        self._records_logits = any(branch.capture.router_logits for branch in branches)

    def take(self) -> list[RowRouting]:
        """Return where the last forward pass sent each row's tokens, and forget it.

        Empty where no row wants it, or the model has no routers.
        """
        calls, self._calls = self._calls, []
        if not calls:
            return []
        rows = (len(self._branches), -1)
        ids = torch.stack([call[2] for call in calls], dim=1).cpu().numpy().astype(np.uint16)
        weights = torch.stack([call[1] for call in calls], dim=1).float().cpu().numpy()
        ids_BSLk = ids.reshape(*rows, *ids.shape[1:])
        weights_BSLk = weights.astype(np.float16).reshape(ids_BSLk.shape)
        logits_BSLE: Any = [None] * len(self._branches)
        if self._records_logits:
            logits = torch.stack([call[0] for call in calls], dim=1).float().cpu().numpy()
            logits_BSLE = logits.reshape(*rows, *logits.shape[1:])
        return [
            RowRouting(
                ids_BSLk[row, ..., : self._rule.num_slots(branch)],
                weights_BSLk[row, ..., : self._rule.num_slots(branch)],
                logits_BSLE[row] if branch.capture.router_logits else None,
            )
            for row, branch in enumerate(self._branches)
        ]

    def discard(self) -> None:
        """Forget the last forward pass."""
        self._calls = []

    def joined(self, branch: Branch, rows: Sequence[RowRouting]) -> Routing | None:
        """Join what `take` told of a branch; None without routers, or where it isn't wanted."""
        if not self._routers or not (branch.capture.routing or branch.capture.router_logits):
            return None
        shape = (0, self.num_layers, self._rule.num_slots(branch))
        logits = [row.logits for row in rows if row.logits is not None]
        no_logits = np.empty((0, self.num_layers, self.num_experts), np.float32)
        return Routing(
            expert_ids=np.concatenate([np.empty(shape, np.uint16), *(row.ids for row in rows)]),
            weights=np.concatenate([np.empty(shape, np.float16), *(row.weights for row in rows)]),
            num_experts=self.num_experts,
            logits=np.concatenate([no_logits, *logits]) if branch.capture.router_logits else None,
            logit_unit=self.logit_unit,
        )

    def _on_answer(
        self, layer: int, router: nn.Module, inputs: object, answer: _Answer
    ) -> _Answer | None:
        if self._choice is None:
            if self._is_recording or self._records_logits:
                self._calls.append(answer)
            return None
        answer = (answer[0], *self._choice.choose(layer, *answer))
        if self._is_recording or self._records_logits:
            self._calls.append(answer)
        return answer


def _is_router(module: nn.Module) -> bool:
    if not type(module).__name__.lower().endswith("router") or not hasattr(module, "top_k"):
        return False
    weight = getattr(module, "weight", None)
    if not isinstance(weight, torch.Tensor) or not hasattr(module, "num_experts"):
        return False
    with torch.inference_mode():
        answer = module(weight.new_zeros(1, weight.shape[-1]))
    return (
        isinstance(answer, tuple)
        and len(answer) == 3
        and answer[1].shape == answer[2].shape == (1, module.top_k)
        and not answer[2].is_floating_point()
    )


def _rule(routers: Sequence[Any], config: Any) -> RoutingRule:
    if not routers:
        return RoutingRule(
            num_layers=0, num_experts=0, top_k=0, is_renormalised=True, has_equal_weights=False
        )
    carved = (getattr(config, "veche", None) or {}).get("carved") or {}
    return RoutingRule(
        num_layers=len(routers),
        num_experts=int(routers[0].num_experts),
        top_k=int(routers[0].top_k),
        # Mixtral has no such switch: it always renormalises.
        is_renormalised=bool(getattr(routers[0], "norm_topk_prob", True)),
        has_equal_weights=carved.get("equal_routing_weights") is True,
    )


def _follows(router: Any, rule: RoutingRule) -> bool:
    """Whether our equations give the router's own weights on inputs made up here."""
    if router.num_experts != rule.num_experts or router.top_k != rule.top_k:
        return False
    generator = torch.Generator().manual_seed(0)
    width = router.weight.shape[-1]
    inputs = torch.randn(_PROBE_TOKENS, width, generator=generator)
    with torch.inference_mode():
        answer = router(inputs.to(router.weight.device, router.weight.dtype))
        ours = _touched_as_itself(rule, router.weight.device).choose(0, *answer)[0]
    return torch.allclose(ours.float(), answer[1].float(), rtol=_PROBE_TOLERANCE, atol=0)


def _touched_as_itself(rule: RoutingRule, device: torch.device) -> RowChoice:
    top_k_B = torch.tensor([float(rule.top_k)], device=device)
    return RowChoice(
        rule=rule,
        num_slots=rule.top_k,
        bias=None,
        least=top_k_B,
        most=top_k_B,
        scale=None,
        is_touched=None,
    )
