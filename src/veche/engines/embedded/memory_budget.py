"""How much memory keys and values may take: a limit that is stated, and kept."""

from weakref import WeakSet

from veche.core.errors import InputError
from veche.core.units import format_bytes
from veche.engines.embedded.trunk import EmbeddedTrunk


class MemoryBudget:
    """Bytes of keys and values: of open trunks, and of a batch while it is decoded.

    Args:
        limit_bytes: the most that they may take.
        bytes_per_token: what one token takes.
    """

    def __init__(self, limit_bytes: int, bytes_per_token: int) -> None:
        self.limit_bytes = limit_bytes
        self.bytes_per_token = bytes_per_token
        self._trunks: WeakSet[EmbeddedTrunk] = WeakSet()

    @property
    def used_bytes(self) -> int:
        """What open trunks take; what several of them share is counted once."""
        buffers = {}
        for trunk in self._trunks:
            if trunk.rows is None:
                continue
            layers = [segment.layers[0] for segment in trunk.rows.prefix]
            own = trunk.rows.cache.layers[0]
            layers += [(own.keys, own.values)] if own.is_initialized else []
            for keys, _ in layers:
                storage = keys.untyped_storage()
                num_tokens = storage.nbytes() // (keys[:, :, :1].numel() * keys.itemsize)
                buffers[storage.data_ptr()] = num_tokens * self.bytes_per_token
        return sum(buffers.values())

    def watch(self, trunk: EmbeddedTrunk) -> None:
        """Count a trunk for as long as it is open."""
        self._trunks.add(trunk)

    def require(self, num_tokens: int, what: str) -> None:
        """Refuse what would go beyond the limit, before memory is taken for it.

        Raises:
            InputError: says how much is missing.
        """
        needed, used = num_tokens * self.bytes_per_token, self.used_bytes
        if used + needed > self.limit_bytes:
            raise InputError(
                f"{what} needs {format_bytes(needed)} of keys and values; of the budget of "
                f"{format_bytes(self.limit_bytes)}, {format_bytes(used)} are taken",
                hint="use fewer voices, a shorter trunk or shorter answers, or allow more memory",
            )
