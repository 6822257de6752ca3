"""What is offered when the wish does not fit."""

from tests.launch.models import WANTED

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


def test_nothing_in_reach_is_said_by_an_empty_list():
    wish = Wish(
        gpu=find_gpu("rtx-5070-ti"), engines=("transformers",), context_tokens=196_608,
        num_sessions=64,
    )  # fmt: skip
    assert alternatives(WANTED, wish) == []
