r"""The loss of healing: how far the student's next-token distribution is from the teacher's.

Legend: N positions, C of them at a time, V vocabulary, H hidden size. This file imports torch.
"""

from typing import Any

import torch
from torch import Tensor

ROWS = 256
"""Positions whose logits are in memory at a time: 50 MB of float32 for 50,000 tokens."""


def kl_of_logits(teacher_CV: Tensor, student_CV: Tensor) -> Tensor:
    r"""Return KL(p‖q) of each position, [C], in nats, in float32 at least.

    $\sum_v p_v (\log p_v - \log q_v)$ with p, q the softmax of the teacher's and the student's
    logits at temperature 1, over the whole vocabulary.

    Source: Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network, arXiv:1503.02531.
    """
    log_p_CV, log_q_CV = _log_softmax(teacher_CV), _log_softmax(student_CV)
    kl_C: Tensor = (log_p_CV.exp() * (log_p_CV - log_q_CV)).sum(-1)
    return kl_C


def distillation_loss(
    student_NH: Tensor,
    teacher_NH: Tensor,
    student_head: Any,
    teacher_head: Any,
    *,
    rows: int = ROWS,
) -> Tensor:
    """Return the mean KL(teacher‖student) over N positions; its gradient goes to the states.

    NOTE: logits of `rows` positions exist at a time, in the backward pass too: the gradient with
    respect to a chunk's states, (q − p) W / N, is computed with the chunk's loss and kept instead
    of logits. It is exact, whatever `rows` is. Heads are not trained.

    Args:
        student_NH: what the student's head reads.
        teacher_NH: what the teacher's head reads, at the same positions.
        student_head: its linear output head.
        teacher_head: the teacher's.
        rows: positions at a time.
    """
    apply: Any = _HeadKL.apply
    loss: Tensor = apply(student_NH, teacher_NH, student_head, teacher_head, rows)
    return loss


class _HeadKL(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        student_NH: Tensor,
        teacher_NH: Tensor,
        student_head: Any,
        teacher_head: Any,
        rows: int,
    ) -> Tensor:
        count, weight_VH = len(student_NH), student_head.weight
        gradient_NH = torch.empty_like(student_NH)
        total = torch.zeros((), dtype=torch.float64, device=student_NH.device)
        for start in range(0, count, rows):
            part = slice(start, start + rows)
            log_p_CV = _log_softmax(teacher_head(teacher_NH[part]))
            log_q_CV = _log_softmax(student_head(student_NH[part]))
            p_CV = log_p_CV.exp()
            total += (p_CV * log_p_CV.sub_(log_q_CV)).sum(dtype=torch.float64)
            gap_CV = log_q_CV.exp_().sub_(p_CV).div_(count)
            gradient_NH[part] = gap_CV.to(weight_VH.dtype) @ weight_VH
        ctx.save_for_backward(gradient_NH)
        return (total / count).to(torch.promote_types(student_NH.dtype, torch.float32))

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        (gradient_NH,) = ctx.saved_tensors
        return gradient_NH * outer[0].to(gradient_NH.dtype), None, None, None, None


def _log_softmax(logits_CV: Tensor) -> Tensor:
    exact = torch.promote_types(logits_CV.dtype, torch.float32)
    return logits_CV.to(exact).log_softmax(-1)
