"""Keys and values: segments that branches share, and rows that each branch owns.

Shapes: B rows, K key-value heads, N positions, D width of a head.
"""

from dataclasses import dataclass

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

_GRAIN_TOKENS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Keys and values of consecutive tokens, which nobody changes any more.

    Attributes:
        layers: each layer's keys and values, [1, K, N, D].
        num_tokens: N.
    """

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    num_tokens: int


class OwnLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's keys and values in buffers [B, K, capacity, D].

    NOTE: only the first `length` positions are real; what lies behind them is garbage that no view
    shows. So appending writes in place, and forgetting is lowering `length`. A buffer is never
    written before `length`, so views of it stay what they were.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.length = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate buffers that fit the first states."""
        self.keys = _buffer_like(key_states, self.capacity)
        self.values = _buffer_like(value_states, self.capacity)
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append states; return views of everything so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[-2]
        self._reserve(end)
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return (key length, key offset) of the mask for the next forward pass."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Return how many positions are real."""
        return self.length

    def get_max_length(self) -> int:
        """Return -1: it grows when it must."""
        return -1

    def keep(self, rows: torch.Tensor) -> None:
        """Drop all batch rows but these."""
        self.keys = self.keys[rows]
        self.values = self.values[rows]

    def _reserve(self, length: int) -> None:
        if length <= self.capacity:
            return
        self.capacity = max(length, 2 * self.capacity)
        for name in ("keys", "values"):
            buffer = _buffer_like(getattr(self, name), self.capacity)
            buffer[:, :, : self.length] = getattr(self, name)[:, :, : self.length]
            setattr(self, name, buffer)


def own_cache(num_layers: int, num_tokens: int) -> Cache:
    """Return an empty cache with room for `num_tokens` a row."""
    return Cache(layers=[OwnLayer(num_tokens) for _ in range(num_layers)])


def rounded_up(num_tokens: int) -> int:
    """Return the capacity of a trunk's cache: a little more than is needed now."""
    return -(-num_tokens // _GRAIN_TOKENS) * _GRAIN_TOKENS


def rewind(cache: Cache, length: int) -> None:
    """Forget every position from `length` on."""
    for layer in cache.layers:
        layer.length = length


def keep_rows(cache: Cache, rows: torch.Tensor) -> None:
    """Drop the batch rows of branches that have finished."""
    for layer in cache.layers:
        layer.keep(rows)


def segment_of(cache: Cache) -> Segment:
    """View a cache of one row as a segment; later appends don't change it."""
    num_tokens = cache.layers[0].length
    return Segment(
        layers=tuple(
            (layer.keys[:, :, :num_tokens], layer.values[:, :, :num_tokens])
            for layer in cache.layers
        ),
        num_tokens=num_tokens,
    )


def row_segment(cache: Cache, row: int, start: int, stop: int) -> Segment:
    """Copy the positions from `start` to `stop` of one batch row."""
    at = (slice(row, row + 1), slice(None), slice(start, stop))
    return Segment(
        layers=tuple((layer.keys[at].clone(), layer.values[at].clone()) for layer in cache.layers),
        num_tokens=stop - start,
    )


def joined(segments: tuple[Segment, ...]) -> Segment:
    """Copy consecutive segments into one."""
    layers = zip(*(segment.layers for segment in segments), strict=True)
    return Segment(
        layers=tuple(
            (
                torch.cat([keys for keys, _ in parts], 2),
                torch.cat([values for _, values in parts], 2),
            )
            for parts in layers
        ),
        num_tokens=sum(segment.num_tokens for segment in segments),
    )


def _buffer_like(states: torch.Tensor, capacity: int) -> torch.Tensor:
    batch, heads, _, width = states.shape
    return states.new_empty(batch, heads, capacity, width)
