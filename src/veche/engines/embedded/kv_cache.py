"""A key-value cache that is allocated once, written in place, and forked into branches."""

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

_GRAIN_TOKENS = 256


class PreallocatedLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's keys and values in buffers [batch, kv_heads, capacity, head_dim].

    NOTE: only the first `length` positions are real; what lies behind them is garbage that no view
    shows. So appending writes in place, and forgetting is lowering `length`.
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

    def fork(self, num_branches: int, room: int) -> "PreallocatedLayer":
        """Copy into a batch of `num_branches`, with room for `room` more positions."""
        copy = PreallocatedLayer(self.length + room)
        copy.keys = _forked(self.keys[:, :, : self.length], num_branches, copy.capacity)
        copy.values = _forked(self.values[:, :, : self.length], num_branches, copy.capacity)
        copy.length = self.length
        copy.is_initialized = True
        return copy

    def keep(self, rows: torch.Tensor) -> None:
        """Drop all batch rows but these."""
        self.keys = self.keys[rows]
        self.values = self.values[rows]

    def _reserve(self, length: int) -> None:
        if length <= self.capacity:
            return
        self.capacity = max(length, 2 * self.capacity)
        self.keys = _forked(self.keys[:, :, : self.length], len(self.keys), self.capacity)
        self.values = _forked(self.values[:, :, : self.length], len(self.values), self.capacity)


def trunk_cache(num_layers: int, num_tokens: int) -> Cache:
    """Return an empty cache with room for `num_tokens`, rounded up."""
    capacity = -(-num_tokens // _GRAIN_TOKENS) * _GRAIN_TOKENS
    return Cache(layers=[PreallocatedLayer(capacity) for _ in range(num_layers)])


def forked(cache: Cache, num_branches: int, room: int) -> Cache:
    """Copy a trunk's cache once, into one batch row a branch: N times the trunk's KV bytes."""
    return Cache(layers=[layer.fork(num_branches, room) for layer in cache.layers])


def rewind(cache: Cache, length: int) -> None:
    """Forget every position from `length` on."""
    for layer in cache.layers:
        layer.length = length


def keep_rows(cache: Cache, rows: torch.Tensor) -> None:
    """Drop the batch rows of branches that have finished."""
    for layer in cache.layers:
        layer.keep(rows)


def _buffer_like(states: torch.Tensor, capacity: int) -> torch.Tensor:
    batch, heads, _, width = states.shape
    return states.new_empty(batch, heads, capacity, width)


def _forked(states: torch.Tensor, num_branches: int, capacity: int) -> torch.Tensor:
    _, heads, length, width = states.shape
    buffer = states.new_empty(num_branches, heads, capacity, width)
    buffer[:, :, :length] = states
    return buffer
