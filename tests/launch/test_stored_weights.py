"""A checkpoint that is quantised already: what its config.json says of it is believed."""

import pytest
from tests.launch.models import STOCK

from veche.core.errors import InputError
from veche.launch.alternatives import alternatives
from veche.launch.profiles import profiles_for
from veche.launch.stored_weights import checked_against, stored_weights
from veche.launch.wish import make_wish


def _compressed(**weights):
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }


@pytest.mark.parametrize(
    ("entry", "name", "certainty"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8-block", "known"),
        ({"quant_method": "fp8", "weight_block_size": [64, 64]}, "fp8-block", "near"),
        ({"quant_method": "fp8", "activation_scheme": "static"}, "fp8-tensor", "known"),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "awq-int4", "known"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 32}, "gptq-int4", "near"),
        ({"quant_method": "gptq", "bits": 8}, "bf16", "unknown"),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4", "known"),
        ({"quant_method": "mxfp4"}, "mxfp4", "known"),
        (_compressed(type="int", num_bits=8), "int8", "known"),
        (_compressed(type="int", num_bits=4), "awq-int4", "near"),
        (_compressed(type="float", num_bits=8), "fp8-tensor", "near"),
        (_compressed(type="int", num_bits=3), "bf16", "unknown"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bf16", "unknown"),
        ({"quant_method": "compressed-tensors", "config_groups": "odd"}, "bf16", "unknown"),
    ],
)
def test_it_is_read_from_the_config(entry, name, certainty):
    stored = stored_weights({"quantization_config": entry})
    assert (stored.quantization, stored.certainty) == (name, certainty)
    assert stored.told.startswith(entry["quant_method"])


@pytest.mark.parametrize("config", [{}, {"quantization_config": None}])
def test_plain_weights_say_nothing(config):
    assert stored_weights(config) is None


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize("language", ["en", "ru"])
def test_only_that_type_is_offered_and_no_flag_says_it(engine, language):
    config = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    profiles = profiles_for(
        STOCK, gpu="l40s", engines=[engine], stored=stored_weights(config), language=language
    )
    assert {profile.quantization for profile in profiles} == {"fp8-block"}
    for profile in profiles:
        assert not {"--quantization", "--dtype"} & set(profile.command)
        assert sum("weight_block_size [128, 128]" in note for note in profile.notes) == 1
        assert not any("MODEL" in note for note in profile.notes)


def test_another_type_is_refused_with_what_the_folder_is():
    stored = stored_weights({"quantization_config": {"quant_method": "awq", "bits": 4}})
    with pytest.raises(InputError, match=r"--quant bf16.* my-folder are awq-int4 already"):
        checked_against(stored, ("bf16",), "my-folder")
    assert checked_against(stored, ("awq-int4",), "my-folder") is stored
    assert checked_against(stored, ("Q4_K_M",), "my-folder") is stored
    assert checked_against(None, ("bf16",), "my-folder") is None


def test_what_fits_instead_keeps_the_type():
    config = {"quantization_config": {"quant_method": "fp8"}}
    wish = make_wish(gpu="rtx-4080", engines=["all"], stored=stored_weights(config))
    found = [each.profile for each in alternatives(STOCK, wish)]
    assert {profile.quantization for profile in found if profile.engine == "vllm"} <= {"fp8-tensor"}
    assert found
    with pytest.raises(InputError, match="does not run") as refusal:
        profiles_for(STOCK, gpu="h200", engines=["transformers"], stored=wish.stored)
    assert "bf16 only, and this checkpoint is fp8-tensor" in refusal.value.hint


def test_what_cannot_be_counted_is_said_and_may_be_counted_as_the_user_says():
    stored = stored_weights({"quantization_config": {"quant_method": "gptq", "bits": 8}})
    (profile, *_) = profiles_for(STOCK, gpu="h200", engines=["vllm"], stored=stored)
    assert "--dtype" not in profile.command
    assert any("gptq, bits 8" in note and "cannot count" in note for note in profile.notes)
    assert checked_against(stored, ("int8",), "my-folder").quantization == "int8"
