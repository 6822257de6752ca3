"""What contradicts is told with the flags that resolve it, and each flag does."""

import shlex

import pytest

from veche.core.errors import RecipeError
from veche.planning.planner import make_plan
from veche.planning.recipe import Recipe, with_choices

FLAGS = {"--rope-length": "rope_length", "--tp": "tensor_parallel"}


def recipe_of(base="qwen3-30b-a3b", tensor_parallel=1, rope_length=None, **fields):
    return Recipe(
        name="t", base=base, fields=fields, allow_lossy=True,
        tensor_parallel=tensor_parallel, rope_length=rope_length,
    )  # fmt: skip


def taken(recipe, flag):
    """Return the recipe with a resolution's flag on its command line."""
    words = shlex.split(flag)
    if words[0] == "--set":
        return with_choices(recipe, {"fields": [words[1]]})
    value = int(words[1]) if words[1].isdigit() else words[1]
    return with_choices(recipe, {FLAGS[words[0]]: value})


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
CASES = {
    "a length that was left alone": recipe_of(rope_scaling=YARN),
    "a length that was given": recipe_of(rope_scaling=YARN, max_position_embeddings=100_000),
    "cards that do not divide the heads": recipe_of(tensor_parallel=3),
    "cards that cannot share the key/value heads": recipe_of("mixtral-8x7b", tensor_parallel=32,
        num_attention_heads=48, num_key_value_heads=12),
    "cards that do not divide an expert": recipe_of(moe_intermediate_size=778, tensor_parallel=4),
    "a scaling that reaches less than none": recipe_of("qwen3-30b-a3b-2507", rope_scaling=YARN,
        max_position_embeddings=131_072),
    "copies of experts without a word of top-k": recipe_of(num_experts=256),
    "copies of experts whose top-k is not applied": recipe_of("smollm2-135m-carved",
        num_experts="x3", num_experts_per_tok={"value": 48, "apply": False}),
    "a token outside the vocabulary": recipe_of(eos_token_id=200_000),
    "tokens outside the vocabulary": recipe_of(eos_token_id=200_000, bos_token_id=151_936),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_every_resolution_resolves_its_conflict(name):
    recipe = CASES[name]
    conflicts = make_plan(recipe).conflicts
    assert conflicts
    for conflict in conflicts:
        assert conflict.resolutions
        for way in conflict.resolutions:
            again = make_plan(taken(recipe, way.flag)).conflicts
            assert conflict.fields not in [each.fields for each in again], way.flag


def test_keep_length_lowers_a_factor_that_only_the_recipe_gives():
    plan = make_plan(recipe_of(rope_scaling=YARN, rope_length="keep-length"))
    assert plan.target_spec.max_position_embeddings == 40960
    assert plan.target_spec.rope.factor == 40960 / 32768


def test_extend_raises_a_length_that_the_recipe_left_alone():
    plan = make_plan(recipe_of(rope_scaling=YARN, rope_length="extend"))
    assert plan.target_spec.max_position_embeddings == 131072
    assert not plan.conflicts


def test_the_stock_base_may_be_scaled_from_its_original_length():
    """Qwen's own advice: 40,960 positions are 32,768 of context and 8,192 of answer."""
    recipe = recipe_of(rope_scaling={**YARN, "factor": 2.0}, rope_length="extend")
    assert make_plan(recipe).conflicts == ()


@pytest.mark.parametrize(("q", "kv"), [(36, 6), (40, 6), (42, 4), (33, 4), (32, 5)])
def test_heads_that_cannot_be_are_answered_with_flags_that_can(q, kv):
    recipe = recipe_of(num_attention_heads=q, num_key_value_heads=kv)
    with pytest.raises(RecipeError) as caught:
        make_plan(recipe)
    for way in caught.value.hint.partition(": ")[2].split("; or "):
        words = shlex.split(way)
        assert make_plan(with_choices(recipe, {"fields": words[1::2]})).conflicts == ()


def test_absurd_heads_are_answered_at_once():
    with pytest.raises(RecipeError, match="cannot become"):
        make_plan(recipe_of(num_attention_heads=2**31 - 1, num_key_value_heads=7))


def test_tokens_that_the_base_has_are_not_questioned():
    assert make_plan(recipe_of(num_experts_per_tok=4)).conflicts == ()


def test_a_larger_vocabulary_says_why_not_and_how_to_keep_it():
    with pytest.raises(RecipeError) as caught:
        make_plan(recipe_of(vocab_size=160_000))
    assert "tokenizer" in caught.value.message
    assert "--set vocab_size=151936" in caught.value.hint
