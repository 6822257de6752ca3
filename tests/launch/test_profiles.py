"""What a profile says, and which is recommended."""

import json
import subprocess
import sys

import pytest
from tests.launch.models import STOCK, WANTED

from veche.core.errors import InputError
from veche.launch.profiles import profiles_for
from veche.launch.recommend import recommended

STABLE_KEYS = {
    "engine", "gpu", "num_gpus", "quantization", "kv_dtype", "fits", "weight_bytes",
    "kv_bytes_per_token", "kv_available_bytes", "max_context_tokens", "decode_tokens_per_s",
    "command",
}  # fmt: skip


def test_the_stable_keys_are_there_as_json():
    for profile in profiles_for(WANTED, gpu="rtx-pro-6000"):
        value = json.loads(json.dumps(profile.as_dict()))
        assert set(value) >= STABLE_KEYS
        assert len(value["kv_available_bytes"]) == len(value["decode_tokens_per_s"]) == 2
        assert all(isinstance(word, str) for word in value["command"])


def test_bands_are_bands():
    for profile in profiles_for(STOCK, gpu="rtx-4090", num_sessions=4):
        low, high = profile.decode_tokens_per_s
        assert 0 < low < high <= 2 * low
        assert 0 < profile.time_to_first_token_s[0] <= profile.time_to_first_token_s[1]
        assert profile.total_tokens_per_s[0] == pytest.approx(4 * low)


def test_the_recommendation_is_the_least_lossy_that_fits():
    chosen = recommended(profiles_for(WANTED, gpu="rtx-pro-6000", context_tokens=131_072))
    assert (chosen.engine, chosen.quantization, chosen.kv_dtype) == ("vllm", "fp8-block", "bf16")
    assert "fp8-block" in chosen.reason
    short = recommended(profiles_for(WANTED, gpu="rtx-pro-6000", context_tokens=32_768))
    assert short.quantization == "bf16"


def test_nothing_is_recommended_where_nothing_fits():
    assert recommended(profiles_for(WANTED, gpu="rtx-5070-ti")) is None


def test_reasons_are_in_the_users_language():
    (profile,) = profiles_for(
        WANTED, gpu="rtx-4090", engines=["vllm"], quantizations=["bf16"], kv_dtypes=["bf16"],
        language="ru",
    )  # fmt: skip
    assert not profile.fits
    assert "не помещается" in profile.reason


@pytest.mark.parametrize(
    "wrong",
    [
        {"gpu": "rtx-9999"},
        {"engines": ["vlm"]},
        {"quantizations": ["fp9"]},
        {"kv_dtypes": ["fp9"]},
        {"num_gpus": 0},
        {"context_tokens": 0},
        {"num_sessions": -1},
        {"utilization": 0.0, "engines": ["vllm"]},
        {"utilization": 1.5, "engines": ["vllm"]},
        {"utilization": 0.9, "engines": ["llama.cpp"]},
        {"engine_version": "newest", "engines": ["vllm"]},
        {"engine_version": "0.24"},
        {"features": ("sight",)},
    ],
)
def test_bad_input_is_one_clear_error(wrong):
    with pytest.raises(InputError):
        profiles_for(STOCK, **{"gpu": "rtx-4090", **wrong})


def test_launch_starts_without_torch_and_without_pydantic_models_of_others():
    code = (
        "import sys; import veche.launch.profiles, veche.launch.local_gpu;"
        "sys.exit(bool({'torch', 'transformers', 'numpy', 'yaml'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
