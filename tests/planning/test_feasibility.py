"""One rule for each operation: it agrees with the steps, and with what a plan may contain."""

import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veche.checkpoint.config import spec_of
from veche.core.errors import RecipeError, UnsupportedError, VecheError
from veche.planning.bases import load_base
from veche.planning.depth import deeper
from veche.planning.feasibility import FEASIBLE
from veche.planning.heads import is_feasible
from veche.planning.planner import make_plan
from veche.planning.recipe import Recipe
from veche.planning.steps import steps_of

SPEC = spec_of(load_base("mixtral-8x7b"))
SHARED = spec_of(
    {
        "model_type": "qwen2_moe", "hidden_size": 64, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 4, "vocab_size": 100,
        "intermediate_size": 80, "num_experts": 4,
        "num_experts_per_tok": 2, "moe_intermediate_size": 32, "mlp_only_layers": [1],
        "shared_expert_intermediate_size": 48, "tie_word_embeddings": True,
    }
)  # fmt: skip
DENSE = spec_of(
    {
        "model_type": "qwen3", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 4, "head_dim": 16,
        "vocab_size": 100, "intermediate_size": 80,
    }
)  # fmt: skip
GROWN = {
    "experts": {"num_experts": 8, "num_experts_per_tok": 4},
    "untie": {"tie_word_embeddings": False},
    "attention_heads": {"num_attention_heads": 8, "num_key_value_heads": 8},
    "expert_width": {"moe_intermediate_size": 33},
    "shared_expert_width": {"shared_expert_intermediate_size": 49},
    "dense_width": {"intermediate_size": 81},
}


def is_allowed(operation, before, after):
    try:
        FEASIBLE[operation](before, after)
    except VecheError as error:
        return not error.hint  # a refusal without advice passes no test
    return True


def test_every_operation_has_a_rule_and_every_rule_an_operation():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert set(FEASIBLE) == set(project["project"]["entry-points"]["veche.operations"])


@pytest.mark.parametrize("operation", GROWN)
def test_a_growth_is_allowed_and_its_reverse_is_not(operation):
    after = replace(SHARED, **GROWN[operation])
    assert [step.operation for step in steps_of(SHARED, after)] == [operation]
    assert is_allowed(operation, SHARED, after)
    assert not is_allowed(operation, after, SHARED)


@given(before=st.integers(1, 12), after=st.integers(1, 60), top_k=st.integers(1, 60))
def test_experts_are_allowed_where_both_numbers_grow_alike(before, after, top_k):
    base = replace(SPEC, num_experts=before, num_experts_per_tok=1)
    target = replace(SPEC, num_experts=after, num_experts_per_tok=top_k)
    is_multiple = any(m * before == after and m == top_k for m in range(1, 61))
    assert is_allowed("experts", base, target) == is_multiple


pairs = st.tuples(st.integers(1, 6), st.integers(1, 6)).map(
    lambda pair: (pair[0] * pair[1], pair[1])
)


@given(old=pairs, new=pairs)
def test_heads_are_allowed_where_they_are_feasible(old, new):
    specs = [replace(SPEC, num_attention_heads=q, num_key_value_heads=kv) for q, kv in (old, new)]
    assert is_allowed("attention_heads", *specs) == is_feasible(*old, *new)


@given(new=st.integers(1, 12), step=st.integers(1, 3), only=st.sets(st.integers(0, 11)))
def test_depth_is_allowed_where_layers_keep_their_kind(new, step, only):
    target = replace(
        SHARED, num_hidden_layers=new, decoder_sparse_step=step, mlp_only_layers=tuple(only)
    )
    kinds = [SHARED.is_sparse_layer(layer * 4 // new) for layer in range(new)]
    is_same = [target.is_sparse_layer(layer) for layer in range(new)] == kinds
    assert is_allowed("depth", SHARED, target) == (new >= 4 and is_same)
    assert new < 4 or is_allowed("depth", SHARED, deeper(SHARED, new))


def test_a_mixture_of_copies_is_allowed_as_its_step_makes_it():
    target = replace(
        DENSE, model_type="qwen3_moe", num_experts=4, num_experts_per_tok=2,
        moe_intermediate_size=96,
    )  # fmt: skip
    first, second = steps_of(DENSE, target)
    assert (first.operation, second.operation) == ("upcycle", "expert_width")
    assert is_allowed("upcycle", first.before, first.after)
    wrong = {
        "model_type": "mixtral", "num_experts_per_tok": 5, "norm_topk_prob": False,
        "mlp_only_layers": (0,), "moe_intermediate_size": 79, "has_attention_bias": True,
    }  # fmt: skip
    for name, value in wrong.items():
        assert not is_allowed("upcycle", first.before, replace(first.after, **{name: value})), name
    assert not is_allowed("upcycle", SPEC, first.after)


def test_a_gain_needs_equal_routing_weights_and_so_many_experts():
    carved = spec_of(load_base("smollm2-135m-carved"))
    assert is_allowed("expert_gain", carved, replace(carved, num_experts_per_tok=12))
    with pytest.raises(RecipeError, match="1 to 16"):
        FEASIBLE["expert_gain"](carved, replace(carved, num_experts_per_tok=17))
    with pytest.raises(UnsupportedError, match="not equal"):
        FEASIBLE["expert_gain"](SPEC, replace(SPEC, num_experts_per_tok=1))


def test_olmoes_heads_are_refused():
    spec = spec_of(load_base("olmoe-1b-7b"))
    with pytest.raises(UnsupportedError, match="together"):
        FEASIBLE["attention_heads"](spec, replace(spec, num_attention_heads=32))


WISHES = st.fixed_dictionaries(
    {},
    optional={
        "num_experts": st.integers(14, 50),
        "num_experts_per_tok": st.integers(1, 50),
        "num_hidden_layers": st.integers(28, 70),
        "tie_word_embeddings": st.booleans(),
        "num_attention_heads": st.integers(8, 20),
        "num_key_value_heads": st.integers(2, 10),
        "moe_intermediate_size": st.integers(90, 200),
    },
)


@given(fields=WISHES)
def test_a_plan_is_made_exactly_where_every_rule_allows_its_step(fields):
    base = spec_of(load_base("smollm2-135m-carved"))
    recipe = Recipe(name="t", base="smollm2-135m-carved", fields=fields, allow_lossy=True)
    wanted = replace(base, **fields)
    try:
        plan = make_plan(recipe)
    except VecheError:
        too_many = wanted.num_experts_per_tok > wanted.num_experts
        assert too_many or not all(
            is_allowed(step.operation, step.before, step.after) for step in steps_of(base, wanted)
        )
        return
    assert plan.target_spec == wanted
    assert plan.steps == steps_of(base, wanted)
    assert plan.operations == tuple(step.operation for step in plan.steps)
    assert all(is_allowed(step.operation, step.before, step.after) for step in plan.steps)
    chain = [base, *(step.after for step in plan.steps)]
    assert [step.before for step in plan.steps] == chain[:-1]
    assert chain[-1] == plan.target_spec
