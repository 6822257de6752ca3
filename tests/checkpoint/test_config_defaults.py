"""What a config.json leaves out: as the config classes of transformers read it."""

import json

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModelForCausalLM

from veche.checkpoint.config import spec_of
from veche.checkpoint.edit import edited
from veche.checkpoint.families import FAMILIES, family_of
from veche.core.errors import ConfigError, VecheError

every_family = pytest.mark.parametrize("model_type", FAMILIES)
BARE = {
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 32,
    "vocab_size": 32,
    "intermediate_size": 48,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MOE = {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2}


def bare(model_type, **changes):
    """The shortest config.json of a family: nothing that has a default."""
    config = {"model_type": model_type, **BARE}
    if family_of(model_type).is_moe:
        config |= MOE
        config[family_of(model_type).expert_count_key] = config.pop("num_experts")
    return {**config, **changes}


def class_of(config):
    """What transformers makes of a config.json."""
    rest = {key: value for key, value in config.items() if key != "model_type"}
    return AutoConfig.for_model(config["model_type"], **rest)


@every_family
def test_a_key_that_is_missing_means_what_the_class_says(model_type):
    ours, theirs = spec_of(bare(model_type)), class_of(bare(model_type))
    assert ours.num_key_value_heads == theirs.num_key_value_heads
    assert ours.max_position_embeddings == theirs.max_position_embeddings
    assert ours.rope.rope_theta == theirs.rope_parameters["rope_theta"]
    assert ours.rope.rope_type == theirs.rope_parameters["rope_type"]
    assert ours.rms_norm_eps == theirs.rms_norm_eps
    assert ours.tie_word_embeddings == theirs.tie_word_embeddings
    assert ours.hidden_act == theirs.hidden_act
    assert ours.attention_dropout == theirs.attention_dropout
    assert ours.use_cache == theirs.use_cache
    shared = getattr(theirs, "shared_expert_intermediate_size", None)
    assert ours.shared_expert_intermediate_size == shared
    assert ours.decoder_sparse_step == getattr(theirs, "decoder_sparse_step", 1)


def shapes(config):
    """Every tensor of layer 0's attention, by what transformers builds."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(class_of(config))
    attention = model.model.layers[0].self_attn
    return {name: tuple(weight.shape) for name, weight in attention.named_parameters()}


def implied(spec):
    found = {"q_proj.weight": (spec.q_size, 64), "k_proj.weight": (spec.kv_size, 64)}
    if spec.has_attention_bias:
        found["k_proj.bias"] = (spec.kv_size,)
    return found


CASES = {
    "bare": {},
    "no bias": {"attention_bias": False, "qkv_bias": False},
    "bias by one key": {"attention_bias": True, "qkv_bias": False},
    "bias by the other": {"attention_bias": False, "qkv_bias": True},
    "one head_dim": {"head_dim": 4},
    "heads are null": {"num_key_value_heads": None},
    "head_dim is null": {"head_dim": None},
}


@every_family
@pytest.mark.parametrize("case", CASES)
def test_the_attention_is_of_the_shape_that_transformers_builds_or_both_refuse(model_type, case):
    config = bare(model_type, **CASES[case])
    try:
        theirs = shapes(config)
    except (TypeError, StrictDataclassError):
        theirs = None
    if theirs is None and (model_type, case) != ("mixtral", "heads are null"):
        # transformers 4 takes that one, as many as there are query heads
        with pytest.raises(ConfigError, match="is null"):
            spec_of(config)
        return
    ours = implied(spec_of(config))
    if theirs is not None:
        assert {name: theirs[name] for name in ours} == ours
        assert ("k_proj.bias" in theirs) == ("k_proj.bias" in ours)


@every_family
def test_a_changed_config_says_outright_what_was_a_default(model_type):
    """More heads must not change what missing keys mean, for any reader."""
    config = bare(model_type)
    spec = spec_of(config)
    grown = edited(config, {"num_attention_heads": 64})
    assert grown["head_dim"] == spec.head_dim
    assert grown["num_key_value_heads"] == spec.num_key_value_heads
    assert spec_of(grown).rope == spec.rope
    scaled = edited(config, {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}})
    assert spec_of(scaled).rope.rope_theta == spec.rope.rope_theta == scaled["rope_theta"]


@pytest.mark.parametrize(
    "changes",
    [
        {"num_experts": "4"},
        {"num_experts": True},
        {"num_experts": 4.0},
        {"num_hidden_layers": True},
        {"num_attention_heads": 0},
        {"decoder_sparse_step": 0},
        {"decoder_sparse_step": -1},
        {"mlp_only_layers": [0.5]},
        {"mlp_only_layers": "0"},
        {"mlp_only_layers": [0] * 5000},
        {"tie_word_embeddings": 1},
        {"rms_norm_eps": "1e-6"},
        {"rms_norm_eps": 0.0},
        {"rms_norm_eps": float("nan")},
        {"rope_theta": float("inf")},
        {"rope_theta": 1e300},
        {"router_aux_loss_coef": float("inf")},
        {"rope_scaling": {"rope_type": "yarn", "factor": 1e308}},
        {"rope_scaling": {"rope_type": "yarn", "factor": float("inf")}},
        {"rope_scaling": {"rope_type": "yarn", "factor": float("nan")}},
        {"rope_scaling": {"rope_type": "yarn", "factor": "4"}},
        {"rope_scaling": [4]},
        {"head_dim": None},
        {"num_key_value_heads": None},
        {"num_local_experts": 8},
        {"hidden_size": 10**40},
        {"hidden_size": 1},
        {"max_position_embeddings": 1e5},
        {"attention_dropout": 2},
    ],
    ids=lambda changes: json.dumps(changes)[:60],
)
def test_what_cannot_be_is_refused_and_named(changes):
    with pytest.raises(VecheError) as caught:
        spec_of(bare("qwen3_moe", **changes))
    named = "head_dim" if changes == {"hidden_size": 1} else next(iter(changes))
    assert named in caught.value.message
    assert caught.value.hint
    assert len(caught.value.message) < 400


def test_a_shared_expert_belongs_to_its_family_alone():
    asked = {"shared_expert_intermediate_size": 24}
    assert spec_of(bare("qwen2_moe", **asked)).shared_expert_intermediate_size == 24
    assert spec_of(bare("qwen3_moe", **asked)).shared_expert_intermediate_size is None
    none = spec_of(bare("qwen2_moe", shared_expert_intermediate_size=0))
    assert none.shared_expert_intermediate_size is None
