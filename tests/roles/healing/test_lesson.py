"""Who is healed towards whom, and what is refused."""

import json
import shutil

import pytest
from tests import tiny_models
from tests.roles.healing import lessons

from veche.core.errors import InputError, UnsupportedError
from veche.roles.healing.heal import plan_healing
from veche.roles.healing.lesson import lesson_of
from veche.roles.healing.settings import HealSettings


def test_a_dial_makes_the_model_its_own_teacher(shelf):
    lesson = lesson_of(shelf / "moe", top_k=2)
    assert lesson.teacher == lesson.student == shelf / "moe"
    assert lesson.spec.num_experts_per_tok == 2
    assert lesson.teacher_spec.num_experts_per_tok == 3
    assert lesson.gain == 1
    assert lesson.parts() == ("routers", "experts", "attention")


def test_carved_experts_are_scaled_with_top_k(shelf):
    assert lesson_of(shelf / "carved", top_k=2).gain == 0.5


def test_other_positions_damage_attention_alone(shelf):
    lesson = lesson_of(shelf / "llama", rope_theta=20_000.0)
    assert lesson.parts() == ("attention",)
    assert lesson.config["rope_parameters"]["rope_theta"] == 20_000
    scaled = lesson_of(shelf / "llama", yarn=2.0)
    assert scaled.spec.rope.factor == 2
    both = lesson_of(shelf / "moe", yarn=2.0, rope_theta=1e6)
    assert (both.spec.rope.factor, both.spec.rope.rope_theta) == (2, 1e6)


@pytest.mark.parametrize(
    ("dials", "words"),
    [
        ({}, "nothing to heal"),
        ({"top_k": 3}, "nothing was lost"),
        ({"top_k": 9}, "not a whole number in 1..8"),
        ({"top_k": 0}, "not a whole number"),
        ({"rope_theta": -1.0}, "above 0"),
        ({"yarn": 0.5}, "at least 1"),
    ],
)
def test_what_changes_nothing_or_cannot_be_is_refused(shelf, dials, words):
    with pytest.raises(InputError, match=words):
        lesson_of(shelf / "moe", **dials)


def test_another_vocabulary_or_tokenizer_is_refused(shelf, tmp_path):
    other = tiny_models.tiny_qwen3_moe(tmp_path / "other", vocab_size=400)
    with pytest.raises(InputError, match="cannot be compared token by token"):
        lesson_of(shelf / "moe", teacher=other)
    shutil.copytree(shelf / "moe", tmp_path / "twin")
    path = tmp_path / "twin" / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="another text to each model"):
        lesson_of(shelf / "moe", teacher=tmp_path / "twin")


def test_parts_that_a_model_has_not_are_refused(shelf):
    dense = lesson_of(shelf / "llama", rope_theta=20_000.0)
    texts = lessons.texts(shelf / "llama")
    with pytest.raises(UnsupportedError, match="is dense"):
        plan_healing(dense, lessons.replace_settings(train=("experts",)), texts)
    with pytest.raises(UnsupportedError, match="is new"):
        plan_healing(dense, lessons.replace_settings(train=("new",)), texts)


def test_too_little_text_is_refused(shelf):
    lesson, texts = lesson_of(shelf / "moe", top_k=2), lessons.texts(shelf / "moe")
    with pytest.raises(InputError, match="too few to learn from"):
        plan_healing(lesson, lessons.replace_settings(batch=1000), texts)
    with pytest.raises(InputError, match="held-out text are too few"):
        plan_healing(
            lesson,
            lessons.SETTINGS,
            type(texts)(train=texts.train, heldout=texts.heldout[:50], source="own"),
        )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"minutes": 1.0, "steps": 3}, "both given"),
        ({"learning_rate": float("nan"), "steps": 1}, "learning_rate"),
        ({"rank": 5000, "steps": 1}, "no low rank"),
        ({"steps": -1}, "steps is -1"),
        ({"optimizer": "lofft", "steps": 1}, "optimizer 'lofft' is unknown"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes, words):
    with pytest.raises(InputError, match=words):
        HealSettings(**changes)
