"""Every growth that can be planned: its config.json and its costs, against transformers' models."""

import json
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM

from veche.checkpoint.config import spec_of
from veche.checkpoint.layers import dense_rule, layer_sources
from veche.core.errors import RecipeError, UnsupportedError, VecheError
from veche.core.language import LANGUAGES
from veche.planning.depth import copied_layers, deeper, layer_layout
from veche.planning.plan import Effect, plan_from_dict
from veche.planning.planner import make_plan
from veche.planning.recipe import Recipe, parse_recipe
from veche.planning.recipe_template import recipe_template

SHAPE = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 100,
    "intermediate_size": 80,
    "tie_word_embeddings": True,
    "a_key_of_nobody": {"kept": True},
}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
BASES = {
    "llama": {},
    "qwen2": {},
    "qwen3": {"head_dim": 24, "attention_bias": True},
    "qwen2_moe": {**EXPERTS, "shared_expert_intermediate_size": 48, "mlp_only_layers": [1]},
    "qwen3_moe": {**EXPERTS, "head_dim": 24, "decoder_sparse_step": 2},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2},
}
MIXTURES = {"llama": "mixtral", "qwen2": "qwen2_moe", "qwen3": "qwen3_moe"}
COPIES = {"num_experts": 6, "num_experts_per_tok": 2}
GROWTHS = {
    "experts": {"num_experts": 12, "num_experts_per_tok": 6},
    "depth": {"num_hidden_layers": 5},
    "untie": {"tie_word_embeddings": False},
    "attention_heads": {"num_attention_heads": 8, "num_key_value_heads": 4},
    "expert_width": {"moe_intermediate_size": "x3/2"},
    "shared_expert_width": {"shared_expert_intermediate_size": 72},
    "dense_width": {"intermediate_size": 96},
}
ABSENT = {
    "shared_expert_width": {"qwen3_moe", "mixtral", "olmoe"},
    "dense_width": {"mixtral", "olmoe"},
    "attention_heads": {"olmoe"},
}
PAIRS = [
    (model_type, operation)
    for model_type in BASES
    if model_type not in MIXTURES
    for operation in GROWTHS
    if model_type not in ABSENT.get(operation, ())
]


@pytest.fixture
def base_of(tmp_path):
    """Return a function that writes a config.json of a family, and returns its folder."""

    def write(model_type, **changes):
        config = {"model_type": model_type, **SHAPE, **BASES[model_type], **changes}
        (tmp_path / "config.json").write_text(json.dumps(config))
        return str(tmp_path)

    return write


def plan_of(base, *, language="en", mode="zero", allow_lossy=False, **fields):
    recipe = Recipe(name="t", base=base, fields=fields, mode=mode, allow_lossy=allow_lossy)
    return make_plan(recipe, language=language)


def change_of(plan, name):
    return next(change for change in plan.fields if change.name == name)


def meta_model(config):
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))


def require_as_transformers_makes_it(plan):
    model = meta_model(plan.target_config)
    assert plan.after.parameters == model.num_parameters()
    assert plan.before.parameters == meta_model(plan.base_config).num_parameters()
    assert plan.target_config["a_key_of_nobody"] == {"kept": True}
    assert spec_of(model.config.to_dict()).num_sparse_layers == plan.target_spec.num_sparse_layers
    assert plan_from_dict(json.loads(json.dumps(plan.as_dict()))) == plan


# --- mixtures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model_type", "operation"), PAIRS)
def test_each_growth_is_what_transformers_makes_of_its_config(base_of, model_type, operation):
    plan = plan_of(base_of(model_type), **GROWTHS[operation])
    assert plan.operations == (operation,)
    assert plan.conflicts == ()
    for name in GROWTHS[operation]:
        assert change_of(plan, name).effect is Effect.EXACT
        assert not change_of(plan, name).is_lossy
    require_as_transformers_makes_it(plan)


@pytest.mark.parametrize("model_type", [name for name in BASES if name not in MIXTURES])
def test_all_growths_compose(base_of, model_type):
    chosen = [op for op in GROWTHS if model_type not in ABSENT.get(op, ())]
    fields = {name: value for op in chosen for name, value in GROWTHS[op].items()}
    plan = plan_of(base_of(model_type), mode="split", **fields)
    assert plan.operations == tuple(chosen)
    assert plan.lossy_fields == ()
    require_as_transformers_makes_it(plan)


def test_copies_of_experts_with_another_top_k_are_a_lossy_dial(base_of):
    base = base_of("mixtral")
    for top_k in (1, 2, 3, 7):
        change = change_of(
            plan_of(base, num_experts=12, num_experts_per_tok=top_k), "num_experts_per_tok"
        )
        assert (change.is_lossy, change.effect) == (True, Effect.CONFLICT)
    agreed = plan_of(base, num_experts=12, num_experts_per_tok=2, allow_lossy=True)
    assert agreed.conflicts == ()
    assert change_of(agreed, "num_experts_per_tok").effect is Effect.CONFIG_ONLY
    assert change_of(agreed, "num_experts").effect is Effect.EXACT
    assert agreed.target_spec.num_experts_per_tok == 2


def test_copies_of_carved_experts_gain_what_their_number_takes():
    plan = plan_of(
        "smollm2-135m-carved", num_experts="x2", num_experts_per_tok=24, allow_lossy=True
    )
    assert plan.operations == ("experts", "expert_gain")
    gain = plan.steps[-1]
    assert (gain.before.num_experts_per_tok, gain.after.num_experts_per_tok) == (32, 24)
    assert "24/32" in change_of(plan, "num_experts_per_tok").reason
    exact = plan_of("smollm2-135m-carved", num_experts="x2", num_experts_per_tok="x2")
    assert exact.operations == ("experts",)


@pytest.mark.parametrize(("wanted", "advised"), [(5, [8]), (9, [8, 12]), (11, [8, 12])])
def test_experts_that_are_no_multiple_are_answered_with_the_nearest(base_of, wanted, advised):
    base = base_of("qwen3_moe")
    with pytest.raises(RecipeError) as caught:
        plan_of(base, num_experts=wanted)
    assert [f"--set num_experts={n}" in caught.value.hint for n in advised] == [True] * len(advised)
    assert caught.value.hint.count("--set") == len(advised)
    for number in advised:
        assert plan_of(base, num_experts=number).operations == ("experts",)


@pytest.mark.parametrize(
    ("name", "smaller"),
    [
        ("num_experts", 2), ("num_hidden_layers", 2), ("num_attention_heads", 2),
        ("num_key_value_heads", 1), ("moe_intermediate_size", 8),
        ("shared_expert_intermediate_size", 8), ("intermediate_size", 8),
    ],
)  # fmt: skip
def test_shrinking_is_refused_with_the_flag_that_keeps_it(base_of, name, smaller):
    base = base_of("qwen2_moe")
    with pytest.raises(RecipeError, match="would shrink the model") as caught:
        plan_of(base, **{name: smaller})
    kept = plan_of(base).target_spec
    assert f"--set {name}={getattr(kept, name)}" in caught.value.hint


def test_tying_is_refused_since_it_throws_weights_away(base_of):
    base = base_of("mixtral", tie_word_embeddings=False)
    with pytest.raises(RecipeError, match="throw the trained output layer away"):
        plan_of(base, tie_word_embeddings=True)


def test_a_shared_width_is_a_note_where_no_expert_is_shared(base_of):
    plan = plan_of(base_of("qwen3_moe"), shared_expert_intermediate_size=512)
    assert change_of(plan, "shared_expert_intermediate_size").effect is Effect.INERT
    assert plan.operations == ()
    require_as_transformers_makes_it(plan)


# --- depth ----------------------------------------------------------------------------------------

patterns = st.lists(st.booleans(), min_size=1, max_size=12)


@given(is_dense=patterns, step=st.integers(0, 5))
def test_any_pattern_of_dense_layers_can_be_written(is_dense, step):
    """Law: ModelSpec reads from the two keys what dense_rule was told to write."""
    new_step, only = dense_rule(is_dense, step)
    spec = replace(
        spec_of({"model_type": "qwen3_moe", **SHAPE, **BASES["qwen3_moe"]}),
        num_hidden_layers=len(is_dense), decoder_sparse_step=new_step, mlp_only_layers=tuple(only),
    )  # fmt: skip
    assert [not spec.is_sparse_layer(layer) for layer in range(len(is_dense))] == is_dense


@given(layers=st.integers(1, 12), more=st.integers(0, 20))
def test_each_layer_stays_and_its_copies_follow_it(layers, more):
    places = layer_layout(layers, layers + more)
    assert [place.source for place in places if not place.is_new] == list(range(layers))
    assert [place.source for place in places] == list(layer_sources(layers, layers + more))
    assert [place.source for place in places] == sorted(place.source for place in places)
    counts = [sum(place.source == layer for place in places) for layer in range(layers)]
    assert max(counts) - min(counts) <= 1


def test_the_copied_layers_are_told_in_short():
    assert copied_layers(4, 4) == ""
    assert copied_layers(4, 5) == "0"
    assert copied_layers(4, 8) == "0-3"
    assert copied_layers(2, 5) == "0 (x2), 1"
    assert copied_layers(48, 60) == ", ".join(str(layer) for layer in range(0, 48, 4))


@pytest.mark.parametrize("absurd", [4097, 2**31])
def test_absurd_depth_is_answered_at_once(base_of, absurd):
    with pytest.raises(RecipeError, match="more than 4096 layers"):
        plan_of(base_of("qwen2_moe", layer_types=["full_attention"] * 3), num_hidden_layers=absurd)


@pytest.mark.parametrize("new_layers", [4, 5, 6, 9])
@pytest.mark.parametrize(
    "rule",
    [
        {"decoder_sparse_step": 1, "mlp_only_layers": [0]},
        {"decoder_sparse_step": 1, "mlp_only_layers": [2, 7]},
        {"decoder_sparse_step": 2, "mlp_only_layers": []},
        {"decoder_sparse_step": 3, "mlp_only_layers": [1]},
        {"decoder_sparse_step": 2, "mlp_only_layers": None},
    ],
)
def test_a_copy_is_of_its_originals_kind_in_transformers(base_of, rule, new_layers):
    plan = plan_of(base_of("qwen3_moe", **rule), num_hidden_layers=new_layers)

    def has_experts(config):
        names = {name for name, _ in meta_model(config).named_parameters()}
        return [
            any(name.startswith(f"model.layers.{layer}.mlp.experts") for name in names)
            for layer in range(config["num_hidden_layers"])
        ]

    before, after = has_experts(plan.base_config), has_experts(plan.target_config)
    assert after == [before[source] for source in layer_sources(3, new_layers)]
    assert plan.target_spec == deeper(plan.base_spec, new_layers)
    require_as_transformers_makes_it(plan)
    told = {c.name for c in plan.fields if c.is_told}
    written = {k for k, v in plan.target_config.items() if plan.base_config.get(k) != v}
    assert written - {"num_key_value_heads"} <= told


def test_layer_types_follow_their_layers(base_of):
    kinds = ["full_attention", "sliding_attention", "full_attention"]
    base = base_of("qwen2_moe", layer_types=kinds, use_sliding_window=True, sliding_window=8)
    plan = plan_of(base, num_hidden_layers=4)
    assert plan.target_config["layer_types"] == [kinds[0], *kinds]
    assert change_of(plan, "layer_types").effect is Effect.EXACT
    assert AutoConfig.for_model(**plan.target_config).layer_types == [kinds[0], *kinds]


def test_windows_that_are_told_by_layer_numbers_are_refused(base_of):
    base = base_of("qwen2_moe", use_sliding_window=True, sliding_window=8, max_window_layers=2)
    with pytest.raises(UnsupportedError, match="max_window_layers") as caught:
        plan_of(base, num_hidden_layers=4)
    assert "layer_types" in caught.value.hint


# --- mixtures of copies of a dense model ----------------------------------------------------------


@pytest.mark.parametrize("model_type", MIXTURES)
@pytest.mark.parametrize("operation", [None, "depth", "untie", "attention_heads", "expert_width"])
def test_copies_are_what_transformers_makes_of_their_config(base_of, model_type, operation):
    plan = plan_of(base_of(model_type), **COPIES, **GROWTHS.get(operation, {}))
    assert plan.operations == ("upcycle", operation)[: 2 if operation else 1]
    assert (plan.conflicts, plan.lossy_fields) == ((), ())
    row = change_of(plan, "model_type")
    assert (row.base, row.target, row.effect) == (model_type, MIXTURES[model_type], "exact")
    assert plan.target_config["architectures"] == [type(meta_model(plan.target_config)).__name__]
    assert plan.target_spec.norm_topk_prob
    require_as_transformers_makes_it(plan)


@pytest.mark.parametrize("model_type", MIXTURES)
def test_all_growths_of_copies_compose(base_of, model_type):
    chosen = ("depth", "untie", "attention_heads", "expert_width")
    fields = {name: value for op in chosen for name, value in GROWTHS[op].items()}
    plan = plan_of(base_of(model_type), mode="split", **COPIES, **fields)
    assert plan.operations == ("upcycle", *chosen)
    require_as_transformers_makes_it(plan)


@pytest.mark.parametrize("model_type", MIXTURES)
def test_what_a_dense_config_leaves_out_means_the_same_in_its_mixture(base_of, model_type):
    """Families differ in their defaults: transformers must read the same numbers from both."""
    plan = plan_of(base_of(model_type), **COPIES)
    dense, mixture = (
        AutoConfig.for_model(**config).to_dict()
        for config in (plan.base_config, plan.target_config)
    )
    named = {"model_type", "architectures", "intermediate_size", "sliding_window"}
    shared = (dense.keys() & mixture.keys()) - named
    assert {"rms_norm_eps", "rope_parameters", "max_position_embeddings"} <= shared
    assert {k: dense[k] for k in shared} == {k: mixture[k] for k in shared}
    assert not mixture["sliding_window"]
    assert spec_of(mixture).rope == plan.base_spec.rope


@pytest.mark.parametrize("theta", [{"rope_theta": 5e5}, {"rope_parameters": {"rope_theta": 5e5}}])
def test_the_rope_of_a_dense_model_is_kept_in_both_spellings(base_of, theta):
    plan = plan_of(base_of("llama", **theta), **COPIES)
    config = plan.target_config
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 5e5
    assert AutoConfig.for_model(**config).rope_parameters["rope_theta"] == 5e5


def test_code_for_the_dense_class_is_left_out_and_other_keys_stay(base_of):
    base = base_of("llama", auto_map={"AutoModel": "modeling.Model"}, pretraining_tp=1)
    config = plan_of(base, **COPIES).target_config
    assert "auto_map" not in config
    assert config["pretraining_tp"] == 1


def test_copies_are_as_wide_as_the_dense_mlp_under_either_name(base_of):
    base = base_of("llama")
    assert plan_of(base, **COPIES, intermediate_size=120) == plan_of(
        base, **COPIES, moe_intermediate_size="x3/2"
    )
    with pytest.raises(RecipeError, match="80 → 40 would shrink"):
        plan_of(base, **COPIES, moe_intermediate_size=40)


def test_any_number_of_copies_may_be_made_and_visited(base_of):
    base = base_of("qwen3")
    for experts, top_k in ((1, 1), (3, 2), (5, 5)):
        plan = plan_of(base, num_experts=experts, num_experts_per_tok=top_k)
        assert (plan.operations, plan.conflicts) == (("upcycle",), ())


@pytest.mark.parametrize(
    ("model_type", "config", "fields", "words"),
    [
        ("llama", {}, {"num_experts": 4}, "--set num_experts_per_tok=2"),
        ("llama", {}, {"num_experts_per_tok": 2}, "--set num_experts=8"),
        ("llama", {}, {"num_experts_per_tok": "x3/4"}, "veche carve"),
        ("llama", {}, {"num_experts": "x8", "num_experts_per_tok": 2}, "the value itself"),
        ("llama", {}, {"num_experts": 4, "num_experts_per_tok": 5}, "more than the 4 experts"),
        ("llama", {}, {"num_experts": {"value": 4, "apply": False}}, "no experts"),
        ("llama", {}, {"num_hidden_layers": 4}, "no experts"),
        ("llama", {"mlp_bias": True}, COPIES, "mlp_bias"),
        ("llama", {"attention_bias": True}, COPIES, "attention_bias"),
        ("qwen2", {"use_sliding_window": True}, COPIES, "use_sliding_window"),
        ("qwen3", {"use_sliding_window": True}, COPIES, "use_sliding_window"),
        ("qwen3", {}, {**COPIES, "norm_topk_prob": False}, "sum to 1"),
        ("qwen3", {}, {**COPIES, "model_type": "mixtral"}, "does not have"),
        ("qwen3", {}, {**COPIES, "mlp_only_layers": [1]}, "does not have"),
        ("qwen3", {"quantization_config": {"quant_method": "fp8"}}, COPIES, "quantised"),
    ],
)
def test_copies_that_cannot_be_get_one_error(base_of, model_type, config, fields, words):
    with pytest.raises(VecheError) as caught:
        plan_of(base_of(model_type, **config), **fields)
    assert words in caught.value.message + caught.value.hint
    assert caught.value.hint


@pytest.mark.parametrize("model_type", MIXTURES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_new_recipe_for_a_dense_base_plans_as_it_stands(base_of, model_type, language):
    text = recipe_template("mine", base_of(model_type), language)
    plan = make_plan(parse_recipe(text, where="test"))
    assert plan.operations == ("upcycle",)
    for field in ("num_hidden_layers", "tie_word_embeddings", "num_attention_heads"):
        assert f"  # {field}: " in text
