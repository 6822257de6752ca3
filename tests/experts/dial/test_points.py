"""Which values of a dial are measured, and which cannot be."""

from dataclasses import replace

import pytest

from veche.checkpoint.config import spec_of
from veche.core.errors import InputError, UnsupportedError
from veche.experts.dial.points import MOST_POINTS, NAMES, chosen_points

MOE = spec_of(
    {
        "model_type": "qwen3_moe",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "vocab_size": 64,
        "max_position_embeddings": 512,
        "moe_intermediate_size": 16,
        "intermediate_size": 16,
        "num_experts": 16,
        "num_experts_per_tok": 4,
        "rope_theta": 10000.0,
        "norm_topk_prob": True,
    }
)
DENSE = replace(MOE, model_type="qwen3", num_experts=0, num_experts_per_tok=0)


def values(name, text, spec=MOE):
    return list(chosen_points(name, text, spec).values)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("top_k", "4..8", [5, 6, 7, 8]),
        ("top_k", "1..16", [1, 3, 5, 7, 9, 11, 13, 15, 16]),
        ("top_k", "2..16:7", [2, 9, 16]),
        ("top_k", "8,2,8", [2, 8]),
        ("top_k", "4", []),
        ("temperature", "0.5..1.5", [0.5, 0.75, 1.25, 1.5]),
        ("temperature", "0.5..0.8:0.1", pytest.approx([0.5, 0.6, 0.7, 0.8])),
        ("rope_theta", "50000..400000", [50000, 100000, 200000, 400000]),
        ("rope_theta", "1e4,1e6", [1e6]),
        ("yarn", "1..4", [2, 4]),
        ("adaptive", "2.5,6", [2.5, 6]),
        ("adaptive", "4..6", [4, 5, 6]),
    ],
)
def test_values_are_read_and_the_base_is_left_out(name, text, expected):
    assert values(name, text) == expected


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("language", ["en", "ru"])
def test_defaults_are_few_and_have_a_reason(name, language):
    points = chosen_points(name, None, MOE, language=language)
    assert 2 <= len(points.values) <= 9
    assert points.reason
    assert ("а" in points.reason) == (language == "ru")
    assert any(value < points.base for value in points.values) == (name != "yarn")
    assert any(value > points.base for value in points.values)


def test_a_range_whose_values_were_chosen_for_the_user_says_so():
    assert "1..16" in chosen_points("top_k", "1..16", MOE).reason
    assert chosen_points("top_k", "1,16", MOE).reason == ""


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("top_k", "4..17", "top_k 17 is not a whole number in 1..16"),
        ("top_k", "0..4", "top_k 0 is not"),
        ("top_k", "-4", "top_k -4 is not"),
        ("top_k", "2.5", "top_k 2.5 is not a whole number"),
        ("top_k", "8..4", "reversed"),
        ("top_k", "nan", "'nan' is no number"),
        ("top_k", "1..inf", "'inf' is no number"),
        ("top_k", "many", "'many' is no number"),
        ("top_k", "", "'' is no number"),
        ("top_k", "4,,8", "'' is no number"),
        ("top_k", "1..16:0", "the step must be above 0"),
        ("top_k", "1..16:-1", "the step must be above 0"),
        ("temperature", "0..1", "temperature 0 is not a number above 0"),
        ("temperature", "0.1..100:0.1", f"at most {MOST_POINTS}"),
        ("rope_theta", "-1", "rope_theta -1 is not a number above 0"),
        ("rope_theta", "-1..4", "rope_theta -1 is not a number above 0"),
        ("yarn", "0.5", "yarn 0.5 is not a factor of at least 1"),
        ("adaptive", "0.5", "adaptive 0.5 is not a number in 1..16"),
        ("loudness", "1", "there is no dial 'loudness'"),
    ],
)
def test_an_impossible_value_is_refused_with_its_reason(name, text, said):
    with pytest.raises(InputError) as caught:
        chosen_points(name, text, MOE)
    assert said in caught.value.message
    assert caught.value.hint


def test_a_list_of_too_many_values_is_refused_too():
    with pytest.raises(InputError, match="too many"):
        chosen_points("rope_theta", ",".join(str(1000 + i) for i in range(MOST_POINTS + 1)), MOE)


@pytest.mark.parametrize("name", ["top_k", "adaptive"])
def test_a_dense_model_has_no_experts_to_count(name):
    with pytest.raises(UnsupportedError, match="dense"):
        chosen_points(name, None, DENSE)


def test_a_dense_model_has_the_other_dials():
    assert values("temperature", "2", DENSE) == [2]


def test_yarn_does_not_replace_another_scaling():
    scaled = replace(MOE, rope=replace(MOE.rope, rope_type="llama3", factor=8.0))
    with pytest.raises(UnsupportedError, match="llama3"):
        chosen_points("yarn", "2", scaled)
