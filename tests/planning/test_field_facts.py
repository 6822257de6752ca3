"""The facts about fields, against transformers itself: its configs, its source and its models."""

import dataclasses
import re
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM

from veche.checkpoint.families import FAMILIES
from veche.core.language import LANGUAGES
from veche.planning.bases import load_base, shipped_bases
from veche.planning.field_facts import (
    FactEffect,
    FieldFact,
    FieldReader,
    fact_of,
    facts_for,
    is_within,
)
from veche.planning.field_page import fields_page

ROOT = Path(__file__).parents[2]
SOURCE = Path(transformers.__file__).parent
INSTALLED = transformers.__version__
OPENED = ("4.51.3", "4.57.1", "5.0.0", "5.23.0")

# What transformers 4.57.1 has in PretrainedConfig and in the families' own __init__, beside what
# version 5 has.
KEYS_OF_4 = {
    "torchscript", "pruned_heads", "is_decoder", "cross_attention_hidden_size",
    "add_cross_attention", "tie_encoder_decoder", "finetuning_task", "num_labels",
    "task_specific_params", "tokenizer_class", "prefix", "sep_token_id", "decoder_start_token_id",
    "tf_legacy_loss", "use_bfloat16", "torch_dtype", "rope_theta", "rope_scaling", "max_length",
    "min_length", "do_sample", "early_stopping", "num_beams", "temperature", "top_k", "top_p",
    "typical_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences", "output_scores",
    "return_dict_in_generate", "forced_bos_token_id", "forced_eos_token_id",
    "remove_invalid_values", "exponential_decay_length_penalty", "suppress_tokens",
    "begin_suppress_tokens", "num_beam_groups", "diversity_penalty",
}  # fmt: skip

# --- coverage -------------------------------------------------------------------------------------


def keys_of_5(model_type: str) -> set[str]:
    config = AutoConfig.for_model(model_type)
    return {*config.to_dict(), *(field.name for field in dataclasses.fields(config))}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_every_key_of_a_config_has_a_fact(model_type):
    keys = keys_of_5(model_type) | KEYS_OF_4
    assert {key for key in keys if fact_of(key, model_type) is None} == set()


@pytest.mark.parametrize("base", shipped_bases())
def test_every_key_of_a_shipped_base_has_a_fact(base):
    config = load_base(base)
    assert {key for key in config if fact_of(key, config["model_type"]) is None} == set()


def test_no_fact_is_about_a_field_that_does_not_exist():
    keys = KEYS_OF_4.union(*map(keys_of_5, FAMILIES), *map(load_base, shipped_bases()))
    assert {fact.field for family in FAMILIES for fact in facts_for(family)} - keys == set()


@pytest.mark.parametrize("model_type", FAMILIES)
def test_one_fact_holds_for_a_field_in_each_version(model_type):
    facts = facts_for(model_type)
    for field in {fact.field for fact in facts}:
        for version in OPENED:
            holding = [f for f in facts if f.field == field and f.holds_in(version)]
            assert len(holding) == 1, (field, version)
            assert fact_of(field, model_type, version=version) == holding[0]
        assert fact_of(field, model_type) == fact_of(field, model_type, version=OPENED[-1])


def test_an_unknown_field_has_no_fact():
    assert fact_of("num_expert", "qwen3_moe") is None
    assert fact_of("num_experts", "gpt2") is None


def test_versions_are_compared_as_numbers():
    assert is_within("4.57.1", ">=4.9,<5.0")
    assert is_within("5.0", ">=5.0.0")
    assert is_within("5.0.0", ">=5")
    assert not is_within("5.0.0", "<5")
    assert not is_within("4.57.1", ">=5.0")


# --- what the table says --------------------------------------------------------------------------

FACTS = [fact for family in FAMILIES for fact in facts_for(family)]


def test_every_reason_is_in_both_languages():
    for fact in FACTS:
        for words in filter(None, (fact.reasons, fact.conditions)):
            assert set(words) == set(LANGUAGES), fact.field
            assert all(text.strip() for text in words.values()), fact.field
            assert re.search("[а-яё]", words["ru"]), fact.field
            assert not re.search("[а-яё]", words["en"]), fact.field


def test_effects_are_known_and_only_config_changes_are_lossy():
    for fact in FACTS:
        assert fact.effect in get_args(FactEffect)
        assert not fact.is_lossy or fact.effect == "config_only"


def test_readers_have_a_line_and_its_code():
    for reader in {reader for fact in FACTS for reader in fact.readers}:
        assert reader.engine in {"transformers", "vllm", "sglang", "llama.cpp"}
        assert re.fullmatch(r"[\w./-]+:\d+", reader.where)
        assert reader.code
        assert len(reader.code) <= 100


READERS = sorted(
    {
        reader
        for fact in FACTS
        for reader in fact.readers
        if reader.engine == "transformers" and is_within(INSTALLED, reader.versions)
    },
    key=lambda reader: (reader.where, reader.code),
)


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.where.split("/")[-1])
def test_the_code_of_a_reader_is_in_the_installed_transformers(reader: FieldReader):
    path, line = reader.where.removeprefix("src/transformers/").split(":")
    lines = (SOURCE / path).read_text(encoding="utf-8").splitlines()
    assert any(reader.code in text for text in lines)
    if reader.at == INSTALLED:
        assert reader.code in lines[int(line) - 1]


def test_the_committed_page_is_what_the_generator_prints():
    page = (ROOT / "docs/reference/fields.md").read_text(encoding="utf-8")
    assert page == fields_page(), "python -m veche.planning.field_page > docs/reference/fields.md"


# --- real models: what a field does is what happens when it is changed ----------------------------

SHAPE: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 512,
    "initializer_range": 0.35,  # wide, so that attention and routing depend on the context
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
OF_FAMILY: dict[str, dict[str, Any]] = {
    "qwen3_moe": {"moe_intermediate_size": 24, "num_experts": 8, "head_dim": 8},
    "qwen2_moe": {"moe_intermediate_size": 24, "num_experts": 8, "max_window_layers": 3}
    | {"shared_expert_intermediate_size": 24},
    "mixtral": {"num_local_experts": 8, "head_dim": 8, "sliding_window": 512},
    "olmoe": {"num_experts": 8},
    "llama": {},
    "qwen2": {"max_window_layers": 0},
    "qwen3": {"max_window_layers": 0, "head_dim": 8},
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}

# Another legal value of every field.
OTHER: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 8,
    "num_key_value_heads": 4, "head_dim": 16, "intermediate_size": 40, "moe_intermediate_size": 40,
    "shared_expert_intermediate_size": 40, "num_experts": 4, "num_local_experts": 4,
    "num_experts_per_tok": 2, "norm_topk_prob": True, "router_aux_loss_coef": 0.5,
    "output_router_logits": True, "router_jitter_noise": 0.3, "attention_dropout": 0.5,
    "initializer_range": 0.02, "decoder_sparse_step": 2, "mlp_only_layers": [0],
    "attention_bias": True, "qkv_bias": False, "mlp_bias": True, "pretraining_tp": 2,
    "tie_word_embeddings": True, "hidden_act": "gelu", "rms_norm_eps": 0.1, "clip_qkv": 0.05,
    "max_position_embeddings": 256, "rope_theta": 100.0, "rope_scaling": YARN,
    "rope_parameters": {"rope_theta": 10_000.0, **YARN}, "sliding_window": 4,
    "use_sliding_window": True, "max_window_layers": 1, "use_cache": False, "dtype": "bfloat16",
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "torch_dtype": "bfloat16", "architectures": ["Council"], "eos_token_id": 5, "bos_token_id": 6,
    "pad_token_id": 7, "is_encoder_decoder": True, "output_attentions": True,
    "output_hidden_states": True, "return_dict": False, "transformers_version": "4.0.0",
    "_name_or_path": "elsewhere", "id2label": {"0": "a", "1": "b", "2": "c"},
    "label2id": {"a": 0, "b": 1}, "num_labels": 5, "problem_type": "regression",
    "chunk_size_feed_forward": 2, "pruned_heads": {"0": [1]}, "tokenizer_class": "T5Tokenizer",
    "finetuning_task": "sst2", "task_specific_params": {"a": {}}, "prefix": "veche",
    "cross_attention_hidden_size": 8, "sep_token_id": 3, "decoder_start_token_id": 4,
    "max_length": 3, "min_length": 2, "num_beams": 2, "temperature": 0.3, "top_k": 3, "top_p": 0.3,
    "typical_p": 0.3, "repetition_penalty": 1.3, "length_penalty": 0.3, "no_repeat_ngram_size": 2,
    "encoder_no_repeat_ngram_size": 2, "bad_words_ids": [[3]], "num_return_sequences": 2,
    "forced_bos_token_id": 3, "forced_eos_token_id": 3, "suppress_tokens": [3],
    "exponential_decay_length_penalty": [1, 1.5], "begin_suppress_tokens": [3],
    "num_beam_groups": 2, "diversity_penalty": 0.3, "veche": {"carved": {}},
}  # fmt: skip
FLAGS = {
    "torchscript", "is_decoder", "add_cross_attention", "tie_encoder_decoder", "tf_legacy_loss",
    "use_bfloat16", "use_qk_norm", "do_sample", "early_stopping", "output_scores",
    "return_dict_in_generate", "remove_invalid_values",
}  # fmt: skip

# What must stand beside a field for it to count.
BESIDE: dict[str, dict[str, Any]] = {
    "router_aux_loss_coef": {"output_router_logits": True},
    "sliding_window": {"use_sliding_window": True, "sliding_window": 512},
    "use_sliding_window": {"sliding_window": 4},
    "max_window_layers": {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 3},
    "layer_types": {"use_sliding_window": True, "sliding_window": 4}
    | {"layer_types": ["full_attention"] * 3},
}
OTHER_NAME = {("qwen3_moe", "num_local_experts"): "num_experts"}
TOKENS_BT = torch.arange(1, 49).reshape(2, 24) % 61 + 1


def config_of(model_type: str, field: str = "", *, is_changed: bool = False) -> Any:
    """Return a tiny config in which `field` counts, with its old or its other value."""
    values = {**SHAPE, **OF_FAMILY[model_type], **BESIDE.get(field, {})}
    if FAMILIES[model_type].is_moe:
        values["num_experts_per_tok"] = 3
    if is_changed and field == "model_type":
        return AutoConfig.for_model("qwen3" if model_type == "llama" else "llama", **values)
    if is_changed:
        values[field] = True if field in FLAGS else OTHER[field]
        values.pop(OTHER_NAME.get((model_type, field), ""), None)
    return AutoConfig.for_model(model_type, **values)


def shapes_of(config: Any) -> dict[str, torch.Size]:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return {name: parameter.shape for name, parameter in model.named_parameters()}


@cache
def weights_of(model_type: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config_of(model_type)).state_dict()


def model_of(model_type: str, field: str, *, is_changed: bool) -> Any:
    """Return the model with the same weights whatever the config says."""
    config = config_of(model_type, field, is_changed=is_changed)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    model.load_state_dict(weights_of(model_type))
    return model.eval()


def logits_of(model: Any) -> torch.Tensor:
    with torch.no_grad():
        if model.config.return_dict:
            return model(TOKENS_BT).logits
        return model.lm_head(model.model(TOKENS_BT)[0])


@cache
def base_logits_of(model_type: str, field: str) -> torch.Tensor:
    return logits_of(model_of(model_type, field, is_changed=False))


def training_loss_of(model: Any) -> torch.Tensor:
    torch.manual_seed(0)
    with torch.no_grad():
        return model.train()(TOKENS_BT, labels=TOKENS_BT).loss


def held_by(*, effects: set[str], is_lossy: bool = False) -> Any:
    """Parametrise a test by the facts that hold in the installed version."""
    facts = [
        fact
        for fact in FACTS
        if fact.holds_in(INSTALLED) and fact.effect in effects and fact.is_lossy == is_lossy
    ]
    ids = [f"{fact.model_type}-{fact.field}" for fact in facts]
    return pytest.mark.parametrize("fact", facts, ids=ids)


@held_by(effects={"inert", "training_only", "config_only"})
def test_logits_stay_bit_for_bit(fact: FieldFact):
    model = model_of(fact.model_type, fact.field, is_changed=True)
    base = base_logits_of(fact.model_type, fact.field if fact.field in BESIDE else "")
    assert torch.equal(logits_of(model), base)


@held_by(effects={"config_only"}, is_lossy=True)
def test_logits_differ(fact: FieldFact):
    model = model_of(fact.model_type, fact.field, is_changed=True)
    base = base_logits_of(fact.model_type, fact.field if fact.field in BESIDE else "")
    assert not torch.equal(logits_of(model).float(), base)


@held_by(effects={"exact", "needs_weights"})
def test_tensors_differ(fact: FieldFact):
    before, after = (
        shapes_of(config_of(fact.model_type, fact.field, is_changed=is_changed))
        for is_changed in (False, True)
    )
    assert before != after


@held_by(effects={"training_only"})
def test_training_differs(fact: FieldFact):
    if fact.field == "initializer_range":
        wide, narrow = (
            AutoModelForCausalLM.from_config(config_of(fact.model_type, fact.field, is_changed=c))
            for c in (False, True)
        )
        assert narrow.lm_head.weight.std() < wide.lm_head.weight.std() / 10
        return
    base, changed = (
        model_of(fact.model_type, fact.field, is_changed=is_changed) for is_changed in (False, True)
    )
    assert training_loss_of(base) != training_loss_of(changed)


@pytest.mark.parametrize("model_type", ["qwen3_moe", "qwen2_moe"])
@pytest.mark.parametrize("dense", [{"decoder_sparse_step": 2}, {"mlp_only_layers": [0]}])
def test_the_dense_width_counts_where_a_layer_is_dense(model_type, dense):
    values = {**SHAPE, **OF_FAMILY[model_type], **dense}
    before, after = (
        shapes_of(AutoConfig.for_model(model_type, **{**values, "intermediate_size": width}))
        for width in (24, 40)
    )
    assert before != after


@pytest.mark.parametrize("model_type", FAMILIES)
def test_rope_scaling_wins_over_rope_parameters(model_type):
    config = AutoConfig.for_model(
        model_type, rope_scaling=dict(YARN), rope_parameters={"rope_type": "default"}
    )
    assert config.rope_parameters["rope_type"] == "yarn"


@pytest.mark.parametrize("model_type", FAMILIES)
def test_rope_parameters_win_over_rope_theta(model_type):
    parameters = {"rope_type": "default", "rope_theta": 5.0}
    config = AutoConfig.for_model(model_type, rope_parameters=parameters, rope_theta=7.0)
    assert config.rope_parameters["rope_theta"] == 5.0


@pytest.mark.parametrize("model_type", FAMILIES)
def test_max_position_embeddings_counts_where_yarn_has_no_original_length(model_type):
    yarn = {"rope_type": "yarn", "factor": 4.0}
    first, second = (
        AutoModelForCausalLM.from_config(
            AutoConfig.for_model(
                model_type,
                **{**SHAPE, **OF_FAMILY[model_type], "max_position_embeddings": length},
                rope_scaling=dict(yarn),
            )
        ).model.rotary_emb.inv_freq
        for length in (32, 4096)
    )
    assert not torch.equal(first, second)
