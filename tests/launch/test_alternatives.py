"""What is offered when the wish does not fit."""

from dataclasses import replace

from tests.launch.models import STOCK, WANTED

from veche.launch.alternatives import alternatives
from veche.launch.gpus import find_gpu
from veche.launch.wish import Wish


def test_131k_in_bf16_on_one_card_is_offered_fp8_weights_first():
    wish = Wish(
        gpu=find_gpu("rtx-pro-6000"), engines=("vllm",), quantizations=("bf16",),
        kv_dtypes=("bf16",), context_tokens=131_072,
    )  # fmt: skip
    other_types, shorter, more_cards = alternatives(WANTED, wish)
    assert other_types.profile.quantization == "fp8-block"
    assert 50_000 < shorter.profile.context_tokens < 131_072
    assert shorter.profile.quantization == "bf16"
    assert more_cards.profile.num_gpus == 2
    assert all(option.profile.fits for option in (other_types, shorter, more_cards))
    assert all(option.reason for option in (other_types, shorter, more_cards))


def test_another_engine_is_offered_where_its_smaller_weights_fit():
    wish = Wish(gpu=find_gpu("rtx-4080"), engines=("vllm",), context_tokens=8192)
    first, *_ = alternatives(STOCK, wish)
    assert first.profile.engine == "llama.cpp"
    assert first.profile.fits
    assert "llama.cpp" in first.reason
    assert first.profile.quantization in first.reason


def test_each_offer_says_what_it_costs():
    wish = Wish(gpu=find_gpu("rtx-4080"), engines=("vllm",), context_tokens=8192)
    for language in ("en", "ru"):
        reasons = [each.reason for each in alternatives(STOCK, replace(wish, language=language))]
        beginnings = [reason.split(":")[0] for reason in reasons]
        assert len(set(beginnings)) == len(beginnings) > 1


def test_4_bits_of_llama_cpp_are_the_nearest_on_a_card_of_24_gb():
    wish = Wish(
        gpu=find_gpu("rtx-4090"), engines=("llama.cpp",), quantizations=("Q8_0",),
        context_tokens=32_768,
    )  # fmt: skip
    first, *_ = alternatives(STOCK, wish)
    assert first.profile.quantization in {"Q4_K_M", "Q5_K_M"}


def test_less_context_with_other_types_is_offered_where_neither_is_enough():
    wish = Wish(
        gpu=find_gpu("rtx-4090"), engines=("vllm",), quantizations=("bf16",),
        context_tokens=131_072,
    )  # fmt: skip
    (only,) = alternatives(STOCK, wish)
    assert only.profile.fits
    assert only.profile.context_tokens < 131_072
    assert only.profile.quantization != "bf16"


def test_nothing_in_reach_is_said_by_an_empty_list():
    wish = Wish(
        gpu=find_gpu("rtx-5070-ti"), engines=("transformers",), context_tokens=196_608,
        num_sessions=64,
    )  # fmt: skip
    assert alternatives(WANTED, wish) == []
