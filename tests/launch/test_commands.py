"""Command lines carry what each engine's version needs, and say why."""

import json
from dataclasses import replace

import pytest
from tests.launch.models import STOCK, WANTED

from veche.launch.layout import Layout
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
    old = one(version="0.11.0")
    assert json.loads(value(old, "--rope-scaling"))["factor"] == 6.0
    assert float(value(old, "--rope-theta")) == 2_000_000
    assert "--hf-overrides" not in old.command
    for version in (None, "0.11.1"):
        assert "--rope-scaling" not in one(version=version).command
    assert "--hf-overrides" not in one(STOCK).command


@pytest.mark.parametrize(
    ("version", "is_set"),
    [(None, True), ("0.23.1", False), ("0.24.0", True), ("0.28.0", True), ("0.29.0", False)],
)
def test_deep_gemm_is_off_where_it_breaks(version, is_set):
    assert (("VLLM_USE_DEEP_GEMM", "0") in one(version=version).env) is is_set
    assert not one(version=version, gpu="h100").env


@pytest.mark.parametrize(
    ("version", "quantization", "word"),
    [
        (None, "fp8-block", "fp8_per_block"),
        (None, "fp8-tensor", "fp8_per_tensor"),
        ("0.20.0", "fp8-block", "fp8_per_block"),
        ("0.20", "fp8-tensor", "fp8_per_tensor"),
        ("0.19.1", "fp8-tensor", "fp8"),
        ("0.19.1", "fp8-block", None),
    ],
)
def test_each_vllm_gets_its_own_word_for_fp8(version, quantization, word):
    profile = one(version=version, quantization=quantization)
    said = value(profile, "--quantization") if "--quantization" in profile.command else None
    assert said == word
    assert any("already" in note for note in profile.notes) is (word is None)


def test_sglang_makes_one_scale_a_tensor_and_no_blocks():
    assert value(one(engine="sglang", quantization="fp8-tensor"), "--quantization") == "fp8"
    assert "--quantization" not in one(engine="sglang", quantization="fp8-block").command


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize("quantization", ["int8", "awq", "gptq", "nvfp4", "mxfp4"])
def test_what_is_not_quantised_here_must_be_so_already(engine, quantization):
    profile = one(engine=engine, quantization=quantization, model_path="M")
    (note,) = [note for note in profile.notes if "already quantised" in note]
    assert note.startswith("M ")
    assert profile.quantization in note
    gguf = one(engine="llama.cpp", quantization="IQ4_XS", model_path="M")
    assert any("IQ4_XS GGUF" in note for note in gguf.notes)


@pytest.mark.parametrize(
    ("version", "usual"), [("0.19.1", 0.9), ("0.20.0", 0.92), ("0.33", 0.92), (None, 0.92)]
)
def test_each_vllm_is_given_its_own_default_share(version, usual):
    asked = {"quantization": "fp8", "context_tokens": 4096}
    assert one(version=version, **asked).utilization == usual
    assert one(version=version, utilization=0.7, **asked).utilization == 0.7


def test_a_share_steps_and_sequences_go_into_prediction_and_command():
    usual = one(context_tokens=4096)
    profile = one(context_tokens=4096, batched_tokens=16384, max_sequences=64, utilization=0.8)
    assert value(profile, "--max-num-batched-tokens") == "16384"
    assert value(profile, "--max-num-seqs") == "64"
    assert value(profile, "--gpu-memory-utilization") == "0.8"
    assert profile.overhead_bytes[1] > usual.overhead_bytes[1]
    assert profile.kv_available_bytes[1] < usual.kv_available_bytes[0]
    slots = one(engine="llama.cpp", quantization="Q4_K_M", batched_tokens=4096)
    assert (value(slots, "--ubatch-size"), value(slots, "--batch-size")) == ("4096", "4096")


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
    large = one(gpu="l40s")
    assert any("FP8 already" in note for note in large.notes)
    assert "--quantization" not in large.command
    assert not any("FP8 already" in note for note in one().notes)


def test_a_card_without_kernels_is_said():
    assert not one(quantization="nvfp4", gpu="mi300x").fits


def test_llama_server_is_told_how_far_rope_reaches_where_the_gguf_says_less():
    profile = one(engine="llama.cpp", quantization="Q4_K_M")
    assert value(profile, "--override-kv") == "qwen3moe.context_length=int:196608"
    why = dict(profile.comments)["--override-kv"]
    assert str(WANTED.max_position_embeddings) in why
    assert "196608" in why
    assert any(note.endswith("the command goes by 196608") for note in profile.notes)
    agreed = replace(WANTED, max_position_embeddings=196_608)
    for spec in (STOCK, agreed):
        command = one(spec, engine="llama.cpp", quantization="Q4_K_M").command
        assert "--override-kv" not in command


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_experts_dealt_out_by_wish_are_not_said_to_be_so_for_their_blocks(engine):
    layout = Layout(tensor_parallel=2, has_expert_parallel=True)
    for quantization in ("bf16", "fp8-block"):
        profile = one(STOCK, engine=engine, quantization=quantization, num_gpus=2, layout=layout)
        told = " ".join([*dict(profile.comments).values(), *profile.notes])
        assert "as was asked" in told
        assert "cannot be divided" not in told
    forced = one(STOCK, engine=engine, gpu="l40s", num_gpus=4)
    told = " ".join([*dict(forced.comments).values(), *forced.notes])
    assert "cannot be divided by 4" in told
