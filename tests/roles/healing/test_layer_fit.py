"""The fit by layers: nearer to the teacher, and nothing else touched."""

from dataclasses import replace

import pytest
import torch
from tests.roles.healing import lessons
from tests.roles.healing.test_trainee import student_of

from veche.core.progress import Silent
from veche.planning.planner import make_plan
from veche.planning.recipe import Recipe
from veche.roles.healing.distill import kl_of_logits
from veche.roles.healing.layer_fit import can_fit, fit_layers
from veche.roles.healing.lesson import lesson_of
from veche.surgery.build import build
from veche.surgery.loading import load_model
from veche.surgery.verification.compare import windows


def tokens_of(shelf, name, length=64):
    given = lessons.texts(shelf / name)
    train = windows(given.train, num_windows=40, window_tokens=length)
    return train, windows(given.heldout, num_windows=10, window_tokens=length)


def divergence(teacher, student, tokens_WT):
    with torch.no_grad():
        logits = [model(input_ids=tokens_WT).logits.flatten(0, 1) for model in (teacher, student)]
    return float(kl_of_logits(*logits).mean())


@pytest.mark.parametrize("name", ["carved", "moe"])
def test_a_fit_leads_back_to_the_teacher_on_text_that_it_never_saw(shelf, name):
    lesson = lesson_of(shelf / name, top_k=2)
    teacher, student = load_model(lesson.teacher), student_of(lesson)
    train_WT, heldout_WT = tokens_of(shelf, name)
    lost, before = divergence(teacher, student, heldout_WT), lessons.parameters(student)
    moved = fit_layers(
        teacher, student, train_WT, lesson, ("routers", "experts"), seed=0, progress=Silent()
    )
    assert divergence(teacher, student, heldout_WT) < 0.9 * lost
    changed = {
        key for key, value in student.named_parameters() if not torch.equal(value, before[key])
    }
    assert changed
    assert changed <= set(moved)
    fitted = "gate.weight" if name == "carved" else "down_proj"
    assert all(key.endswith(("gate.weight", "experts.down_proj")) for key in moved)
    assert any(key.endswith(fitted) for key in changed)


def test_where_nothing_is_dropped_the_fit_finds_nothing_to_mend(shelf):
    lesson = replace(lesson_of(shelf / "carved", top_k=2), changes={}, gain=1.0)
    teacher, student = load_model(lesson.teacher), load_model(lesson.student)
    train_WT, heldout_WT = tokens_of(shelf, "carved")
    fit_layers(teacher, student, train_WT, lesson, ("experts",), seed=0, progress=Silent())
    assert divergence(teacher, student, heldout_WT) < 1e-6


def test_the_refit_is_least_squares_with_a_ridge(shelf):
    """One layer against a dense solve of the normal equations, written from the formula."""
    lesson = lesson_of(shelf / "moe", top_k=2)
    teacher, student = (
        load_model(lesson.teacher, dtype=torch.float32),
        student_of(lesson),
    )
    train_WT, _ = tokens_of(shelf, "moe")
    layer, first = student.model.layers[0], teacher.model.layers[0]
    with torch.no_grad():
        caught = {}
        layer.mlp.register_forward_pre_hook(lambda _, given: caught.update(inputs=given[0]))
        student.model(input_ids=train_WT)
        inputs_NH = caught["inputs"].flatten(0, 1)
        _, weights_NK, experts_NK = layer.mlp.gate(inputs_NH)
        target_NH = first.mlp(inputs_NH[None])[0]
        target_NH = (target_NH[0] if isinstance(target_NH, tuple) else target_NH).double()
        features = []
        for expert in range(8):
            gate_up = layer.mlp.experts.gate_up_proj[expert]
            gate_NI, up_NI = (inputs_NH @ gate_up.T).chunk(2, dim=-1)
            weight_N = (weights_NK * (experts_NK == expert)).sum(-1)
            features.append(torch.nn.functional.silu(gate_NI) * up_NI * weight_N[:, None])
        kept_NI = torch.cat(features, dim=1).double()
        old_IH = layer.mlp.experts.down_proj.transpose(1, 2).flatten(0, 1).double()
        residual = {}
        first.register_forward_hook(lambda _, __, out: residual.update(out=out))
        teacher.model(input_ids=train_WT)
        out_NH = residual["out"]
        out_NH = (out_NH[0] if isinstance(out_NH, tuple) else out_NH).flatten(0, 1).double()
        share_N1 = 1 / out_NH.square().sum(-1, keepdim=True)
        gram = kept_NI.T @ (share_N1 * kept_NI)
        ridge = gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
        missing_NH = target_NH - kept_NI @ old_IH
        expected_IH = old_IH + torch.linalg.solve(gram + ridge, kept_NI.T @ (share_N1 * missing_NH))
    fit_layers(teacher, student, train_WT, lesson, ("experts",), seed=0, progress=Silent())
    given_IH = layer.mlp.experts.down_proj.transpose(1, 2).flatten(0, 1).double()
    assert torch.allclose(given_IH, expected_IH, atol=2e-4 * float(expected_IH.abs().max()))


def test_new_units_alone_can_be_fitted_and_the_layer_comes_nearer(shelf, tmp_path):
    fields = {"moe_intermediate_size": 48, "num_experts": 16, "num_experts_per_tok": 6}
    recipe = Recipe(name="t", base=str(shelf / "moe"), fields=fields)
    build(make_plan(recipe), shelf / "moe", tmp_path / "grown")
    lesson = lesson_of(tmp_path / "grown", teacher=shelf / "moe", top_k=4)
    teacher, student = load_model(lesson.teacher), student_of(lesson)
    train_WT, _ = tokens_of(shelf, "moe")

    def error():
        with torch.no_grad():
            given, wanted = (
                model.model(input_ids=train_WT, output_hidden_states=True).hidden_states[1]
                for model in (student, teacher)
            )
        return float(((given - wanted).square().sum(-1) / wanted.square().sum(-1)).mean())

    lost, old = error(), student.model.layers[0].mlp.experts.down_proj.detach().clone()
    moved = fit_layers(teacher, student, train_WT, lesson, ("new",), seed=0, progress=Silent())
    assert error() < 0.98 * lost
    assert all(name.endswith("down_proj") for name in moved)
    new = student.model.layers[0].mlp.experts.down_proj
    assert torch.equal(new[:8, :, :24], old[:8, :, :24])
    assert not torch.equal(new[:8, :, 24:], old[:8, :, 24:])
    assert not torch.equal(new[8:], old[8:])


def test_too_many_units_or_other_parts_are_not_fitted(shelf):
    lesson = lesson_of(shelf / "moe", top_k=2)
    assert can_fit(lesson, ("experts",))
    assert not can_fit(lesson, ("attention",))
    assert not can_fit(lesson, ("routers",))  # ordinary routers have a gradient: none is fitted
    assert can_fit(lesson_of(shelf / "carved", top_k=2), ("routers",))
    assert not can_fit(lesson_of(shelf / "llama", rope_theta=20_000.0), ("attention",))
