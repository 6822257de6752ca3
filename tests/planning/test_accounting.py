"""Parameters and costs against transformers' own models on the meta device."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from veche.checkpoint.config import spec_of
from veche.planning.accounting import (
    active_parameters,
    costs_of,
    flops_per_token,
    parameter_groups,
)
from veche.planning.bases import load_base, shipped_bases
from veche.planning.kv_cache import kv_bytes_per_token
from veche.planning.planner import make_plan
from veche.planning.recipe import load_recipe

SHAPE = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 24,
    "vocab_size": 100,
    "intermediate_size": 80,
}
SMALL = {
    "llama": {},
    "qwen2": {"head_dim": 16},
    "qwen3": {},
    "qwen2_moe": {
        "head_dim": 16,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 48,
        "mlp_only_layers": [1],
    },
    "qwen3_moe": {
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "decoder_sparse_step": 2,
    },
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "olmoe": {"head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2},
}


def meta_model(config):
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("model_type", SMALL)
def test_parameters_equal_those_of_transformers(model_type, tied):
    config = {"model_type": model_type, **SHAPE, **SMALL[model_type], "tie_word_embeddings": tied}
    model = meta_model(config)
    assert parameter_groups(spec_of(config)).total == model.num_parameters()


@pytest.mark.parametrize("name", shipped_bases())
def test_shipped_bases_load_in_transformers_and_agree(name):
    config = load_base(name)
    assert costs_of(spec_of(config)).parameters == meta_model(config).num_parameters()


def test_figures_of_the_wanted_variant():
    """Against the figures that were worked out by hand for the request."""
    plan = make_plan(load_recipe("agi"))
    assert plan.before.parameters == 30_532_122_624
    assert plan.after.parameters == 40_699_115_520
    assert plan.after.weight_bytes == 81_398_231_040
    assert (plan.before.kv_bytes_per_token, plan.after.kv_bytes_per_token) == (98_304, 196_608)
    assert plan.after.active_parameters == pytest.approx(5.36e9, rel=1e-3)


def test_active_parameters_fall_by_the_idle_experts_alone():
    spec = spec_of(load_base("qwen3-30b-a3b"))
    one_expert = 3 * 2048 * 768 * 48
    fewer = replace(spec, num_experts_per_tok=7)
    assert active_parameters(spec) - active_parameters(fewer) == one_expert


def test_flops_are_two_a_parameter_plus_attention():
    spec = spec_of(load_base("qwen3-30b-a3b"))
    at_zero, at_thousand = flops_per_token(spec, 0), flops_per_token(spec, 1000)
    assert at_zero == 2 * active_parameters(spec)
    assert at_thousand - at_zero == 2 * 2 * 1000 * 32 * 128 * 48


def test_kv_cache_is_that_of_a_real_cache(tmp_path):
    from tiny_models import tiny_qwen3_moe

    folder = tiny_qwen3_moe(tmp_path / "m")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    cache = model(input_ids=torch.arange(10)[None], use_cache=True).past_key_values
    held = sum(layer.keys.numel() * 4 + layer.values.numel() * 4 for layer in cache.layers)
    spec = spec_of(model.config.to_dict())
    assert held == 10 * kv_bytes_per_token(spec, "float32")
