"""Which tensors of a grown folder are not what its plan makes of the source, bit for bit?"""

from collections.abc import Collection, Iterator
from itertools import chain

import numpy as np

from veche.checkpoint.header import DTYPE_BYTES, TensorInfo
from veche.checkpoint.reader import Checkpoint
from veche.checkpoint.writer import TensorOut
from veche.core.progress import Progress
from veche.planning.plan import BuildPlan
from veche.surgery.grow import grown_tensors
from veche.surgery.verification.figures import TensorDifference


def differences(
    plan: BuildPlan,
    source: Checkpoint,
    target: Checkpoint,
    *,
    suspected: Collection[str],
    progress: Progress,
) -> tuple[TensorDifference, ...]:
    """Grow the tensors again and compare them with those in the files, in chunks.

    Those that are suspected come first; the others are looked at only if they are all as planned.

    Args:
        plan: what was built.
        source: the checkpoint that was grown.
        target: the grown one.
        suspected: what the names of suspected tensors begin with.
        progress: where to report.

    Raises:
        RecipeError: the plan is for another base.
        CheckpointError: the source is damaged.
    """
    expected = grown_tensors(plan, source)
    prefixes = tuple(f"{name}." for name in suspected)
    first = [name for name in expected if name.startswith(prefixes)]
    rest = [name for name in expected if not name.startswith(prefixes)]
    for names in (first, rest):
        found = []
        with progress.task("compare tensors with the plan", len(names)) as advance:
            for name in names:
                found.append(_difference(expected[name], target.tensors.get(name)))
                advance(1)
        if any(found):
            return tuple(difference for difference in found if difference)
    return ()


def _difference(expected: TensorOut, found: TensorInfo | None) -> TensorDifference | None:
    num_elements = expected.num_bytes // DTYPE_BYTES[expected.dtype]
    if found is None or (found.dtype, found.shape) != (expected.dtype, expected.shape):
        return TensorDifference(
            name=expected.name, num_different=num_elements, num_elements=num_elements
        )
    num_different = 0
    size = DTYPE_BYTES[expected.dtype]
    with found.file.open("rb") as file:
        file.seek(found.start)
        for chunk in _whole_elements(expected, size):
            stored = file.read(len(chunk))
            if stored != chunk:
                pair = (np.frombuffer(each, np.uint8).reshape(-1, size) for each in (stored, chunk))
                num_different += int((next(pair) != next(pair)).any(axis=1).sum())
    if not num_different:
        return None
    return TensorDifference(
        name=expected.name, num_different=num_different, num_elements=num_elements
    )


def _whole_elements(tensor: TensorOut, size: int) -> Iterator[bytes]:
    """Yield a tensor's bytes in pieces that end where an element ends."""
    kept = b""
    for chunk in chain(tensor.produce(), (b"",)):
        piece = kept + bytes(chunk)
        end = len(piece) - len(piece) % size
        kept = piece[end:]
        if end:
            yield piece[:end]
