"""Random streams that depend on a name, not on the order of the work."""

import hashlib

import numpy as np


def stream(seed: int, *scope: object) -> np.random.Generator:
    """Return the random stream of `scope`: the same wherever and whenever it is asked for.

    A counter-based generator (Philox 4×64, Salmon et al. 2011), whose key is a hash of the seed
    and the scope, e.g. `stream(0, "layer", 3, "expert", 7)`.
    """
    text = "\x1f".join(str(part) for part in (seed, *scope))
    key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little")
    return np.random.Generator(np.random.Philox(key=key))
