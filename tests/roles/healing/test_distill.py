"""The loss against PyTorch's own divergence."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from veche.roles.healing.distill import distillation_loss, kl_of_logits

N, H, V = 37, 8, 53


@pytest.fixture
def heads():
    torch.manual_seed(0)
    return nn.Linear(H, V, bias=False).double(), nn.Linear(H, V, bias=False).double()


@pytest.fixture
def states():
    torch.manual_seed(1)
    return torch.randn(2, N, H, dtype=torch.float64)


def reference(student_NH, teacher_NH, heads):
    """PyTorch's KL of the whole logits, mean over positions."""
    student, teacher = heads
    return functional.kl_div(
        student(student_NH).log_softmax(-1),
        teacher(teacher_NH).log_softmax(-1),
        log_target=True,
        reduction="batchmean",
    )


def test_the_divergence_of_each_position_is_that_of_torch(states, heads):
    student_NV, teacher_NV = heads[0](states[0]), heads[1](states[1])
    expected = functional.kl_div(
        student_NV.log_softmax(-1), teacher_NV.softmax(-1), reduction="none"
    ).sum(-1)
    assert torch.allclose(kl_of_logits(teacher_NV, student_NV), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("rows", [1, 5, N, 1000])
def test_loss_and_gradient_are_those_of_torch_whatever_the_chunk(states, heads, rows):
    given, teacher_NH = states[0].clone().requires_grad_(), states[1]
    expected = states[0].clone().requires_grad_()
    loss = distillation_loss(given, teacher_NH, *heads, rows=rows)
    whole = reference(expected, teacher_NH, heads)
    (3 * loss).backward()
    (3 * whole).backward()
    assert torch.allclose(loss, whole, rtol=1e-12)
    assert torch.allclose(given.grad, expected.grad, rtol=1e-9, atol=1e-15)


def test_a_student_that_is_its_teacher_has_no_loss_and_no_gradient(states, heads):
    given = states[0].clone().requires_grad_()
    loss = distillation_loss(given, states[0], heads[0], heads[0])
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-15)
    assert given.grad.abs().max() < 1e-15


def test_bfloat16_states_give_a_loss_in_float32(states, heads):
    halves = [head.to(torch.bfloat16) for head in heads]
    student_NH, teacher_NH = states.to(torch.bfloat16)
    loss = distillation_loss(student_NH, teacher_NH, *halves)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(
        reference(student_NH.double(), teacher_NH.double(), [h.double() for h in halves]).item(),
        rel=0.02,
    )
