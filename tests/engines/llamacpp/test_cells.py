"""The accounts of the cache against a slow count of cells, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veche.core.errors import InputError
from veche.engines.llama_cpp.cells import Cells

STEP = st.tuples(
    st.sampled_from(["open", "fork", "extend", "close"]), st.integers(0, 9), st.integers(0, 5)
)


@given(st.lists(STEP, max_size=40))
def test_cells_in_use_are_those_that_some_sequence_holds(steps):
    """The reference is a set of cells for each sequence, as llama.cpp marks them."""
    cells = Cells(num_cells=10_000, max_sequences=100)
    held, fresh = {}, iter(range(10_000))
    for step, pick, amount in steps:
        chosen = list(held)[pick % len(held)] if held else None
        if step == "open":
            held[cells.open()] = set()
        elif chosen is None:
            continue
        elif step == "fork":
            held[cells.fork(chosen)] = set(held[chosen])
        elif step == "extend":
            cells.extend(chosen, amount)
            held[chosen] |= {next(fresh) for _ in range(amount)}
        else:
            cells.close(chosen)
            del held[chosen]
        assert cells.num_used == len(set().union(*held.values()))
        assert all(sequence.num_tokens == len(own) for sequence, own in held.items())
        numbers = [sequence.number for sequence in held]
        assert len(set(numbers)) == len(numbers)


def test_what_does_not_fit_is_refused():
    cells = Cells(num_cells=10, max_sequences=2)
    first = cells.open()
    cells.extend(first, 6)
    cells.require(num_sequences=1, num_tokens=4)
    with pytest.raises(InputError, match="5 more tokens are needed, and the cache has room for 4"):
        cells.require(num_sequences=1, num_tokens=5)
    with pytest.raises(InputError, match=r"2 more sequences are needed .* 1 of 2 are free"):
        cells.require(num_sequences=2, num_tokens=0)
    cells.close(first)
    cells.require(num_sequences=2, num_tokens=10)
