"""What cannot be exported: one error that says why, and nothing is written."""

import json
import os
import shutil
import stat

import pytest
from safetensors.torch import load_file, save_file
from tests.surgery.gguf.models import PRE, write_model

from veche.core.errors import (
    CheckpointError,
    FailureError,
    InputError,
    OutputError,
    UnsupportedError,
)
from veche.surgery.gguf import export as export_module
from veche.surgery.gguf.export import export_gguf


@pytest.fixture
def copy(source, tmp_path):
    """Copy a tiny model and change its config.json: copy("mixtral", hidden_act="gelu")."""

    def make(name, **changes):
        folder = shutil.copytree(source(name), tmp_path / "model")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))
        return folder

    return make


def refused(kind, folder, match, **options):
    out = folder.parent / "out"
    out.mkdir(exist_ok=True)
    with pytest.raises(kind, match=match) as caught:
        export_gguf(folder, out / "m.gguf", **{"pre": PRE, **options})
    assert list(out.iterdir()) == []
    assert caught.value.hint
    return caught.value


YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}
YARN |= {"original_max_position_embeddings": 256}


@pytest.mark.parametrize(
    ("name", "changes", "match"),
    [
        ("qwen3_moe", {"norm_topk_prob": False}, "qwen3moe always normalises"),
        ("qwen2_moe", {"norm_topk_prob": True}, "qwen2moe never normalises"),
        ("olmoe", {"norm_topk_prob": True}, "olmoe never normalises"),
        ("qwen3_moe", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ("qwen3_moe", {"num_experts": 2000}, "num_experts is 2000"),
        ("qwen2_moe", {"num_attention_heads": 6}, "48, and llama.cpp's qwen2moe needs hidden_size"),
        ("qwen2", {"head_dim": 16}, "64, and llama.cpp's qwen2 needs hidden_size, 32"),
        ("qwen2_moe", {"shared_expert_intermediate_size": 0}, "no shared expert"),
        ("olmoe", {"num_key_value_heads": 2}, "olmoe needs a k_norm of hidden_size, 32"),
        ("olmoe", {"clip_qkv": 8.0}, "clip_qkv is 8.0"),
        ("mixtral", {"sliding_window": 64}, "sliding_window is 64"),
        ("qwen2", {"sliding_window": 64, "use_sliding_window": True}, "sliding_window is 64"),
        ("qwen3", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "'dynamic'"),
        ("qwen3", {"rope_parameters": {"rope_type": "llama3", "factor": 2.0}}, "'llama3'"),
        ("qwen3", {"rope_parameters": {**YARN, "beta_fast": 16}}, "beta_fast 16"),
        ("qwen3", {"rope_parameters": {**YARN, "truncate": False}}, "truncate false"),
        ("qwen3", {"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        ("qwen3", {"quantization_config": {"quant_method": "fp8"}}, "is quantised"),
        ("qwen3", {"model_type": "gemma3"}, "not a family that veche knows"),
    ],
    ids=str,
)
def test_a_model_that_llama_cpp_cannot_hold(copy, name, changes, match):
    refused(InputError, copy(name, **changes), match)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"mlp_only_layers": [1]}, "1 of its 3 layers are dense"),
        ({"decoder_sparse_step": 2}, "2 of its 3 layers are dense"),
        ({"num_hidden_layers": 513}, "num_hidden_layers is 513, and llama.cpp holds 512"),
    ],
    ids=str,
)
def test_layers_that_llama_cpp_cannot_hold(tmp_path, changes, match):
    tiny = {"hidden_size": 8, "head_dim": 2, "moe_intermediate_size": 2, "num_experts": 4}
    folder = write_model("qwen3_moe", tmp_path / "model", **tiny, **changes)
    refused(UnsupportedError, folder, match)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("mixtral", {"sliding_window": 512}),
        ("qwen2", {"sliding_window": 64, "use_sliding_window": False}),
        ("qwen3", {"rope_parameters": {**YARN, "beta_fast": 32, "beta_slow": None}}),
    ],
    ids=str,
)
def test_what_only_looks_like_it_is_exported(copy, tmp_path, name, changes):
    export_gguf(copy(name, **changes), tmp_path / "m.gguf", pre=PRE)


class TestTensors:
    def _change(self, folder, change):
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    def test_one_that_llama_cpp_has_no_place_for(self, copy):
        def add(tensors):
            tensors["model.layers.0.mlp.up_proj.bias"] = tensors["model.norm.weight"].clone()

        refused(UnsupportedError, self._change(copy("llama"), add), r"mlp\.up_proj\.bias")

    def test_a_bias_of_the_output_projection(self, copy):
        def add(tensors):
            bias = tensors["model.norm.weight"].clone()
            tensors["model.layers.0.self_attn.o_proj.bias"] = bias

        refused(UnsupportedError, self._change(copy("qwen3_moe"), add), r"o_proj\.bias")

    def test_old_tables_of_frequencies_are_left_out(self, copy, exported, tmp_path):
        def add(tensors):
            table = tensors["model.norm.weight"][:4].clone()
            tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = table

        folder = self._change(copy("llama"), add)
        export_gguf(folder, tmp_path / "m.gguf", pre=PRE)
        ours, theirs = (tmp_path / "m.gguf").read_bytes(), exported("llama", "bf16")[0].read_bytes()
        assert len(ours) == len(theirs)

    @pytest.mark.parametrize("name", ["qwen2_moe", "llama"])
    def test_an_output_that_is_neither_there_nor_tied(self, copy, name):
        folder = self._change(copy(name), lambda tensors: tensors.pop("lm_head.weight"))
        refused(CheckpointError, folder, "has no tensor 'lm_head.weight'")

    @pytest.mark.parametrize("name", ["qwen2_moe", "llama"])
    def test_one_that_every_file_needs_is_missing(self, copy, name):
        folder = self._change(copy(name), lambda tensors: tensors.pop("model.norm.weight"))
        refused(CheckpointError, folder, "has no tensor 'model.norm.weight'")

    def test_an_expert_that_is_missing(self, copy):
        key = "model.layers.1.mlp.experts.5.up_proj.weight"
        folder = self._change(copy("qwen3_moe"), lambda tensors: tensors.pop(key))
        refused(CheckpointError, folder, r"has no tensor .*experts\.5\.up_proj")

    def test_a_shape_that_config_json_does_not_say(self, copy):
        refused(CheckpointError, copy("llama", intermediate_size=40), r"ffn_\w+\.weight is \[")

    @pytest.mark.parametrize(
        ("value", "type_name", "kind", "match"),
        [
            (float("nan"), "q8_0", CheckpointError, "NaN or infinity"),
            (float("inf"), "bf16", CheckpointError, "NaN or infinity"),
            (1e6, "f16", UnsupportedError, "holds 1e\\+06, and float16 ends"),
        ],
    )
    def test_a_value_that_the_type_cannot_hold(self, copy, value, type_name, kind, match):
        def spoil(tensors):
            tensors["model.layers.2.self_attn.v_proj.weight"][3, 5] = value

        refused(kind, self._change(copy("llama"), spoil), match, type_name=type_name)


class TestTheCommand:
    def test_a_type_that_does_not_exist(self, copy):
        error = refused(InputError, copy("llama"), "no type 'q4_k'", type_name="q4_k")
        assert "did you mean 'q4_k_" in error.hint

    def test_a_type_of_llama_quantize_without_it(self, copy, monkeypatch):
        monkeypatch.setenv("PATH", "/nowhere")
        error = refused(UnsupportedError, copy("llama"), "llama-quantize", type_name="q4_k_m")
        assert "--type bf16" in error.hint
        assert "Q4_K_M" in error.hint

    def test_a_tool_that_fails_is_quoted(self, copy, tmp_path, monkeypatch):
        tool = tmp_path / "bin" / "llama-quantize"
        tool.parent.mkdir()
        tool.write_text('#!/bin/sh\necho some > "$2"\necho out of luck >&2\nexit 3\n')
        tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
        refused(FailureError, copy("llama"), "code 3: out of luck", type_name="q4_k_m")

    def test_a_target_that_exists(self, copy, tmp_path):
        file = tmp_path / "m.gguf"
        file.write_text("mine")
        with pytest.raises(OutputError, match="overwrites nothing"):
            export_gguf(copy("llama"), file, pre=PRE)
        assert file.read_text() == "mine"
        with pytest.raises(OutputError, match="is a folder"):
            export_gguf(tmp_path / "model", tmp_path, pre=PRE)

    @pytest.mark.parametrize("when", ["_write_header", "check_file", "encoded"])
    def test_an_interruption_leaves_nothing(self, copy, tmp_path, monkeypatch, when):
        def interrupt(*arguments, **options):
            raise KeyboardInterrupt

        monkeypatch.setattr(export_module, when, interrupt)
        with pytest.raises(KeyboardInterrupt):
            export_gguf(copy("llama"), tmp_path / "out" / "m.gguf", pre=PRE)
        assert list((tmp_path / "out").iterdir()) == []

    def test_what_a_killed_export_left_is_replaced(self, copy, tmp_path, exported):
        left = tmp_path / "m.gguf.partial"
        left.write_bytes(bytes(10_000_000))
        export_gguf(copy("llama"), tmp_path / "m.gguf", pre=PRE)
        assert not left.exists()
        assert (tmp_path / "m.gguf").stat().st_size < 1_000_000


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(CheckpointError, match="is not a folder"):
        export_gguf(tmp_path / "nothing", tmp_path / "m.gguf")
