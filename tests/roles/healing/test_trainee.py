"""What moves, what does not, and what merging leaves of it."""

import pytest
import torch
from tests.roles.healing import lessons

from veche.roles.healing.distill import distillation_loss
from veche.roles.healing.lesson import lesson_of
from veche.roles.healing.trainee import Trainee
from veche.surgery.loading import load_model
from veche.surgery.verification.weights import scaled_in_place

TOKENS = torch.arange(5, 69).view(2, 32)


def student_of(lesson, dtype=torch.float32):
    model = load_model(lesson.student, changes=lesson.changes, dtype=dtype)
    with torch.no_grad():
        scaled_in_place(dict(model.named_parameters()), lesson.gain, dtype)
    return model


def taught(shelf, name, parts, *, optimizer="adamw", steps=3, dtype=torch.float32):
    """Return the student, its trainee after some steps, and its parameters before."""
    lesson = lesson_of(shelf / name, top_k=2)
    settings = lessons.replace_settings(optimizer=optimizer)
    teacher, model = load_model(lesson.teacher, dtype=dtype), student_of(lesson, dtype)
    before = lessons.parameters(model)
    trainee = Trainee(model, lesson, settings, parts)
    with torch.no_grad():
        states = teacher.model(input_ids=TOKENS).last_hidden_state.flatten(0, 1)
    losses = []
    for _ in range(steps):
        given = model.model(input_ids=TOKENS).last_hidden_state.flatten(0, 1)
        loss = distillation_loss(given, states, model.lm_head, teacher.lm_head)
        loss.backward()
        trainee.step(1.0)
        losses.append(loss.item())
    return model, trainee, before, losses


@pytest.mark.parametrize("name", ["moe", "carved"])
@pytest.mark.parametrize(
    ("parts", "endings"),
    [
        (("routers",), ("mlp.gate.weight",)),
        (("experts",), ("experts.down_proj",)),
        (("attention",), ("q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight")),
    ],
)
def test_only_the_chosen_parts_move_and_all_else_stays_bit_for_bit(shelf, name, parts, endings):
    model, trainee, before, _ = taught(shelf, name, parts)
    changed = trainee.merge()
    moved = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
    assert moved
    assert all(key.endswith(endings) for key in moved)
    assert moved <= changed
    assert set(before) == {key for key, _ in model.named_parameters()}


@pytest.mark.parametrize("optimizer", ["adamw", "loft"])
@pytest.mark.parametrize("name", ["moe", "carved"])
def test_the_loss_falls_on_what_is_learnt(shelf, name, optimizer):
    parts = ("routers", "experts", "attention")
    _, _, _, losses = taught(shelf, name, parts, optimizer=optimizer, steps=12)
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("name", ["moe", "carved"])
def test_merged_answers_are_those_with_adapters(shelf, name):
    model, trainee, _, _ = taught(shelf, name, ("routers", "experts", "attention"))
    with torch.no_grad():
        adapted = model(input_ids=TOKENS).logits
        trainee.merge()
        merged = model(input_ids=TOKENS).logits
    assert not [key for key, _ in model.named_parameters() if "lora" in key]
    assert torch.allclose(merged, adapted, atol=2e-5 * float(adapted.abs().max()))


def test_a_bfloat16_model_is_moved_by_masters_in_float32(shelf):
    _, trainee, _, _ = taught(shelf, "moe", ("experts",), dtype=torch.bfloat16)
    for each in trainee.moving:
        assert each.parameter.dtype == torch.bfloat16
        assert each.master.dtype == torch.float32
        assert torch.equal(each.parameter, each.master.to(torch.bfloat16))
        assert not torch.equal(each.master, each.parameter.float())


def test_a_gradient_that_is_not_a_number_moves_nothing(shelf):
    lesson = lesson_of(shelf / "moe", top_k=2)
    model = student_of(lesson)
    trainee = Trainee(model, lesson, lessons.SETTINGS, ("experts", "attention"))
    before = [each.master.detach().clone() for each in trainee.moving]
    model.model(input_ids=TOKENS).last_hidden_state.mean().mul(float("nan")).backward()
    assert not torch.isfinite(torch.tensor(trainee.step(1.0)))
    assert all(
        torch.equal(each.master, value) for each, value in zip(trainee.moving, before, strict=True)
    )
