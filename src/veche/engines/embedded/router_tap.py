"""Listen to a model's routers while it decodes."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from veche.engines.protocol import Routing

TokenRouting = tuple[NDArray[np.uint16], NDArray[np.float16]]
"""One token's expert ids and their weights, [layers, top_k] each, best expert first."""


class RouterTap:
    """Forward hooks on every router module, in the order of layers.

    A router is a module whose class is named `…Router` with a `top_k`, and that answers
    (logits [T, E], weights [T, k], ids [T, k]), as in transformers 5: Mixtral, Qwen2/3-MoE, OLMoE.
    """

    def __init__(self, model: nn.Module) -> None:
        self._routers = [module for module in model.modules() if _is_router(module)]
        self._calls: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.num_experts = int(self._routers[0].num_experts) if self._routers else 0  # type: ignore[arg-type]

    @property
    def num_layers(self) -> int:
        """How many layers route."""
        return len(self._routers)

    @property
    def top_k(self) -> int:
        """How many experts a token is sent to."""
        return int(self._routers[0].top_k) if self._routers else 0  # type: ignore[arg-type]

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Record calls until the block ends, however it ends."""
        self._calls.clear()
        with ExitStack() as stack:
            for router in self._routers:
                handle = router.register_forward_hook(self._record)
                stack.callback(handle.remove)
            yield
        self._calls.clear()

    def take(self) -> list[TokenRouting]:
        """Return where the last forward pass sent each row (of one token), and forget it."""
        calls, self._calls = self._calls, []
        if not calls:
            return []
        ids = torch.stack([ids for ids, _ in calls], dim=1).cpu().numpy().astype(np.uint16)
        weights = torch.stack([weights for _, weights in calls], dim=1).float().cpu().numpy()
        return list(zip(ids, weights.astype(np.float16), strict=True))

    def joined(self, tokens: Sequence[TokenRouting]) -> Routing | None:
        """Join one branch's tokens; None for a model without routers."""
        if not self._routers:
            return None
        shape = (len(tokens), self.num_layers, self.top_k)
        ids, weights = np.empty(shape, np.uint16), np.empty(shape, np.float16)
        for index, token in enumerate(tokens):
            ids[index], weights[index] = token
        return Routing(expert_ids=ids, weights=weights, num_experts=self.num_experts)

    def _record(self, router: nn.Module, inputs: object, output: tuple[torch.Tensor, ...]) -> None:
        _, weights, ids = output
        self._calls.append((ids, weights))


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
