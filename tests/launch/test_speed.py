"""Laws of speed: limits, monotonicity, and single published measurements."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.launch.models import DENSE, STOCK, WANTED

from veche.launch.gpus import find_gpu
from veche.launch.layout import Layout
from veche.launch.speed import (
    Workload,
    decode_band,
    distinct_experts,
    prefill_band,
    step_seconds,
    weight_bytes_per_step,
)
from veche.planning.quantization import weight_bytes


def seconds(spec=STOCK, gpu="rtx-pro-6000", engine="vllm", quantization="bf16", kv="bf16", **work):
    return step_seconds(
        spec, find_gpu(gpu), engine=engine, quantization_name=quantization, kv_dtype=kv,
        layout=Layout(), work=Workload(**work),
    )  # fmt: skip


def test_distinct_experts_grow_from_k_to_all():
    assert distinct_experts(STOCK, 0) == 0
    assert distinct_experts(STOCK, 1) == pytest.approx(8)
    assert distinct_experts(STOCK, 10_000) == pytest.approx(128)
    assert distinct_experts(DENSE, 5) == 0


def test_a_large_batch_reads_all_weights_but_the_look_up():
    whole = weight_bytes(STOCK, "bf16") - 2 * STOCK.vocab_size * STOCK.hidden_size
    read = weight_bytes_per_step(STOCK, "bf16", Layout(), Workload(sessions=10_000))
    assert read == pytest.approx(whole)


@given(sessions=st.integers(1, 400), context=st.integers(1, 100_000))
def test_more_work_is_never_faster(sessions, context):
    base = seconds(sessions=sessions, context_tokens=context)
    assert seconds(sessions=sessions + 1, context_tokens=context) >= base
    assert seconds(sessions=sessions, context_tokens=context + 1) >= base
    shared = seconds(sessions=sessions, context_tokens=context, shared_tokens=context)
    assert shared <= base, "a trunk is read once"


def test_fewer_bytes_and_a_faster_card_are_never_slower():
    order = ["bf16", "fp8-block", "awq-int4"]
    times = [seconds(quantization=name) for name in order]
    assert times == sorted(times, reverse=True)
    assert seconds(gpu="h100-sxm") < seconds(gpu="rtx-pro-6000") < seconds(gpu="l40s")
    assert seconds(WANTED) > seconds(STOCK)


def test_a_small_batch_of_a_dense_model_costs_little_more_than_one_sequence():
    one, sixteen = (
        seconds(DENSE, gpu="rtx-5090", quantization="nvfp4", context_tokens=1, sessions=count)
        for count in (1, 16)
    )
    assert one < sixteen < 1.2 * one


def test_the_band_is_at_most_twofold_around_the_middle():
    low, high = decode_band(0.01)
    assert low < 100 < high <= 2 * low


@pytest.mark.parametrize(
    ("gpu", "engine", "quantization", "tokens_per_s"),
    [
        # llama.cpp discussion 17621 (2025-11): the same card with and without fused kernels
        ("rtx-5090", "llama.cpp", "Q4_K_M", 352.06),
        ("rtx-5090", "llama.cpp", "Q4_K_M", 246.96),
        # tenstorrent/tt-inference-server issue 340 (2025-07): vLLM, one request
        ("a100-80", "vllm", "bf16", 103.9),
    ],
)
def test_measurements_that_nothing_was_fitted_to_lie_in_the_band(
    gpu, engine, quantization, tokens_per_s
):
    kv = "f16" if engine == "llama.cpp" else "bf16"
    time = seconds(gpu=gpu, engine=engine, quantization=quantization, kv=kv, context_tokens=128)
    low, high = decode_band(time)
    assert low <= tokens_per_s <= high


def test_the_first_token_takes_longer_behind_a_longer_prompt():
    bands = [
        prefill_band(WANTED, find_gpu("rtx-pro-6000"), "bf16", Layout(), tokens)
        for tokens in (1, 1_000, 10_000, 100_000)
    ]
    assert all(low <= high for low, high in bands)
    assert [low for low, _ in bands] == sorted(low for low, _ in bands)
    assert [high for _, high in bands] == sorted(high for _, high in bands)
