"""One forward pass of the model over the new tokens of a batch.

Shapes: B rows, Q new tokens a row, P own tokens a row with the new ones, n of the last positions,
C layers whose states are captured, D hidden size, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event
from typing import Any

import torch

from veche.engines.embedded import attention
from veche.engines.embedded.adapters import Adapters
from veche.engines.embedded.experts_at_once import pack_experts, packable_experts, use_at_once
from veche.engines.embedded.head_statistics import HeadTap
from veche.engines.embedded.kv_cache import Segment, own_cache, rewind
from veche.engines.embedded.packed_weights import pack_linear_layers, packable
from veche.engines.embedded.router_control import RouterControl
from veche.engines.protocol import Branch

_NO_MASK = torch.empty(0, 0, 0, 0)
"""Of four dimensions: transformers takes it as made already, and makes none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What a pass computed of the last n positions.

    Attributes:
        logits: [B, n, V], float32.
        hidden: [B, n, C, D]; None where no layer was asked for.
    """

    logits: torch.Tensor
    hidden: torch.Tensor | None


class Rows:
    """The rows of a batch: shared prefix, own cache, and where the padding is."""

    def __init__(
        self, prefix: Sequence[Segment], num_rows: int, num_layers: int, capacity: int
    ) -> None:
        self.prefix = tuple(prefix)
        self.prefix_tokens = sum(segment.num_tokens for segment in prefix)
        self.cache = own_cache(num_layers, capacity)
        self.is_real = torch.zeros(num_rows, 0, dtype=torch.bool)

    @property
    def positions(self) -> torch.Tensor:
        """Absolute positions of the own tokens, [B, P]; those of padding mean nothing."""
        return self.prefix_tokens + (self.is_real.cumsum(-1) - 1).clamp(min=0)

    @property
    def length(self) -> int:
        """How many own positions the cache holds."""
        return int(self.cache.layers[0].length)

    @contextmanager
    def whole_or_not_at_all(self) -> Iterator[None]:
        """Forget what was appended in the block if it raises."""
        is_real, length = self.is_real, self.length
        try:
            yield
        except BaseException:
            self.is_real = is_real
            rewind(self.cache, length)
            raise


class Runner:
    """A model, and who listens to it.

    Attributes:
        adapters: what is loaded beside it.
        control: of its routers.
        heads: of its attention heads.
        device: where it is.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.device: torch.device = model.device
        self.adapters = Adapters(model)
        self.control = RouterControl(model)
        self.heads = HeadTap()
        self.num_layers = int(model.config.num_hidden_layers)
        self.vocab_size = int(model.config.vocab_size)
        model.set_attn_implementation(attention.NAME)
        if self.device.type == "cpu":
            use_at_once(model)

    def pack(self, limit_bytes: int) -> int:
        """Pack the weights of a model on the CPU, if all copies fit; return their bytes."""
        layers, experts = packable(self.model), packable_experts(self.model)
        weights = [layer.weight for layer in layers]
        weights += [each.gate_up_proj for each in experts]
        num_bytes = sum(weight.nbytes for weight in weights)
        if num_bytes > limit_bytes:
            return 0
        pack_linear_layers(layers)
        pack_experts(experts)
        return num_bytes

    @property
    def num_kv_heads(self) -> int:
        """How many heads have keys and values."""
        config = self.model.config
        return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)

    @property
    def head_dim(self) -> int:
        """How wide a head's keys and values are."""
        config = self.model.config
        given = getattr(config, "head_dim", None)
        return int(given or config.hidden_size // config.num_attention_heads)

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values that one token takes."""
        width = self.num_kv_heads * self.head_dim
        return 2 * self.num_layers * width * int(self.model.dtype.itemsize)

    def set_rows(self, branches: Sequence[Branch], spans: Sequence[int]) -> None:
        """Say whose the batch rows are, and on how many tokens at their ends adapters act."""
        self.control.set_rows(branches)
        self.adapters.set_rows([branch.adapter for branch in branches], spans)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Let routers be listened to and steered, heads watched and adapters act in the block."""
        with (
            torch.inference_mode(),
            self.control.installed(),
            self.heads.listening(),
            self.adapters.acting(),
        ):
            yield

    def rows(self, prefix: Sequence[Segment], num_rows: int, capacity: int) -> Rows:
        """Return an empty batch behind a prefix."""
        return Rows(prefix, num_rows, self.num_layers, capacity)

    def feed(
        self,
        rows: Rows,
        ids: torch.Tensor,
        is_real: torch.Tensor | None = None,
        *,
        logits_to_keep: int = 1,
        hidden_layers: Sequence[int] = (),
        counts: torch.Tensor | None = None,
        cancel: Event | None = None,
    ) -> Output:
        """Append new tokens to every row.

        Args:
            rows: the batch; as it was when this raises.
            ids: [B, Q].
            is_real: [B, Q], False for padding; None is no padding.
            logits_to_keep: n, at least 1.
            hidden_layers: the C layers; see `Capture`.
            counts: [B, Q], which tokens count for the heads; None is that nobody listens to them.
            cancel: stops the pass in the middle.

        Raises:
            CancelledError: `cancel` was set.
        """
        new = torch.ones(ids.shape, dtype=torch.bool) if is_real is None else is_real
        with rows.whole_or_not_at_all():
            rows.is_real = torch.cat([rows.is_real, new], dim=1)
            output = self._run(
                ids,
                rows,
                logits_to_keep=logits_to_keep,
                wants_hidden=bool(hidden_layers),
                counts=counts,
                cancel=cancel,
            )
        return Output(
            logits=output.logits[:, -logits_to_keep:].float(),
            hidden=_hidden(output, hidden_layers, logits_to_keep) if hidden_layers else None,
        )

    def _run(
        self,
        ids: torch.Tensor,
        rows: Rows,
        *,
        logits_to_keep: int,
        wants_hidden: bool,
        counts: torch.Tensor | None,
        cancel: Event | None,
    ) -> Any:
        positions = rows.positions.to(self.device)
        is_padded = not bool(rows.is_real.all())
        forward_pass = attention.ForwardPass(
            prefix=rows.prefix,
            positions=positions,
            is_real=rows.is_real.to(self.device) if is_padded else None,
            cancel=cancel,
            heads=None if counts is None else self.heads,
            counts=None if counts is None else counts.to(self.device),
        )
        return self.model(
            input_ids=ids.to(self.device),
            position_ids=positions[:, -ids.shape[1] :],
            attention_mask=_NO_MASK,
            past_key_values=rows.cache,
            use_cache=True,
            logits_to_keep=logits_to_keep,
            output_hidden_states=wants_hidden,
            forward_pass=forward_pass,
        )


def _hidden(output: Any, layers: Sequence[int], num_positions: int) -> torch.Tensor:
    states = output.hidden_states
    return torch.stack([states[layer][:, -num_positions:] for layer in layers], dim=2).float()
