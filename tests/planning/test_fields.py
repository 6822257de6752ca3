"""Every field can be named, in either spelling, and is judged by what its family does with it."""

import json
import re

import pytest

from veche.checkpoint.config import spec_of
from veche.core.errors import RecipeError, UnsupportedError
from veche.planning.bases import load_base
from veche.planning.field_facts import fact_of
from veche.planning.planner import make_plan
from veche.planning.recipe import Recipe, parse_recipe

SCALING = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32768}


def plan_of(base="qwen3-30b-a3b", **fields):
    return make_plan(Recipe(name="t", base=base, fields=fields, allow_lossy=True))


def change_of(plan, name):
    return next(change for change in plan.fields if change.name == name)


@pytest.mark.parametrize(
    ("base", "name", "value", "effect"),
    [
        ("qwen3-30b-a3b", "max_window_layers", 12, "inert"),
        ("qwen3-30b-a3b", "initializer_range", 0.5, "training_only"),
        ("qwen3-30b-a3b", "use_sliding_window", True, "config_only"),
        ("qwen3-30b-a3b", "use_cache", False, "config_only"),
        ("qwen3-30b-a3b", "torch_dtype", "float16", "config_only"),
        ("qwen3-coder-30b-a3b", "use_qk_norm", False, "inert"),
        ("mixtral-8x7b", "router_jitter_noise", 0.1, "training_only"),
        ("olmoe-1b-7b", "clip_qkv", 8.0, "config_only"),
    ],
)
def test_any_field_of_the_family_can_be_planned(base, name, value, effect):
    plan = plan_of(base, **{name: value})
    change = change_of(plan, name)
    assert change.effect == effect
    assert change.target == value
    fact = fact_of(name, plan.base_spec.model_type)
    assert change.read_by == fact.sources
    assert plan.target_config[name] == value


def test_the_two_spellings_of_transformers_mean_the_same():
    old = plan_of(rope_scaling=SCALING, rope_theta=5e6, torch_dtype="float16")
    new = plan_of(rope_parameters={**SCALING, "rope_theta": 5e6}, dtype="float16")
    assert old == new


def test_one_field_in_two_spellings_is_refused():
    with pytest.raises(RecipeError, match="twice"):
        parse_recipe(
            "{name: t, base: b, fields: {dtype: float16, torch_dtype: float16}}", where="test"
        )


def test_an_experts_width_has_two_names_in_a_mixtral():
    assert plan_of("mixtral-8x7b", intermediate_size=16384) == plan_of(
        "mixtral-8x7b", moe_intermediate_size=16384
    )
    with pytest.raises(RecipeError, match="one field"):
        plan_of("mixtral-8x7b", intermediate_size=16384, moe_intermediate_size=16384)


def test_a_field_of_another_family_is_refused_by_name():
    with pytest.raises(RecipeError, match="qwen3_moe model has no such field"):
        plan_of(clip_qkv=8.0)


@pytest.mark.parametrize("value", ["much", [1], {"a": 1}, float("inf")])
def test_a_key_takes_values_like_the_bases(value):
    with pytest.raises(RecipeError):
        plan_of(initializer_range=value)


@pytest.mark.parametrize("base", ["mixtral-8x7b", "qwen3-30b-a3b"])
def test_growing_heads_keeps_their_width(base):
    """head_dim defaults to hidden_size / heads: what was left out must be written now."""
    before = spec_of(load_base(base))
    plan = plan_of(base, num_attention_heads=48)
    assert plan.target_spec.head_dim == before.head_dim == 128
    assert plan.target_config["head_dim"] == 128


def test_a_mixtral_with_yarn_loads_in_transformers():
    """Without head_dim transformers 5.23 cannot compute its frequencies."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = plan_of(
        "mixtral-8x7b", rope_scaling={**SCALING, "original_max_position_embeddings": 16384}
    ).target_config
    small = {**config, "num_hidden_layers": 1, "intermediate_size": 64, "vocab_size": 100}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**small))
    assert model(torch.arange(4)[None]).logits.shape == (1, 4, 100)


def test_a_config_saved_by_transformers_5_is_written_for_4_too():
    """transformers 5 saves num_local_experts, which transformers 4's qwen3_moe does not read."""
    from veche.checkpoint.edit import edited

    config = load_base("qwen3-30b-a3b")
    config["num_local_experts"] = config.pop("num_experts")
    assert edited(config, {"num_experts_per_tok": 4})["num_experts"] == 128


def test_a_rope_scaling_that_says_something_wins_as_in_transformers_5():
    from transformers import AutoConfig

    config = {
        **load_base("qwen3-30b-a3b"),
        "rope_scaling": dict(SCALING),
        "rope_theta": 7e6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 3e6},
    }
    loaded = AutoConfig.for_model(**config).rope_parameters
    rope = spec_of(config).rope
    assert (rope.rope_theta, rope.factor) == (loaded["rope_theta"], loaded["factor"])


def test_the_oldest_spelling_of_a_scaling_is_written_as_the_newest(tmp_path):
    config = load_base("qwen3-30b-a3b")
    config["rope_scaling"] = {**SCALING, "type": SCALING["rope_type"]}
    del config["rope_scaling"]["rope_type"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    made = plan_of(str(tmp_path), rope_theta=5e6).target_config
    assert made["rope_scaling"] == SCALING
    assert made["rope_parameters"] == {**SCALING, "rope_theta": 5e6}


def test_a_quantised_base_is_refused_before_anything_is_written(tmp_path):
    config = {**load_base("qwen3-30b-a3b"), "quantization_config": {"quant_method": "fp8"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedError, match=r"quantised \(fp8\)"):
        plan_of(str(tmp_path), num_experts_per_tok=4)


@pytest.mark.parametrize("model_type", ["llama", "qwen2", "qwen3"])
def test_a_dense_base_is_advised_what_works_for_it(tmp_path, model_type):
    shape = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"num_key_value_heads": 4, "vocab_size": 100, "intermediate_size": 80}
    config = {"model_type": model_type, **shape}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedError) as caught:
        plan_of(str(tmp_path))
    assert f"veche carve {tmp_path}" in caught.value.hint
    advised = dict(re.findall(r"--set (\w+)=(\d+)", caught.value.hint))
    assert plan_of(str(tmp_path), **{k: int(v) for k, v in advised.items()}).conflicts == ()


def test_a_field_can_be_taken_out_of_a_recipe():
    from veche.planning.recipe import load_recipe, with_choices

    agi = load_recipe("agi")
    choices = {"unset": ["intermediate_size", "head_dim"], "rope_length": "extend"}
    less = with_choices(agi, choices)
    assert set(agi.fields) - set(less.fields) == {"intermediate_size", "head_dim"}
    assert make_plan(less).target_spec.intermediate_size == 6144
    with pytest.raises(RecipeError, match="no field 'clip_qkv'"):
        with_choices(agi, {"unset": ["clip_qkv"]})
