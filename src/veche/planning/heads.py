"""Where query and key/value heads go when a model gets more of them.

Under grouped-query attention query head i reads key/value head ⌊i / G⌋, G = n_q / n_kv. Growing is
exact when every old query head still reads a copy of the key/value head that it read before.
"""

import itertools
from dataclasses import dataclass

_SEARCHED = 8
"""Growths beyond this factor are searched as if they were of this factor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadLayout:
    """The heads of the grown model, told by where they come from.

    Attributes:
        kv_source: for each new key/value head, the old one that it copies.
        q_source: for each new query head, the old one that it is; None for a new head.
        group_size: query heads that read one new key/value head.
    """

    kv_source: tuple[int, ...]
    q_source: tuple[int | None, ...]
    group_size: int


def is_feasible(num_q: int, num_kv: int, new_q: int, new_kv: int) -> bool:
    """Whether (num_q, num_kv) can grow to (new_q, new_kv) exactly.

    Law: n_kv · ⌈G / G'⌉ ≤ n_kv', nothing shrinks, and n_kv' divides n_q'.
    """
    if new_q < num_q or new_kv < num_kv or new_q % new_kv:
        return False
    return num_kv * -(-(num_q // num_kv) // (new_q // new_kv)) <= new_kv


def nearest_feasible(
    num_q: int, num_kv: int, new_q: int, new_kv: int
) -> tuple[tuple[int, int], ...]:
    """Return feasible growths that differ least, in parts of what was asked for.

    The nearest of all comes first, then the nearest that keeps either wanted number, where one
    exists within twice of it.
    """
    new_q, new_kv = min(new_q, _SEARCHED * num_q), min(new_kv, _SEARCHED * num_kv)
    qs = range(num_q, 2 * max(num_q, new_q) + 1)
    kvs = range(num_kv, 2 * max(num_kv, new_kv) + 1)
    pairs = [
        pair
        for pair in itertools.product(qs, kvs)
        if pair != (num_q, num_kv) and is_feasible(num_q, num_kv, *pair)
    ]

    def distance(pair: tuple[int, int]) -> tuple[float, tuple[int, int]]:
        return abs(pair[0] - new_q) / new_q + abs(pair[1] - new_kv) / new_kv, pair

    kept = [[p for p in pairs if p[0] == new_q], [p for p in pairs if p[1] == new_kv]]
    best = [min(group, key=distance) for group in (pairs, *kept) if group]
    return tuple(dict.fromkeys(best))


def head_layout(num_q: int, num_kv: int, new_q: int, new_kv: int) -> HeadLayout:
    """Place the old heads among the new ones.

    New key/value head j copies the old head ⌊j · n_kv / n_kv'⌋. The G query heads of an old group
    are spread evenly over the m copies of their key/value head, ⌈G / m⌉ on each.

    Raises:
        ValueError: the growth is not feasible.
    """
    if not is_feasible(num_q, num_kv, new_q, new_kv):
        raise ValueError(f"({num_q}, {num_kv}) cannot grow to ({new_q}, {new_kv})")
    group, new_group = num_q // num_kv, new_q // new_kv
    kv_source = tuple(j * num_kv // new_kv for j in range(new_kv))
    q_source: list[int | None] = [None] * new_q
    for old_kv in range(num_kv):
        copies = [j for j, source in enumerate(kv_source) if source == old_kv]
        share = -(-group // len(copies))
        for r in range(group):
            q_source[copies[r // share] * new_group + r % share] = group * old_kv + r
    return HeadLayout(kv_source=kv_source, q_source=tuple(q_source), group_size=new_group)
