"""Reading and writing safetensors: against the safetensors library, and against hostile files."""

import json
import struct

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import tiny_mixtral

from veche.checkpoint.config import read_config, spec_of
from veche.checkpoint.header import read_header
from veche.checkpoint.reader import INDEX_NAME, open_checkpoint, read_tensor
from veche.checkpoint.writer import TensorOut, write_shard
from veche.core.errors import CheckpointError, ConfigError, UnsupportedError, VecheError

VALUES = {
    "a": torch.randn(3, 5).bfloat16(),
    "b": torch.randn(7),
    "empty": torch.zeros(0, 4),
    "ж": torch.randn(2, 2, 2).half(),
}


@pytest.fixture
def model(tmp_path):
    return tiny_mixtral(tmp_path / "model")


def test_tensors_read_are_those_that_the_library_wrote(tmp_path):
    safetensors.torch.save_file(VALUES, tmp_path / "x.safetensors")
    header = read_header(tmp_path / "x.safetensors")
    assert set(header) == set(VALUES)
    for name, info in header.items():
        got = read_tensor(info)
        assert got.shape == VALUES[name].shape
        assert (got.astype(np.float32) == VALUES[name].float().numpy()).all()


def test_tensors_written_are_those_that_the_library_reads(tmp_path):
    values = {"a": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.ones(5, np.float32)}
    outs = [
        TensorOut(
            name=name,
            dtype="F32",
            shape=value.shape,
            produce=lambda value=value: [value.tobytes()[:8], value.tobytes()[8:]],
        )
        for name, value in values.items()
    ]
    write_shard(tmp_path / "y.safetensors", outs, {"format": "pt"})
    read = safetensors.numpy.load_file(tmp_path / "y.safetensors")
    assert all((read[name] == values[name]).all() for name in values)
    with safetensors.safe_open(tmp_path / "y.safetensors", framework="np") as file:
        assert file.metadata() == {"format": "pt"}


def test_a_writer_that_lies_about_its_length_leaves_no_file(tmp_path):
    out = TensorOut(name="a", dtype="F32", shape=(4,), produce=lambda: [b"1234"])
    with pytest.raises(AssertionError, match="-12 bytes against its shape"):
        write_shard(tmp_path / "z.safetensors", [out], {})
    assert list(tmp_path.iterdir()) == []


def header_file(path, header, *, length=None, body=b"\0" * 64):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + body)
    return path


def tensor(start=0, end=16, shape=(4,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b"not json", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"a": 1, "a": 2}', "twice"),
        ({"a": 3}, "not described"),
        ({"a": tensor(dtype="F9")}, "dtype"),
        ({"a": tensor(end=12)}, "needs 16 bytes"),
        ({"a": tensor(shape=(-4,))}, "no valid shape"),
        ({"a": tensor(start=-16, end=0)}, "no valid shape"),
        ({"a": tensor(start=1000, end=1016)}, "truncated"),
        ({"a": tensor(shape=(2**40, 2**40))}, "needs"),
        ({"a": tensor(), "b": tensor(start=8, end=24)}, "overlaps"),
        (b"[" * 5000, "not JSON"),
    ],
)
def test_a_lying_header_is_found_out(tmp_path, header, words):
    with pytest.raises(CheckpointError, match=words):
        read_header(header_file(tmp_path / "x.safetensors", header))


@pytest.mark.parametrize("length", [0, 5000, 2**40, 2**64 - 1])
def test_a_header_longer_than_the_file_is_not_read(tmp_path, length):
    file = header_file(tmp_path / "x.safetensors", {}, length=length)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        read_header(file)


@given(st.binary(max_size=200), st.integers(0, 300))
def test_any_bytes_are_read_or_refused(tmp_path_factory, content, length):
    file = tmp_path_factory.mktemp("fuzz") / "x.safetensors"
    file.write_bytes(struct.pack("<Q", length) + content)
    try:
        read_header(file)
    except VecheError:
        return
    assert length <= len(content)


def test_a_truncated_file_is_named_with_its_tensor(model):
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="is truncated: tensor '"):
        open_checkpoint(model)


def test_a_pickle_is_never_opened(model):
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(CheckpointError, match="pickle"):
        open_checkpoint(model)


@pytest.mark.parametrize("name", ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", ""])
def test_an_index_cannot_lead_out_of_its_folder(model, name):
    (model / INDEX_NAME).write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(CheckpointError):
        open_checkpoint(model)


def test_a_missing_shard_is_named(model):
    (model / INDEX_NAME).write_text(json.dumps({"weight_map": {"a": "gone.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"gone\.safetensors is missing"):
        open_checkpoint(model)


def test_a_quantised_checkpoint_is_refused(model):
    config = read_config(model)
    config["quantization_config"] = {"quant_method": "fp8"}
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedError, match="quantised"):
        open_checkpoint(model)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not valid JSON"),
        ("[]", "not an object"),
        ("\xff", "not valid JSON"),
    ],
)
def test_a_config_that_is_not_json_is_refused(model, text, words):
    (model / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=words):
        open_checkpoint(model)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "mixtrl"}, "mixtrl"),
        ({"model_type": None}, "model_type"),
        ({"hidden_size": "32"}, "hidden_size"),
        ({"hidden_size": -1}, "hidden_size"),
        ({"num_key_value_heads": 3}, "multiple"),
        ({"num_local_experts": None}, "num_local_experts"),
        ({"num_experts_per_tok": 9}, "num_experts_per_tok"),
        ({"rope_parameters": {"rope_theta": 0}}, "rope_theta"),
    ],
)
def test_a_contradictory_config_is_refused_by_key(model, change, words):
    config = {**read_config(model), **change}
    with pytest.raises(VecheError, match=words):
        spec_of(config)


def test_both_spellings_give_the_same_spec():
    old = {
        "model_type": "qwen3_moe",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 100,
        "moe_intermediate_size": 32,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "torch_dtype": "bfloat16",
        "rope_theta": 1e6,
        "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512},
    }
    new = {key: value for key, value in old.items() if "rope" not in key}
    new["dtype"] = new.pop("torch_dtype")
    new["num_local_experts"] = new.pop("num_experts")
    new["rope_parameters"] = {
        "rope_type": "yarn",
        "rope_theta": 1e6,
        "factor": 4.0,
        "original_max_position_embeddings": 512,
    }
    assert spec_of(old) == spec_of(new)


def test_norm_topk_prob_defaults_as_in_transformers():
    from transformers import Qwen3MoeConfig

    config = {**Qwen3MoeConfig().to_dict()}
    default = config.pop("norm_topk_prob")
    assert spec_of(config).norm_topk_prob == default


def test_llama3_rope_reaches_what_the_config_says():
    rope = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    spec = spec_of(
        {
            "model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 100,
            "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 80,
            "max_position_embeddings": 131_072, "rope_scaling": rope,
        }
    )  # fmt: skip
    assert spec.rope.max_scaled_positions is None
    assert spec.position_limit == 131_072
