"""Reading start-up logs, comparing them with the prediction, and learning from them."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.launch.logs import (
    LLAMA_CPP_ONE_CARD,
    SGLANG_TWO_CARDS,
    VLLM_FP8_ONE_CARD,
    VLLM_TOO_LONG,
)
from tests.launch.models import GIB, STOCK

from veche.core.errors import InputError
from veche.launch.calibrations import calibrations, calibrations_file, forget, learn, spans
from veche.launch.comparison import case_of, compare
from veche.launch.gpus import find_gpu
from veche.launch.log_facts import parse_log, read_log
from veche.launch.memory import memory_of
from veche.launch.profiles import profiles_for

MIB = 1 << 20


def test_a_vllm_log_is_read():
    facts = parse_log(VLLM_FP8_ONE_CARD)
    assert (facts.engine, facts.version, facts.model) == ("vllm", "0.28.0", "Q/Qwen3-FP8")
    assert facts.weight_bytes == round(29.05 * GIB)
    assert facts.kv_available_bytes == round(57.10 * GIB)
    assert (facts.kv_tokens, facts.max_model_tokens) == (623_680, 131_072)
    assert (facts.utilization, facts.total_bytes) == (0.92, round(94.97 * GIB))
    assert (facts.quantization, facts.kv_dtype) == ("fp8", None)
    assert (facts.batched_tokens, facts.sequences, facts.tensor_parallel) == (8192, 64, 1)
    assert facts.graph_bytes == round(0.31 * GIB)
    assert facts.decode_tokens_per_s == 160.2


def test_a_vllm_refusal_is_read():
    facts = parse_log(VLLM_TOO_LONG)
    assert facts.needed_kv_bytes == 24 * GIB
    assert facts.kv_available_bytes == round(3.18 * GIB)
    assert facts.max_model_tokens == 262_144


def test_an_sglang_log_is_read():
    facts = parse_log(SGLANG_TWO_CARDS)
    assert (facts.engine, facts.tensor_parallel, facts.utilization) == ("sglang", 2, 0.85)
    assert facts.weight_bytes == round(28.45 * GIB)
    assert facts.kv_available_bytes == 38 * GIB
    assert facts.free_bytes == round(78.2 * GIB)
    assert facts.kv_dtype == "bfloat16"


def test_a_newer_sglang_log_is_read():
    text = (
        "server_args={'tp_size': 4, 'mem_fraction_static': 0.9, 'model_path': 'M'}\n"
        "Load weight end. type=Qwen3MoeForCausalLM, quant=fp8, avail mem=62.08 GB, "
        "mem usage=16.41 GB.\n"
        "KV Cache is allocated. dtype: torch.float8_e4m3fn, #tokens: 549277, KV size: 25.14 GB\n"
    )
    facts = parse_log(text)
    assert (facts.tensor_parallel, facts.utilization, facts.model) == (4, 0.9, "M")
    assert (facts.quantization, facts.kv_dtype) == ("fp8", "float8_e4m3fn")
    assert facts.kv_available_bytes == round(25.14 * GIB)


def test_a_llama_cpp_log_is_read():
    facts = parse_log(LLAMA_CPP_ONE_CARD)
    assert (facts.engine, facts.version, facts.quantization) == ("llama.cpp", "6413", "Q4_K_M")
    assert facts.gpu_title == "NVIDIA RTX PRO 6000 Blackwell Workstation Edition"
    assert facts.kv_available_bytes == 3072 * MIB
    assert (facts.kv_tokens, facts.max_model_tokens, facts.kv_dtype) == (32768, 32768, "f16")
    assert facts.decode_tokens_per_s == 250.29
    assert facts.overhead_bytes == 904 * MIB


@pytest.mark.parametrize(
    ("log", "gpu", "quantities"),
    [
        (VLLM_FP8_ONE_CARD, "rtx-pro-6000", {"weight_bytes", "kv_available_bytes", "kv_tokens",
                                             "decode_tokens_per_s"}),
        (SGLANG_TWO_CARDS, "h100-sxm", {"weight_bytes", "kv_available_bytes", "kv_tokens"}),
        (LLAMA_CPP_ONE_CARD, "rtx-pro-6000", {"weight_bytes", "host_weight_bytes", "kv_tokens",
                                              "compute_bytes", "decode_tokens_per_s"}),
    ],
)  # fmt: skip
def test_the_prediction_holds_line_by_line(log, gpu, quantities):
    facts = parse_log(log)
    comparison = compare(case_of(STOCK, facts, find_gpu(gpu)), facts)
    assert {line.quantity for line in comparison.lines} == quantities
    assert all(line.holds and line.error <= 0.003 for line in comparison.lines)
    assert comparison.position is not None
    assert comparison.as_dict()["lines"]


def test_a_wrong_quantisation_shows_in_the_weights():
    facts = parse_log(VLLM_FP8_ONE_CARD)
    comparison = compare(
        case_of(STOCK, facts, find_gpu("rtx-pro-6000"), quantization_name="bf16"), facts
    )
    (weights,) = [line for line in comparison.lines if line.quantity == "weight_bytes"]
    assert not weights.holds
    assert not learn(comparison), "a wrong model teaches nothing"
    assert weights.error > 0.9


def test_what_is_learned_narrows_the_interval_around_the_fact():
    facts = parse_log(VLLM_FP8_ONE_CARD)
    card = find_gpu("rtx-pro-6000")
    case = case_of(STOCK, facts, card)
    comparison = compare(case, facts)
    assert learn(comparison)
    assert not learn(comparison), "the same log teaches only once"
    (entry,) = calibrations()
    assert entry["gpu"] == "rtx-pro-6000"
    general, learned = memory_of(case), memory_of(case, span=spans(card.name)["vllm"])
    width = general.kv_available_bytes[1] - general.kv_available_bytes[0]
    narrow = learned.kv_available_bytes[1] - learned.kv_available_bytes[0]
    assert narrow < 0.6 * width
    assert learned.kv_available_bytes[0] <= facts.kv_available_bytes
    assert facts.kv_available_bytes <= learned.kv_available_bytes[1]
    assert "vllm" not in spans("rtx-4090")
    (profile,) = profiles_for(
        STOCK, gpu=card, engines=["vllm"], quantizations=["bf16"], kv_dtypes=["bf16"],
        spans=spans(card.name),
    )  # fmt: skip
    assert any("learned" in note for note in profile.notes)


def test_what_was_learned_can_be_forgotten_even_if_it_is_damaged():
    facts = parse_log(VLLM_FP8_ONE_CARD)
    learn(compare(case_of(STOCK, facts, find_gpu("rtx-pro-6000")), facts))
    assert forget() == 1
    assert (calibrations(), forget()) == ([], 0)
    calibrations_file().write_text("{")
    forget()
    assert calibrations() == []


@pytest.mark.parametrize(
    ("printed", "recipe"),
    [("Q2_K - Medium", "Q2_K"), ("Q2_K - Small", "Q2_K_S"), ("Q3_K - Large", "Q3_K_L"),
     ("IQ4_XS - 4.25 bpw", "IQ4_XS"), ("Q8_0", "Q8_0")],
)  # fmt: skip
def test_llama_cpps_names_of_its_file_types_are_understood(printed, recipe):
    log = LLAMA_CPP_ONE_CARD.replace("Q4_K - Medium", printed)
    facts = parse_log(log)
    assert case_of(STOCK, facts, find_gpu("rtx-pro-6000")).quantization == recipe


@pytest.mark.parametrize("text", ["", "hello\nworld\n", "vLLM API server version 0.28.0\n"])
def test_what_is_no_start_up_log_is_one_clear_error(text):
    with pytest.raises(InputError):
        parse_log(text)


@given(data=st.data())
def test_a_damaged_log_is_read_or_refused_and_nothing_else(data):
    log = data.draw(st.sampled_from([VLLM_FP8_ONE_CARD, SGLANG_TWO_CARDS, LLAMA_CPP_ONE_CARD]))
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, len(log) - 1))
        rest = log[place + data.draw(st.integers(0, 30)) :]
        log = log[:place] + data.draw(st.text(".,0123456789 =\n'", max_size=12)) + rest
    with suppress(InputError):
        facts = parse_log(log)
        comparison = compare(case_of(STOCK, facts, find_gpu("rtx-pro-6000")), facts)
        assert comparison.as_dict()["engine"] == facts.engine


def test_a_missing_file_and_a_damaged_store_are_clear_errors(tmp_path):
    with pytest.raises(InputError):
        read_log(tmp_path / "none.log")
    calibrations_file().parent.mkdir(parents=True)
    calibrations_file().write_text('{"schema": 7}')
    with pytest.raises(InputError):
        calibrations()


def test_an_unknown_quantisation_in_a_log_asks_for_its_name():
    facts = parse_log(VLLM_FP8_ONE_CARD.replace("quantization=fp8", "quantization=strange"))
    with pytest.raises(InputError) as caught:
        case_of(STOCK, facts, find_gpu("rtx-pro-6000"))
    assert "--quant" in caught.value.hint


def test_pinned_memory_of_the_machine_is_not_the_cards():
    facts = parse_log(LLAMA_CPP_ONE_CARD)
    assert facts.compute_bytes == round(304.75 * MIB)
    assert facts.pipeline_parallel == 1
    pinned = LLAMA_CPP_ONE_CARD.replace("CPU_Mapped model", "CUDA_Host model")
    assert parse_log(pinned).weight_bytes == facts.weight_bytes
    assert parse_log(pinned).host_weight_bytes == facts.host_weight_bytes
