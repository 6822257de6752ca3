"""What a plan says of every field, and how it refuses."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veche.checkpoint.config import spec_of
from veche.core.errors import RecipeError, VecheError
from veche.core.language import LANGUAGES
from veche.planning.bases import load_base
from veche.planning.fields import FIELDS
from veche.planning.phrases import PHRASES
from veche.planning.plan import Effect, plan_from_dict
from veche.planning.planner import make_plan
from veche.planning.recipe import Recipe, load_recipe, parse_recipe, shipped_recipes, with_choices

EXPECTED = {
    "num_experts": "unchanged",
    "num_experts_per_tok": "config_only",
    "moe_intermediate_size": "exact",
    "router_aux_loss_coef": "training_only",
    "max_position_embeddings": "conflict",
    "rope_scaling": "conflict",
    "rope_theta": "config_only",
    "num_attention_heads": "exact",
    "num_key_value_heads": "exact",
    "head_dim": "unchanged",
    "attention_dropout": "training_only",
    "hidden_act": "unchanged",
    "intermediate_size": "inert",
    "rms_norm_eps": "unchanged",
    "use_cache": "unchanged",
    "output_router_logits": "training_only",
    "tie_word_embeddings": "unchanged",
    "torch_dtype": "unchanged",
}


def plan_of(base="qwen3-30b-a3b", **fields):
    return make_plan(Recipe(name="test", base=base, fields=fields, allow_lossy=True))


def test_the_request_is_judged_line_by_line():
    plan = make_plan(load_recipe("agi"))
    assert {f.name: f.effect.value for f in plan.fields if f.name in EXPECTED} == EXPECTED
    assert plan.operations == ("attention_heads", "expert_width")


def test_the_demo_mirrors_the_request_ratio_for_ratio():
    demo, agi = (make_plan(load_recipe(name)) for name in ("demo", "agi"))
    for name in ("num_experts_per_tok", "moe_intermediate_size", "num_key_value_heads"):
        ratios = []
        for plan in (demo, agi):
            field = next(f for f in plan.fields if f.name == name)
            ratios.append(field.target / field.base)
        assert ratios[0] == pytest.approx(ratios[1])
    assert demo.operations == ("attention_heads", "expert_width", "expert_gain")


def test_planned_but_not_applied_fields_stay_out_of_the_target():
    plan = make_plan(load_recipe("demo"))
    assert plan.target_spec.rope == plan.base_spec.rope
    assert not any(f.is_applied for f in plan.fields if f.name.startswith("rope"))


@pytest.mark.parametrize(
    ("choice", "length", "factor"),
    [("extend", 196608, 6), ("keep-length", 131072, 4), ("as-written", 131072, 6)],
)
def test_every_resolution_of_the_rope_conflict_resolves_it(choice, length, factor):
    plan = make_plan(with_choices(load_recipe("agi"), {"rope_length": choice}))
    assert plan.conflicts == ()
    assert plan.target_spec.max_position_embeddings == length
    assert plan.target_spec.rope.factor == factor


def test_a_plan_with_a_conflict_cannot_be_built_and_names_the_flags():
    plan = make_plan(load_recipe("agi"))
    with pytest.raises(RecipeError) as caught:
        plan.require_buildable()
    assert "--rope-length extend" in caught.value.hint


def test_lossy_fields_need_consent():
    recipe = Recipe(name="t", base="qwen3-30b-a3b", fields={"num_experts_per_tok": 6})
    conflict = make_plan(recipe).conflicts[0]
    assert conflict.fields == ("num_experts_per_tok",)
    assert conflict.resolutions[0].flag == "--allow-lossy"
    assert not make_plan(with_choices(recipe, {"allow_lossy": True})).conflicts


@pytest.mark.parametrize("name", shipped_recipes())
@pytest.mark.parametrize("language", LANGUAGES)
def test_plans_survive_json(name, language):
    plan = make_plan(load_recipe(name), language=language)
    assert plan_from_dict(json.loads(json.dumps(plan.as_dict()))) == plan


def test_both_rope_spellings_are_written_and_readable_by_transformers():
    from transformers import AutoConfig

    plan = make_plan(with_choices(load_recipe("agi"), {"rope_length": "extend"}))
    config = plan.target_config
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 2e6
    assert config["rope_scaling"]["factor"] == config["rope_parameters"]["factor"] == 6
    loaded = AutoConfig.for_model(**config)
    assert loaded.rope_parameters["factor"] == 6
    assert loaded.rope_parameters["rope_theta"] == 2e6
    assert loaded.rope_parameters["original_max_position_embeddings"] == 32768
    assert spec_of(config).rope == spec_of(loaded.to_dict()).rope


def test_top_k_of_a_carved_model_brings_its_gain_and_of_any_other_does_not():
    assert plan_of("smollm2-135m-carved", num_experts_per_tok=12).operations == ("expert_gain",)
    assert plan_of("mixtral-8x7b", num_experts_per_tok=1).operations == ()


@pytest.mark.parametrize(
    ("base", "fields", "words"),
    [
        ("qwen3-30b-a3b", {"num_attention_heads": 42}, "--set num_attention_heads="),
        ("qwen3-30b-a3b", {"num_attention_head": 40}, "'num_attention_heads'"),
        ("qwen3-30b-a3b", {"moe_intermediate_size": 512}, "shrink"),
        ("qwen3-30b-a3b", {"num_experts_per_tok": 129}, "128 experts"),
        ("qwen3-30b-a3b", {"num_experts_per_tok": "many"}, "positive whole number"),
        ("qwen3-30b-a3b", {"num_experts_per_tok": "x1.3"}, "whole number"),
        ("qwen3-30b-a3b", {"hidden_act": "x2"}, "factor"),
        ("qwen3-30b-a3b", {"rope_scaling": {"rope_type": "yarm"}}, "yarn"),
        ("qwen3-30b-a3b", {"vocab_size": 200000}, "does not have"),
        ("olmoe-1b-7b", {"num_attention_heads": 32}, "together"),
        ("qwen3-30b", {}, "'qwen3-30b-a3b'"),
    ],
)
def test_bad_wishes_get_one_error_that_says_what_to_do(base, fields, words):
    text = json.dumps({"name": "t", "base": base, "fields": fields})
    with pytest.raises(VecheError) as caught:
        make_plan(parse_recipe(text, where="test"))
    assert words in caught.value.message + caught.value.hint


def test_a_misspelt_key_is_answered_with_the_nearest():
    with pytest.raises(RecipeError, match="did you mean 'allow_lossy'"):
        parse_recipe("{name: t, base: b, allow_losy: true}", where="test")


BOMB = "\n".join(["a0: &a0 [x, x, x, x, x, x, x, x]"] + [
    f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}]"
    for n in range(1, 12)
])  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [BOMB, "a: &a [*a]", "{name: t, base: b, fields: {num_experts: " + "[" * 60 + "]" * 60 + "}}"],
    ids=["billion laughs", "a list within itself", "sixty deep"],
)
def test_a_text_that_explodes_is_refused_at_once(text):
    with pytest.raises(RecipeError, match="too large"):
        parse_recipe(text, where="test")


def test_heads_that_are_planned_but_not_applied_are_not_judged_together():
    wish = {"value": 6, "apply": False}
    assert plan_of(num_key_value_heads=wish).target_spec.num_key_value_heads == 4


def test_every_phrase_has_the_same_placeholders_in_every_language():
    import string

    for key, phrase in PHRASES.items():
        slots = [
            {field for _, field, _, _ in string.Formatter().parse(phrase[language]) if field}
            for language in LANGUAGES
        ]
        assert slots[0] == slots[1], key


def test_every_field_of_every_base_is_judged():
    for name in ("qwen3-30b-a3b", "mixtral-8x7b", "olmoe-1b-7b", "smollm2-135m-carved"):
        plan = plan_of(name)
        assert [f.name for f in plan.fields] == list(FIELDS)
        assert {f.effect for f in plan.fields} == {Effect.UNCHANGED}
        assert plan.target_config == load_base(name)


YAML_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from(["x2", "x1.5", "x0", "x1e999", "x-1", "yarn"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["rope_type", "factor", "value", "apply", "zzz"]), inner, max_size=3
    ),
    max_leaves=5,
)  # fmt: skip


@given(
    fields=st.dictionaries(st.sampled_from([*FIELDS, "nonsense"]), YAML_VALUES, max_size=4),
    base=st.sampled_from(["qwen3-30b-a3b", "mixtral-8x7b", "smollm2-135m-carved"]),
    lossy=st.booleans() | st.integers(),
)
def test_any_recipe_plans_or_gives_one_clear_error(fields, base, lossy):
    text = json.dumps({"name": "t", "base": base, "fields": fields, "allow_lossy": lossy})
    try:
        plan = make_plan(parse_recipe(text, where="test"))
    except VecheError:
        return
    assert plan_from_dict(json.loads(json.dumps(plan.as_dict()))) == plan
