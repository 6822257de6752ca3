"""Laws of memory: what fits, what splits, and that more never needs less."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.launch.models import GIB, MIXTRAL, STOCK, WANTED

from veche.launch.layout import (
    Layout,
    choose_layout,
    weight_bytes_per_gpu,
)
from veche.launch.profiles import profiles_for
from veche.planning.kv_cache import BLOCK_TOKENS, KV_BYTES_PER_VALUE, kv_bytes_per_token, tokens_in
from veche.planning.quantization import QUANTIZATIONS, weight_bytes
from veche.planning.tensor_parallel import can_split_fp8_blocks, feasible_tensor_parallel

MIB = 1 << 20


def test_kv_bytes_are_those_of_the_table():
    assert kv_bytes_per_token(STOCK, "bf16") == 98_304
    assert kv_bytes_per_token(WANTED, "bf16") == 196_608
    assert kv_bytes_per_token(WANTED, "bf16") * 131_072 == 24 * GIB
    assert kv_bytes_per_token(STOCK, "f16") * 32_768 == 3072 * MIB


def test_heads_split_as_the_engines_do():
    assert feasible_tensor_parallel(STOCK) == (1, 2, 4, 8, 16, 32)
    assert feasible_tensor_parallel(WANTED) == (1, 2, 4, 8, 16, 24, 48)
    assert kv_bytes_per_token(STOCK, "bf16", tensor_parallel=8) == 98_304 // 4


def test_fp8_blocks_of_the_stock_model_break_on_four_cards():
    assert can_split_fp8_blocks(STOCK, 2)
    assert not can_split_fp8_blocks(STOCK, 4)
    assert can_split_fp8_blocks(WANTED, 8)
    assert choose_layout(STOCK, "fp8-block", 4).has_expert_parallel
    assert not choose_layout(WANTED, "fp8-block", 4).has_expert_parallel


def test_cards_that_cannot_share_heads_become_replicas():
    layout = choose_layout(STOCK, "bf16", 6)
    assert (layout.tensor_parallel, layout.data_parallel) == (2, 3)


def test_the_wanted_variant_agrees_with_the_table_on_one_pro_6000():
    bf16 = _one("bf16", "bf16", None)
    assert 50_000 < bf16.kv_available_tokens[0] < 55_000
    assert 57_000 < bf16.kv_available_tokens[1] < 62_000
    fp8 = _one("fp8", "bf16", None)
    assert fp8.kv_available_tokens[0] == pytest.approx(255_000, rel=0.01)
    assert fp8.kv_available_tokens[1] == pytest.approx(263_000, rel=0.01)
    assert fp8.max_context_tokens == 196_608
    assert not _one("bf16", "bf16", 131_072).fits
    with_fp8_cache = _one("bf16", "fp8", 131_072)
    assert (with_fp8_cache.fits, with_fp8_cache.utilization) == (True, 0.95)
    assert _one("fp8", "bf16", 131_072).fits
    assert _one("fp8", "bf16", 196_608).max_sessions == 1


def test_a_context_beyond_the_positions_never_fits():
    profile = _one("fp8", "fp8", 200_000)
    assert not profile.fits
    assert "196608" in profile.reason


@pytest.mark.parametrize("name", QUANTIZATIONS)
def test_one_card_holds_all_weights_and_more_cards_at_least_their_share(name):
    total = weight_bytes(STOCK, name)
    assert weight_bytes_per_gpu(STOCK, name, Layout()) == total
    for ranks in (2, 4, 8):
        share = weight_bytes_per_gpu(STOCK, name, Layout(tensor_parallel=ranks))
        assert total / ranks <= share < total


def test_expert_parallelism_saves_no_memory_on_the_same_cards():
    split = Layout(tensor_parallel=4)
    whole = Layout(tensor_parallel=4, has_expert_parallel=True)
    assert weight_bytes_per_gpu(STOCK, "bf16", split) == weight_bytes_per_gpu(STOCK, "bf16", whole)


@settings(max_examples=60, deadline=None)
@given(
    tokens=st.integers(1, 300_000),
    more=st.integers(0, 100_000),
    dtype=st.sampled_from(sorted(KV_BYTES_PER_VALUE)),
)
def test_more_context_never_needs_less_memory(tokens, more, dtype):
    each = kv_bytes_per_token(WANTED, dtype)
    assert tokens_in(each * (tokens + more), each) >= tokens_in(each * tokens, each)
    assert tokens_in(each * tokens, each) <= tokens


REACHES = st.fixed_dictionaries(
    {
        "gpu": st.sampled_from(["rtx-pro-6000", "rtx-5090", "rtx-4080", "h200", "mi300x", "gb10"]),
        "num_gpus": st.sampled_from([1, 2, 3, 4]),
        "num_sessions": st.integers(1, 40),
        "engine_version": st.sampled_from([None, "0.19.0", "0.20"]),
    }
)
CHOICES = st.sampled_from(
    [("vllm", "fp8", "bf16"), ("vllm", "bf16", "fp8"), ("sglang", "awq", "bf16"),
     ("llama.cpp", "Q4_K_M", "q8_0"), ("llama.cpp", "Q8_0", "f16"), ("transformers", "bf16", None)]
)  # fmt: skip


def _of(spec, choice, **asked):
    engine, quantization, kv = choice
    (profile,) = profiles_for(
        spec, engines=[engine], quantizations=[quantization], kv_dtypes=[kv] if kv else None,
        **asked,
    )  # fmt: skip
    return profile


@settings(max_examples=120, deadline=None)
@given(spec=st.sampled_from([STOCK, WANTED, MIXTRAL]), choice=CHOICES, asked=REACHES)
def test_the_largest_context_fits_and_one_block_more_fits_at_no_share(spec, choice, asked):
    reach = _of(spec, choice, **asked).max_context_tokens
    if reach:
        at_reach = _of(spec, choice, context_tokens=reach, **asked)
        assert at_reach.fits
        assert at_reach.max_context_tokens == reach
    over = reach + BLOCK_TOKENS
    beyond = _of(spec, choice, context_tokens=over, **asked)
    assert not beyond.fits
    assert beyond.max_context_tokens == reach
    for share in (0.9, 0.92, 0.95) if choice[0] == "vllm" else ():
        assert not _of(spec, choice, context_tokens=over, utilization=share, **asked).fits


@settings(max_examples=60, deadline=None)
@given(choice=CHOICES, asked=REACHES, context=st.integers(100, 40_000))
def test_the_most_sessions_fit_and_one_more_does_not_at_that_share(choice, asked, context):
    profile = _of(STOCK, choice, context_tokens=context, **asked)
    if not profile.fits:
        return
    share = {"utilization": profile.utilization} if choice[0] in ("vllm", "sglang") else {}
    most = profile.max_sessions
    assert most >= asked["num_sessions"]
    more = {**asked, **share, "context_tokens": context}
    assert _of(STOCK, choice, **{**more, "num_sessions": most}).fits
    assert not _of(STOCK, choice, **{**more, "num_sessions": most + 1}).fits


def test_what_a_larger_share_would_hold_is_said():
    profile = _one("bf16", "bf16", None)
    assert profile.utilization == 0.92
    assert profile.max_context_tokens > profile.context_tokens
    assert any(f"up to {profile.max_context_tokens} tokens" in note for note in profile.notes)
    at_reach = _one("bf16", "bf16", profile.max_context_tokens)
    assert (at_reach.fits, at_reach.utilization) == (True, 0.95)


@settings(max_examples=30, deadline=None)
@given(
    context=st.integers(2_048, 196_608),
    sessions=st.integers(1, 8),
    quantization=st.sampled_from(["bf16", "fp8-block", "awq-int4"]),
)
def test_what_fits_also_fits_with_less(context, sessions, quantization):
    profile = _one(quantization, "fp8", context, sessions)
    if profile.fits and sessions > 1:
        assert _one(quantization, "fp8", context, sessions - 1).fits
    if profile.fits:
        assert _one(quantization, "fp8", max(2_048, context // 2), sessions).fits
        assert profile.left_bytes >= 0
        assert profile.max_sessions >= sessions
    low, high = profile.kv_available_bytes
    assert low <= high


def _one(quantization, kv, context, sessions=1):
    (profile,) = profiles_for(
        WANTED,
        gpu="rtx-pro-6000",
        engines=["vllm"],
        quantizations=[quantization],
        kv_dtypes=[kv],
        context_tokens=context,
        num_sessions=sessions,
    )
    return profile
