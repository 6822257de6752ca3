"""Split examples so that no problem is in two parts."""

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

from veche.core.errors import InputError
from veche.roles.data.dialogue import normal_text, problem_of
from veche.roles.data.example import Example


def split_by_group(
    examples: Sequence[Example], shares: Sequence[float], *, seed: int
) -> list[list[Example]]:
    """Return parts that share neither a group nor, but for case and white space, a question.

    Groups that have a question in common stay together. They are dealt in an order that depends on
    their names and the seed alone, each to the part that lacks most examples of its share; within
    a part, examples stand as they were given.

    Args:
        examples: what to split.
        shares: of each part, positive; they add up to 1.
        seed: of the order.

    Raises:
        InputError: there are too few groups to give every part one.
    """
    if not shares or min(shares) <= 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6):
        raise ValueError(f"shares {list(shares)} are not positive numbers that add up to 1")
    clusters = _clusters(examples)
    members: defaultdict[str, list[int]] = defaultdict(list)
    for index, cluster in enumerate(clusters):
        members[cluster].append(index)
    if len(members) < len(shares):
        raise InputError(
            f"{len(examples)} examples of {len(members)} problems cannot be split into "
            f"{len(shares)} parts that share none",
            hint="give more problems, or fewer parts",
        )
    part_of = _dealt({name: len(found) for name, found in members.items()}, shares, seed)
    parts: list[list[Example]] = [[] for _ in shares]
    for example, cluster in zip(examples, clusters, strict=True):
        parts[part_of[cluster]].append(example)
    return parts


def _dealt(sizes: dict[str, int], shares: Sequence[float], seed: int) -> dict[str, int]:
    """Return each cluster's part; no part stays empty."""
    order = sorted(sizes, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    lacking = [share * sum(sizes.values()) for share in shares]
    empty = set(range(len(shares)))
    part_of: dict[str, int] = {}
    for name in order:
        is_last_chance = len(empty) >= len(order) - len(part_of)
        choices = sorted(empty) if is_last_chance else range(len(shares))
        part = max(choices, key=lambda index: lacking[index])
        part_of[name] = part
        lacking[part] -= sizes[name]
        empty.discard(part)
    return part_of


def _clusters(examples: Iterable[Example]) -> list[str]:
    """Return for each example the first, by name, of all groups that it is linked with."""
    parents: dict[str, str] = {}

    def root(name: str) -> str:
        while parents.setdefault(name, name) != name:
            parents[name] = parents[parents[name]]
            name = parents[name]
        return name

    first_with: dict[str, str] = {}
    groups = []
    for example in examples:
        text = hashlib.sha256(normal_text(problem_of(example.messages)).encode()).hexdigest()
        one, other = root(example.group), root(first_with.setdefault(text, example.group))
        parents[max(one, other)] = min(one, other)
        groups.append(example.group)
    return [root(group) for group in groups]
