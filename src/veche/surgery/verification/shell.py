"""A model without weights, whose layers run one by one with weights handed to them.

Every module is transformers' own, and so are the arguments that a layer gets (rotary embedding,
attention mask, sliding window): they are recorded from transformers' own forward pass. This file
imports torch.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from veche.surgery.loading import Attention, empty_model

Arguments = Mapping[str, Any]


class Shell:
    """A model on the meta device, under chosen dials."""

    def __init__(
        self,
        folder: Path,
        *,
        changes: Mapping[str, Any],
        attention: Attention,
        device: torch.device,
    ) -> None:
        self.model = empty_model(folder, changes=changes, attention=attention)
        body = self.model.model
        body.rotary_emb = type(body.rotary_emb)(config=body.config).to(device)
        self._arguments: dict[tuple[torch.Size, torch.dtype], list[Arguments]] = {}

    def layer(self, layer: int, weights: Mapping[str, Tensor], state_1TH: Tensor) -> Tensor:
        """Run one layer on the residual stream that enters it."""
        module = self.model.model.layers[layer]
        arguments = dict(self._arguments_for(state_1TH)[layer])
        output = functional_call(module, dict(weights), (state_1TH,), arguments, strict=True)
        return output if isinstance(output, Tensor) else output[0]

    def norm(self, weights: Mapping[str, Tensor], state_1TH: Tensor) -> Tensor:
        """Run the final norm."""
        normed: Tensor = functional_call(
            self.model.model.norm, dict(weights), (state_1TH,), strict=True
        )
        return normed

    @contextmanager
    def routing(self, layer: int) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """Yield a list that gets the router's logits [T, E] and choices [T, k] when a layer runs.

        It stays empty where the layer has no router.
        """
        seen: list[tuple[Tensor, Tensor]] = []
        router = getattr(self.model.model.layers[layer].mlp, "gate", None)
        if router is None:
            yield seen
            return
        handle = router.register_forward_hook(
            lambda module, inputs, output: seen.append((output[0], output[2]))
        )
        try:
            yield seen
        finally:
            handle.remove()

    def _arguments_for(self, state_1TH: Tensor) -> list[Arguments]:
        key = (state_1TH.shape, state_1TH.dtype)
        if key not in self._arguments:
            self._arguments[key] = self._recorded(state_1TH)
        return self._arguments[key]

    def _recorded(self, state_1TH: Tensor) -> list[Arguments]:
        """Return what transformers' forward pass gives to each layer, running none of them."""
        body = self.model.model
        seen: list[Arguments] = []

        def record(state: Tensor, **arguments: Any) -> Tensor:
            seen.append(arguments)
            return state

        for layer in body.layers:
            layer.forward = record
        body.norm.forward = lambda state: state
        try:
            body(inputs_embeds=state_1TH, use_cache=False)
        finally:
            for module in (*body.layers, body.norm):
                del module.forward
        return seen
