"""Random numbers that depend on names and places, not on the order of the work.

Legend: R rows, C columns.
"""

import hashlib
from functools import cache
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK_WORDS = 1 << 18
_WORD_VALUES = 1 << 16


def stream(seed: int, *scope: object) -> np.random.Generator:
    """Return the random stream of `scope`: the same wherever and whenever it is asked for.

    A counter-based generator (Philox 4×64, Salmon et al. 2011), whose key is a hash of the seed
    and the scope, e.g. `stream(0, "layer", 3, "expert", 7)`.
    """
    text = "\x1f".join(str(part) for part in (seed, *scope))
    key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=key))


def words(
    rows: NDArray[np.int64], num_columns: int, seed: int, *scope: object
) -> NDArray[np.uint16]:
    """Return rows of an endless random matrix of 16-bit words, [R, C].

    NOTE: a row is the same whichever others are asked for with it, so a tensor may be made in
    chunks of any size. Rows come in blocks, each with a stream of its own.
    """
    block_rows = max(1, _BLOCK_WORDS // num_columns)
    out = np.empty((len(rows), num_columns), np.uint16)
    blocks = rows // block_rows
    for block in np.unique(blocks):
        inside = np.flatnonzero(blocks == block)
        local = rows[inside] - block * block_rows
        count = int(local.max()) + 1
        num_words = count * num_columns
        raw = stream(seed, *scope, int(block)).integers(
            0, 2**64, -(-num_words // 4), dtype=np.uint64
        )
        made = raw.astype("<u8", copy=False).view("<u2")[:num_words].reshape(count, num_columns)
        out[inside] = made if count == len(inside) and _is_ascending(local) else made[local]
    return out


def gaussian(random_RC: NDArray[np.uint16], scale: float, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Turn words into normal numbers of standard deviation `scale`, by a table of quantiles.

    Word w becomes scale · Φ⁻¹((w + ½) / 65536): 65,536 equally likely values within ±4.3 scale,
    more than bfloat16 can tell apart, and some four times as fast as a float32 ziggurat.
    """
    table: NDArray[Any] = (_quantiles() * scale).astype(dtype)
    return table.view(f"u{dtype.itemsize}")[random_RC].view(dtype)


def split_in_two(
    values: NDArray[Any], random: NDArray[np.uint16]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Split every element w into a + b = w, bit for bit.

    a = round(α·w), α ~ U[½, 1], b = w − a, swapped with probability ½. Since w/2 ≤ |a| ≤ |w|, the
    difference w − a is representable (Sterbenz' lemma) and nothing is lost. A split by one scalar
    would leave twins that Adam never separates; a split per element does not.

    Args:
        values: of any float dtype up to 32 bits and any shape.
        random: a word for each; its last bit swaps, the others are α.

    Returns:
        a and b, of the same dtype and shape.
    """
    wide = values.astype(np.float32)
    share = (random >> 1).astype(np.float32) * np.float32(2**-16) + np.float32(0.5)
    first = (wide * share).astype(values.dtype)
    second = (wide - first.astype(np.float32)).astype(values.dtype)
    swap = (random & 1).astype(bool)
    return np.where(swap, second, first), np.where(swap, first, second)


@cache
def _quantiles() -> NDArray[np.float64]:
    inverse = NormalDist().inv_cdf
    half = [inverse((word + 0.5) / _WORD_VALUES) for word in range(_WORD_VALUES // 2)]
    lower = np.array(half)
    return np.concatenate([lower, -lower[::-1]])


def _is_ascending(local: NDArray[np.int64]) -> bool:
    return bool((local == np.arange(len(local))).all())
