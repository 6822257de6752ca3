"""Command lines carry what each engine's version needs, and say why."""

import json

import pytest
from tests.launch.models import STOCK, WANTED

from veche.launch.profiles import profiles_for


def one(spec=WANTED, engine="vllm", quantization="fp8", gpu="rtx-pro-6000", **more):
    version = more.pop("version", None)
    (profile, *_) = profiles_for(
        spec, gpu=gpu, engines=[engine], quantizations=[quantization],
        engine_versions={engine: version} if version else None, **more,
    )  # fmt: skip
    return profile


def value(profile, flag):
    return profile.command[profile.command.index(flag) + 1]


def test_vllm_gets_the_rope_in_the_spelling_of_its_version():
    new = json.loads(value(one(), "--hf-overrides"))["rope_parameters"]
    assert new == {
        "rope_type": "yarn", "factor": 6.0, "original_max_position_embeddings": 32768,
        "rope_theta": 2_000_000.0,
    }  # fmt: skip
    old = json.loads(value(one(version="0.10.2"), "--hf-overrides"))
    assert "rope_scaling" in old
    assert old["max_position_embeddings"] == 196_608  # vLLM's limit from 0.30
    assert "--rope-scaling" not in one().command
    assert "--hf-overrides" not in one(STOCK).command


@pytest.mark.parametrize(
    ("version", "is_set"),
    [(None, True), ("0.23.1", False), ("0.24.0", True), ("0.28.0", True), ("0.29.0", False)],
)
def test_deep_gemm_is_off_where_it_breaks(version, is_set):
    assert (("VLLM_USE_DEEP_GEMM", "0") in one(version=version).env) is is_set
    assert not one(version=version, gpu="h100").env


def test_nvfp4_experts_on_this_card_go_through_marlin():
    assert value(one(quantization="nvfp4"), "--moe-backend") == "marlin"
    assert "--moe-backend" not in one(quantization="nvfp4", gpu="b200").command
    assert "--moe-backend" not in one(quantization="nvfp4", version="0.16.0").command


def test_every_flag_that_is_explained_is_there():
    for engine, quantization in (("vllm", "fp8"), ("sglang", "fp8"), ("llama.cpp", "Q4_K_M")):
        profile = one(engine=engine, quantization=quantization, model_path="M")
        places = {*profile.command, *(name for name, _ in profile.env)}
        assert {name for name, _ in profile.comments} <= places
        assert profile.comments


def test_the_length_that_is_served_is_within_the_positions():
    for engine, flag in (("vllm", "--max-model-len"), ("sglang", "--context-length")):
        assert int(value(one(engine=engine), flag)) == 196_608
    assert value(one(engine="llama.cpp", quantization="Q4_K_M"), "--rope-scale") == "6"
    assert value(one(engine="llama.cpp", quantization="Q4_K_M"), "--yarn-orig-ctx") == "32768"


def test_sglang_is_allowed_a_length_beyond_the_configs_own():
    name = "SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN"
    assert (name, "1") in one(engine="sglang", context_tokens=196_608).env
    assert not one(engine="sglang", context_tokens=65_536).env or name not in dict(
        one(engine="sglang", context_tokens=65_536).env
    )
    assert float(value(one(engine="sglang"), "--mem-fraction-static")) < 0.95


def test_stock_fp8_on_four_cards_needs_whole_experts():
    assert "--enable-expert-parallel" in one(STOCK, gpu="l40s", num_gpus=4).command
    assert "--enable-expert-parallel" not in one(WANTED, gpu="l40s", num_gpus=4).command
    assert value(one(WANTED, gpu="l40s", num_gpus=4), "--tensor-parallel-size") == "4"


def test_slots_of_llama_cpp_share_one_cache():
    profile = one(engine="llama.cpp", quantization="Q4_K_M", context_tokens=8192, num_sessions=3)
    assert value(profile, "--ctx-size") == str(3 * 8192)
    assert "--kv-unified" in profile.command


def test_routing_and_adapters_are_switched_on_or_said_to_be_missing():
    wanted = {"features": ("routing", "lora")}
    assert {"--enable-return-routed-experts", "--enable-lora"} <= set(one(**wanted).command)
    old = one(version="0.20.0", **wanted)
    assert not old.fits
    assert "0.21" in old.reason
    assert not one(version="0.11.0", features=("lora",)).fits
    assert not one(engine="llama.cpp", quantization="Q4_K_M", **wanted).fits


def test_quantising_while_loading_is_warned_of_where_bf16_does_not_fit():
    notes = one(gpu="l40s").notes
    assert any("FP8 already" in note for note in notes)
    assert not any("FP8 already" in note for note in one().notes)


def test_a_card_without_kernels_is_said():
    assert not one(quantization="nvfp4", gpu="mi300x").fits
