"""Which examples a step learns from: a function of seed and step, so there is nothing to resume."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def examples_of_step(step: int, *, num_examples: int, batch: int, seed: int) -> list[int]:
    """Return the numbers of the examples of one optimiser step.

    Epoch after epoch, each in an order of its own; a batch may reach over the end of one.

    Args:
        step: from 0.
        num_examples: how many there are.
        batch: how many a step has.
        seed: of all orders.
    """
    places = range(step * batch, (step + 1) * batch)
    orders: dict[int, list[int]] = {}
    found = []
    for place in places:
        epoch, at = divmod(place, num_examples)
        if epoch not in orders:
            orders[epoch] = np.random.default_rng((seed, epoch)).permutation(num_examples).tolist()
        found.append(orders[epoch][at])
    return found


def share_of(examples: Sequence[T], *, process: int, num_processes: int) -> Sequence[T]:
    """Return one process's part of a step: every num_processes-th example."""
    return examples[process::num_processes]
