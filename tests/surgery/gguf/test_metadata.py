"""What a file says of its model, as the gguf package reads it."""

import json
import shutil

import gguf
import pytest
from tests.surgery.gguf.models import MODELS, PRE, VARIANTS

from veche.checkpoint.config import read_config, spec_of
from veche.core.errors import CheckpointError
from veche.surgery.gguf.export import export_gguf


def metadata(file):
    return {key: field.contents() for key, field in gguf.GGUFReader(file).fields.items()}


@pytest.mark.parametrize("name", [*MODELS, *VARIANTS])
def test_shape_heads_positions_and_experts_are_those_of_config_json(source, exported, name):
    spec = spec_of(read_config(source(name)))
    found = metadata(exported(name, "bf16")[0])
    arch = found["general.architecture"]
    wanted = {
        "vocab_size": spec.vocab_size,
        "embedding_length": spec.hidden_size,
        "block_count": spec.num_hidden_layers,
        "attention.head_count": spec.num_attention_heads,
        "attention.head_count_kv": spec.num_key_value_heads,
        "attention.key_length": spec.head_dim,
        "attention.value_length": spec.head_dim,
        "rope.dimension_count": spec.head_dim,
        "rope.freq_base": spec.rope.rope_theta,
        "expert_count": spec.num_experts or None,
        "expert_used_count": spec.num_experts_per_tok or None,
        "expert_shared_feed_forward_length": spec.shared_expert_intermediate_size,
    }
    assert {key: found.get(f"{arch}.{key}") for key in wanted} == wanted
    assert found[f"{arch}.attention.layer_norm_rms_epsilon"] == pytest.approx(spec.rms_norm_eps)
    width = found.get(f"{arch}.expert_feed_forward_length", found[f"{arch}.feed_forward_length"])
    assert width == (spec.moe_intermediate_size or spec.intermediate_size)
    assert len(found["tokenizer.ggml.tokens"]) == spec.vocab_size
    assert found["tokenizer.ggml.bos_token_id"] == 1


def test_yarn_has_its_factor_length_and_reach(exported):
    found = metadata(exported("qwen3_moe-yarn", "bf16")[0])
    assert found["qwen3moe.rope.scaling.type"] == "yarn"
    assert found["qwen3moe.rope.scaling.factor"] == 4.0
    assert found["qwen3moe.rope.scaling.original_context_length"] == 32
    assert found["qwen3moe.context_length"] == 128
    assert "qwen3moe.rope.scaling.attn_factor" not in found


@pytest.mark.parametrize("name", ["llama-rope3", "llama-linear-tied", "mixtral"])
def test_other_positions_reach_what_config_json_says(exported, name):
    assert metadata(exported(name, "bf16")[0])["llama.context_length"] == 512


@pytest.mark.parametrize("type_name", ["f32", "f16", "bf16", "q8_0"])
def test_the_file_type_is_llama_cpps(exported, type_name):
    found = metadata(exported("olmoe", type_name)[0])
    kind = gguf.LlamaFileType(found["general.file_type"]).name
    assert kind.removeprefix("MOSTLY_").removeprefix("ALL_") == type_name.upper()
    assert found["general.quantization_version"] == gguf.GGML_QUANT_VERSION


class TestTheModelCard:
    @pytest.fixture
    def folder(self, source, tmp_path):
        return shutil.copytree(source("mixtral"), tmp_path / "My-Model-8x24K")

    def test_name_licence_base_and_languages(self, folder, tmp_path):
        (folder / "README.md").write_text(
            "---\nlicense: apache-2.0\nbase_model: HuggingFaceTB/SmolLM2-135M\nlanguage: [en, ru]\n"
            "---\n# Text\n"
        )
        export_gguf(folder, tmp_path / "m.gguf", pre=PRE)
        found = metadata(tmp_path / "m.gguf")
        assert found["general.name"] == "My Model 8x24K"
        assert found["general.license"] == "apache-2.0"
        assert found["general.base_model.0.repo_url"].endswith("/HuggingFaceTB/SmolLM2-135M")
        assert found["general.languages"] == ["en", "ru"]

    @pytest.mark.parametrize(
        ("file", "text"),
        [
            ("README.md", "---\nlicense: [unclosed\n---\n"),
            ("README.md", "---\nlicense: {a: 1}\n---\n"),
            ("generation_config.json", json.dumps({"top_k": "many"})),
            ("generation_config.json", "[1]"),
        ],
        ids=str,
    )
    def test_what_cannot_be_read_is_one_error(self, folder, tmp_path, file, text):
        (folder / file).write_text(text)
        with pytest.raises(CheckpointError, match=r"README\.md|model card"):
            export_gguf(folder, tmp_path / "m.gguf", pre=PRE)
        assert list(tmp_path.iterdir()) == [folder]

    def test_no_card_is_no_error(self, folder, tmp_path):
        (folder / "generation_config.json").unlink()
        export_gguf(folder, tmp_path / "m.gguf", pre=PRE)
        assert "general.license" not in metadata(tmp_path / "m.gguf")
