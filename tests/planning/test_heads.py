"""Where heads go: the law of feasibility against trying every placement."""

import itertools

import pytest

from veche.planning.heads import head_layout, is_feasible, nearest_feasible

PAIRS = [(q, kv) for q in range(1, 13) for kv in range(1, q + 1) if q % kv == 0]


def can_be_placed(num_q, num_kv, new_q, new_kv):
    """Slow and obvious: is there room for each old group on copies of its key/value head?"""
    if new_q < num_q or new_kv < num_kv or new_q % new_kv:
        return False
    slots = new_q // new_kv
    copies = [j * num_kv // new_kv for j in range(new_kv)]
    return all(copies.count(g) * slots >= num_q // num_kv for g in range(num_kv))


def test_feasible_means_that_every_old_head_finds_its_key():
    for old, new in itertools.product(PAIRS, PAIRS):
        assert is_feasible(*old, *new) == can_be_placed(*old, *new), (old, new)


@pytest.mark.parametrize("old", PAIRS)
@pytest.mark.parametrize("new", [(6, 3), (8, 4), (12, 4), (12, 6), (12, 12)])
def test_a_layout_keeps_every_old_head_on_a_copy_of_its_key(old, new):
    if not is_feasible(*old, *new):
        with pytest.raises(ValueError, match="cannot grow"):
            head_layout(*old, *new)
        return
    layout = head_layout(*old, *new)
    placed = [source for source in layout.q_source if source is not None]
    assert sorted(placed) == list(range(old[0]))
    for slot, source in enumerate(layout.q_source):
        if source is not None:
            assert layout.kv_source[slot // layout.group_size] == source // (old[0] // old[1])


def test_the_reference_case():
    layout = head_layout(32, 4, 48, 8)
    for group, r in itertools.product(range(4), range(8)):
        assert layout.q_source[6 * (2 * group + r // 4) + r % 4] == 8 * group + r
    new = [slot for slot, source in enumerate(layout.q_source) if source is None]
    assert new == [slot for j in range(8) for slot in (6 * j + 4, 6 * j + 5)]


def test_the_nearest_pair_is_a_growth_and_feasible():
    assert nearest_feasible(9, 3, 10, 3)[0] == (12, 3)
    for old, new in itertools.product(PAIRS[:12], [(13, 5), (7, 7), (10, 4)]):
        near = nearest_feasible(*old, *new)[0]
        assert near != old
        assert is_feasible(*old, *near)
