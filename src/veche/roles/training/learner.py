"""A model with an adapter, which tells how badly it predicts the answers of some examples.

Shapes: N suffix tokens of all examples together, A answer tokens of all of them, H hidden size,
V vocabulary, E experts.

NOTE: what stands before the invocation is read first, without adapter and without gradient: the
adapter does not act there, so its keys and values are constants. Only the suffix is kept for the
backward pass, and only answer tokens reach the output layer. Both are exact.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.nn.functional import cross_entropy, linear

from veche.experts.balance_loss import load_balancing_loss
from veche.roles.training.packed_attention import NAME, Packing
from veche.roles.training.rendering import TokenisedExample

_MADE_MASK = torch.empty(0, 0, 0, 0)
"""Of four dimensions: transformers takes it as made already, and makes none."""
_LOGITS_AT_ONCE = 1 << 28
"""Values of the output layer that are computed together."""


class Learner(nn.Module):
    """Computes the summed loss of examples.

    A module, so that gradients are shared between processes by whatever wraps it.
    """

    def __init__(self, model: Any, *, wants_balance: bool) -> None:
        """Wrap a PEFT model.

        Args:
            model: PEFT's, around transformers' causal language model.
            wants_balance: whether the routers' balance loss is computed.
        """
        super().__init__()
        self.model = model
        self._causal = model.get_base_model()
        self._causal.set_attn_implementation(NAME)
        self._heard: list[torch.Tensor] | None = None
        for router in _routers(self._causal) if wants_balance else ():
            router.register_forward_hook(self._hear)
        self._layers = [m for m in model.modules() if isinstance(m, BaseTunerLayer)]

    def forward(self, examples: Sequence[TokenisedExample]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the summed loss of all answer tokens, and the balance loss (0 if not wanted)."""
        prefix = self._read_prefix(examples)
        packing = Packing(
            lengths=tuple(len(example.suffix_ids) for example in examples),
            prefix_lengths=tuple(len(example.prefix_ids) for example in examples) if prefix else (),
            prefix=prefix,
        )
        ids = [token for example in examples for token in example.suffix_ids]
        with self._routers_heard() as logits:
            hidden_NH = self._body(ids, packing)[0]
        loss = self._answer_loss(hidden_NH, examples)
        top_k = int(getattr(self._causal.config, "num_experts_per_tok", 0) or 0)
        balance = load_balancing_loss(logits, top_k) if logits else loss.new_zeros(())
        return loss, balance

    def answer_logits(self, example: TokenisedExample) -> torch.Tensor:
        """Return what is predicted for each answer token of one example, [A, V]."""
        with torch.no_grad():
            prefix = self._read_prefix([example])
            packing = Packing(
                lengths=(len(example.suffix_ids),),
                prefix_lengths=(len(example.prefix_ids),) if prefix else (),
                prefix=prefix,
            )
            hidden_NH = self._body(list(example.suffix_ids), packing)[0]
            return self._logits(hidden_NH[-example.num_loss - 1 : -1])

    def _read_prefix(
        self, examples: Sequence[TokenisedExample]
    ) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
        ids = [token for example in examples for token in example.prefix_ids]
        if not ids:
            return {}
        kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        packing = Packing(lengths=tuple(len(example.prefix_ids) for example in examples), kept=kept)
        with torch.no_grad(), self._without_adapter():
            self._body(ids, packing)
        return kept

    def _body(self, ids: list[int], packing: Packing) -> torch.Tensor:
        device = self._causal.get_input_embeddings().weight.device
        output = self._causal.model(
            input_ids=torch.tensor([ids], device=device),
            position_ids=torch.tensor([packing.positions], device=device),
            attention_mask=_MADE_MASK,
            use_cache=False,
            packing=packing,
        )
        hidden: torch.Tensor = output.last_hidden_state
        return hidden

    def _answer_loss(
        self, hidden_NH: torch.Tensor, examples: Sequence[TokenisedExample]
    ) -> torch.Tensor:
        """Return Σ over answer tokens of −log p(token | all before it)."""
        places: list[int] = []
        targets: list[int] = []
        end = 0
        for example in examples:
            end += len(example.suffix_ids)
            places += range(end - example.num_loss - 1, end - 1)
            targets += example.suffix_ids[-example.num_loss :]
        wanted_AH = hidden_NH[torch.tensor(places, device=hidden_NH.device)]
        targets_A = torch.tensor(targets, device=hidden_NH.device)
        at_once = max(1, _LOGITS_AT_ONCE // int(self._causal.config.vocab_size))
        losses = [
            cross_entropy(self._logits(rows), labels, reduction="sum")
            for rows, labels in zip(
                torch.split(wanted_AH, at_once), torch.split(targets_A, at_once), strict=True
            )
        ]
        return torch.stack(losses).sum()

    def _logits(self, hidden_AH: torch.Tensor) -> torch.Tensor:
        logits_AV: torch.Tensor = self._causal.get_output_embeddings()(hidden_AH)
        return logits_AV.to(torch.promote_types(logits_AV.dtype, torch.float32))

    @contextmanager
    def _without_adapter(self) -> Iterator[None]:
        # PEFT's own switch also freezes the adapter, under the feet of who shares its gradients.
        for layer in self._layers:
            layer._disable_adapters = True  # noqa: SLF001
        try:
            yield
        finally:
            for layer in self._layers:
                layer._disable_adapters = False  # noqa: SLF001

    @contextmanager
    def _routers_heard(self) -> Iterator[list[torch.Tensor]]:
        """Yield a list that the block fills with each router's logits [N, E]."""
        heard: list[torch.Tensor] = []
        self._heard = heard
        try:
            yield heard
        finally:
            self._heard = None

    def _hear(self, router: Any, inputs: tuple[torch.Tensor], answer: object) -> None:
        """Compute logits anew: what a router answers first is logits in some releases only.

        A layer that is computed again in the backward pass must do all that it did, and is not
        heard a second time.
        """
        if torch.is_grad_enabled():
            logits = linear(inputs[0].reshape(-1, router.weight.shape[-1]), router.weight)
            if self._heard is not None:
                self._heard.append(logits)


def _routers(model: nn.Module) -> list[Any]:
    return [
        module
        for module in model.modules()
        if type(module).__name__.lower().endswith("router") and hasattr(module, "top_k")
    ]
