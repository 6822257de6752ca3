"""--tp, --dp and --ep are followed, or refused with what is possible."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.launch.models import DENSE, STOCK, WANTED

from veche.core.errors import InputError
from veche.launch.asked_layout import LayoutWish, asked_layout, check_engines, check_fp8_blocks
from veche.launch.layout import Layout, can_split_heads


@given(
    spec=st.sampled_from([STOCK, WANTED, DENSE]),
    tp=st.none() | st.integers(1, 9),
    dp=st.none() | st.integers(1, 9),
    num_gpus=st.integers(1, 16),
)
def test_a_layout_uses_every_card_and_divides_the_heads_or_is_refused(spec, tp, dp, num_gpus):
    wish = LayoutWish(tensor_parallel=tp, data_parallel=dp)
    try:
        layout = asked_layout(spec, wish, num_gpus)
    except InputError:
        with pytest.raises(InputError, match="--tp"):
            asked_layout(spec, wish, num_gpus)
        return
    assert layout.num_gpus == num_gpus
    assert can_split_heads(spec, layout.tensor_parallel)
    assert tp in (None, layout.tensor_parallel)
    assert dp in (None, layout.data_parallel)


def test_what_is_not_said_follows():
    assert asked_layout(STOCK, LayoutWish(tensor_parallel=2), 4).data_parallel == 2
    assert asked_layout(STOCK, LayoutWish(data_parallel=4), 4).tensor_parallel == 1
    both = asked_layout(STOCK, LayoutWish(has_expert_parallel=True), 4, num_nodes=2)
    assert both == Layout(tensor_parallel=4, pipeline_parallel=2, has_expert_parallel=True)


@pytest.mark.parametrize(
    ("wish", "num_gpus", "words"),
    [
        (LayoutWish(tensor_parallel=2, data_parallel=4), 4, ["8 cards", "--gpus is 4"]),
        (LayoutWish(tensor_parallel=3), 3, ["32 query heads", "1, 2, 4, 8, 16, 32"]),
    ],
)
def test_a_refusal_says_why_and_what_is_possible(wish, num_gpus, words):
    with pytest.raises(InputError) as caught:
        asked_layout(STOCK, wish, num_gpus)
    told = caught.value.message + caught.value.hint
    assert [word for word in words if word not in told] == []


def test_fp8_blocks_that_break_are_refused_with_the_ways_out():
    with pytest.raises(InputError) as caught:
        check_fp8_blocks(STOCK, Layout(tensor_parallel=4))
    assert "--tp 1, 2" in caught.value.hint
    assert "--ep" in caught.value.hint
    check_fp8_blocks(STOCK, Layout(tensor_parallel=4, has_expert_parallel=True))
    check_fp8_blocks(WANTED, Layout(tensor_parallel=4))


def test_a_dense_model_has_no_experts_to_deal_out():
    with pytest.raises(InputError, match="--ep"):
        asked_layout(DENSE, LayoutWish(has_expert_parallel=True), 2)


def test_engines_that_split_by_layers_take_no_layout():
    check_engines(["vllm", "sglang"])
    with pytest.raises(InputError, match=r"llama\.cpp"):
        check_engines(["vllm", "llama.cpp"])
