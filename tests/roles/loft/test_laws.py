"""LoFT against AdamW on the full matrix, against the paper's formulas, and its symmetries."""

import numpy as np
import pytest
import torch
from roles.loft.problem import Trained, loss_of, pair
from roles.loft.reference import Reference

from veche.roles.loft.optimizer import LoFT
from veche.roles.loft.pair_step import _BLOCK_ELEMENTS as BLOCKS

STEPS = 60
SHAPES = [(1, 1, 1), (6, 9, 3), (12, 5, 2), (7, 7, 7), (20, 4, 4)]


def biggest(difference: torch.Tensor) -> float:
    return float(difference.abs().max())


# --- full rank ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 8, 20])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("is_scheduled", [False, True])
def test_at_full_rank_it_is_adamw_on_the_full_matrix(size, weight_decay, is_scheduled):
    b, a = pair(size, size, size)
    options = {"lr": 3e-3, "weight_decay": weight_decay, "eps": 1e-4}
    loft = Trained(b, a, loss_of(size, size), **options)
    full = (b @ a).requires_grad_()
    adamw = torch.optim.AdamW([full], **options)
    schedulers = [
        torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
        for optimizer in (loft.optimizer, adamw)
        if is_scheduled
    ]
    for _ in range(STEPS):
        loft.step()
        adamw.zero_grad()
        loft.loss(full).backward()
        adamw.step()
        for scheduler in schedulers:
            scheduler.step()
    assert biggest(full.detach() - b @ a) > 0.05
    assert biggest(loft.product - full.detach()) <= 1e-12


def test_a_step_of_b_is_adamws_where_only_a_is_square():
    b, a = pair(9, 4, 4)
    loft = Trained(b, a, loss_of(9, 4), lr=1e-2)
    full = (b @ a).requires_grad_()
    adamw = torch.optim.AdamW([full], lr=1e-2, eps=1e-4, weight_decay=0)
    loft.step()
    loft.loss(full).backward()
    adamw.step()
    assert biggest(loft.product - full.detach()) <= 1e-14


def test_clipping_at_full_rank_is_clipping_of_the_full_gradient():
    b, a = pair(6, 6, 6)
    loft = Trained(b, a, loss_of(6, 6), lr=3e-3, max_grad_norm=0.05)
    full = (b @ a).requires_grad_()
    adamw = torch.optim.AdamW([full], lr=3e-3, eps=1e-4, weight_decay=0)
    norms = []
    for _ in range(STEPS):
        loft.step()
        adamw.zero_grad()
        loft.loss(full).backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_([full], 0.05)))
        adamw.step()
    assert min(norms) > 0.05
    # torch divides by norm + 1e-6.
    assert biggest(loft.product - full.detach()) <= 1e-5


def test_it_goes_up_where_it_maximises():
    size = 5
    b, a = pair(size, size, size)
    loss = loss_of(size, size)
    down = Trained(b, a, loss, lr=3e-3)
    up = Trained(b, a, lambda matrix: -loss(matrix), lr=3e-3, maximize=True)
    for _ in range(5):
        down.step()
        up.step()
    assert torch.equal(down.product, up.product)


# --- the paper's formulas -------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("max_norm", [None, 0.1])
def test_it_is_the_slow_reference(shape, weight_decay, max_norm):
    m, n, _ = shape
    b, a = pair(*shape)
    options = {"lr": 3e-3, "weight_decay": weight_decay}
    loft = Trained(b, a, loss_of(m, n), max_grad_norm=max_norm, **options)
    reference = Reference(b.numpy().copy(), a.numpy().copy(), max_norm=max_norm, **options)
    for _ in range(STEPS):
        matrix = torch.from_numpy(reference.b @ reference.a).requires_grad_()
        loft.loss(matrix).backward()
        reference.step(matrix.grad.numpy())
        loft.step()
    assert float(np.abs(reference.b - b.numpy()).max()) > 0.02
    assert float(np.abs(reference.b - loft.b.detach().numpy()).max()) <= 1e-12
    assert float(np.abs(reference.a - loft.a.detach().numpy()).max()) <= 1e-12


@pytest.mark.parametrize("block", [1, 10, 1000])
def test_the_size_of_a_block_changes_nothing(block, monkeypatch):
    runs = []
    for size in (1 << 20, block):
        monkeypatch.setitem(BLOCKS, "cpu", size)
        loft = Trained(*pair(9, 6, 3), loss_of(9, 6), lr=3e-3)
        for _ in range(4):
            loft.step()
        runs.append(loft.product)
    assert biggest(runs[0] - runs[1]) <= 1e-14


def test_pairs_of_one_optimizer_do_not_know_each_other():
    shapes = [(6, 9, 3), (6, 9, 3), (9, 6, 3), (6, 9, 2)]
    alone = [Trained(*pair(*s, seed=i), loss_of(s[0], s[1]), lr=3e-3) for i, s in enumerate(shapes)]
    together = [
        Trained(*pair(*s, seed=i), loss_of(s[0], s[1]), lr=3e-3) for i, s in enumerate(shapes)
    ]
    params = [param for each in together for param in (each.a, each.b)]
    optimizer = LoFT([{"kind": "pairs", "params": params}], lr=3e-3)
    for _ in range(6):
        for each in alone:
            each.step()
        optimizer.zero_grad()
        torch.stack([each.loss(each.b @ each.a) for each in together]).sum().backward()
        optimizer.step()
    for one, other in zip(alone, together, strict=True):
        assert biggest(one.product - other.product) <= 1e-14


# --- symmetries -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", [1, 2])
def test_what_ba_becomes_does_not_depend_on_how_it_is_factored(shape, seed):
    m, n, r = shape
    b, a = pair(*shape)
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.eye(r, dtype=torch.float64) + 0.3 * torch.randn(
        r, r, dtype=torch.float64, generator=generator
    )
    options = {"lr": 3e-3, "weight_decay": 0.1, "max_grad_norm": 0.1}
    one = Trained(b, a, loss_of(m, n), **options)
    other = Trained(b @ mixing, torch.linalg.solve(mixing, a), loss_of(m, n), **options)
    for _ in range(STEPS):
        one.step()
        other.step()
    assert biggest(one.product - b @ a) > 0.02
    assert biggest(one.product - other.product) <= 1e-10


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_a_scale_moved_from_one_factor_to_the_other_changes_nothing(scale):
    b, a = pair(6, 9, 3)
    one = Trained(b, a, loss_of(6, 9), lr=3e-3)
    other = Trained(b * scale, a / scale, loss_of(6, 9), lr=3e-3)
    for _ in range(STEPS):
        one.step()
        other.step()
    assert biggest(one.product - other.product) <= 1e-12


def test_a_scale_of_each_column_of_b_changes_nothing_even_if_scales_differ_much():
    b, a = pair(6, 9, 3)
    scales = torch.tensor([1e-5, 1.0, 1e5], dtype=torch.float64)
    one = Trained(b, a, loss_of(6, 9), lr=3e-3)
    other = Trained(b * scales, a / scales[:, None], loss_of(6, 9), lr=3e-3)
    for _ in range(STEPS):
        one.step()
        other.step()
    assert biggest(one.product - other.product) <= 1e-9


def test_permuted_rows_columns_and_ranks_lead_to_the_permuted_matrix():
    b, a = pair(6, 9, 3)
    loss = loss_of(6, 9)
    rows, columns, ranks = torch.randperm(6), torch.randperm(9), torch.tensor([2, 0, 1])
    one = Trained(b, a, loss, lr=3e-3)
    back_rows, back_columns = rows.argsort(), columns.argsort()
    other = Trained(
        b[rows][:, ranks],
        a[:, columns][ranks],
        lambda matrix: loss(matrix[back_rows][:, back_columns]),
        lr=3e-3,
    )
    for _ in range(STEPS):
        one.step()
        other.step()
    assert biggest(one.product[rows][:, columns] - other.product) <= 1e-12


def test_the_loss_s_unit_does_not_matter_where_eps_does_not():
    b, a = pair(6, 9, 3)
    loss = loss_of(6, 9)
    one = Trained(b, a, loss, lr=3e-3, eps=1e-12)
    other = Trained(b, a, lambda matrix: 1000 * loss(matrix), lr=3e-3, eps=1e-9)
    for _ in range(STEPS):
        one.step()
        other.step()
    assert biggest(one.product - other.product) <= 1e-12
