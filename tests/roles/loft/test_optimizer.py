"""LoFT as an optimizer: its state, what it refuses, and what it leaves alone."""

import io
import math

import pytest
import torch
from roles.loft.problem import Trained, loss_of, pair
from safetensors.torch import load, save
from torch import Tensor

from veche.core.errors import FailureError, InputError, UnsupportedError
from veche.roles.loft.groups import PLAIN_EPS
from veche.roles.loft.optimizer import LoFT
from veche.roles.loft.pair_step import state_bytes

M, N, R = 6, 9, 3


class Mixed:
    """Two pairs, and a whole matrix beside them."""

    def __init__(self, *, dtype: torch.dtype = torch.float32, **options: object) -> None:
        generator = torch.Generator().manual_seed(0)

        def param(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).to(dtype).requires_grad_()

        self.pairs = [param(R, N), param(M, R), param(R, N), param(M, R)]
        self.whole = param(M, M)
        self.target = torch.randn(M, N, generator=generator).to(dtype)
        groups = [
            {"kind": "pairs", "params": self.pairs},
            {"kind": "plain", "params": [self.whole], "eps": PLAIN_EPS},
        ]
        self.optimizer = LoFT(groups, **{"lr": 1e-2, **options})  # type: ignore[arg-type]
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 3, gamma=0.5)

    def loss(self) -> Tensor:
        a, b, a2, b2 = self.pairs
        return ((b @ a + self.whole @ b2 @ a2 - self.target) ** 2).mean()

    def step(self) -> float:
        self.optimizer.zero_grad()
        loss = self.loss()
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        return float(loss.detach())

    @property
    def params(self) -> list[Tensor]:
        return [*self.pairs, self.whole]

    def copies(self) -> list[Tensor]:
        return [param.detach().clone() for param in self.params]


def by_torch(state: dict) -> dict:
    """Write and read a state as Trainer and accelerate do."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def by_safetensors(state: dict) -> dict:
    """Write and read a state's tensors as safetensors, which refuses memory that is shared."""
    tensors = {
        f"{index}.{key}": value
        for index, values in state["state"].items()
        for key, value in values.items()
    }
    read = load(save(tensors))
    found: dict = {}
    for name, tensor in read.items():
        index, _, key = name.partition(".")
        found.setdefault(int(index), {})[key] = tensor
    return {"state": found, "param_groups": state["param_groups"]}


# --- state ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [by_torch, by_safetensors])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("steps_before", [1, 4, 5])
def test_a_training_that_is_resumed_goes_on_to_the_bit(way, dtype, steps_before):
    options = {"weight_decay": 0.1, "max_grad_norm": 0.5}
    whole, resumed = Mixed(dtype=dtype, **options), Mixed(dtype=dtype, **options)
    for _ in range(steps_before):
        whole.step()
    with torch.no_grad():
        for param, value in zip(resumed.params, whole.copies(), strict=True):
            param.copy_(value)
    resumed.optimizer.load_state_dict(way(whole.optimizer.state_dict()))
    resumed.scheduler.load_state_dict(whole.scheduler.state_dict())
    for _ in range(6):
        assert whole.step() == resumed.step()
    for one, other in zip(whole.params, resumed.params, strict=True):
        assert torch.equal(one, other)


def test_a_loaded_state_is_its_own():
    mixed = Mixed()
    mixed.step()
    other = Mixed()
    state = mixed.optimizer.state_dict()
    other.optimizer.load_state_dict(state)
    before = state["state"][0]["exp_avg"].clone()
    other.step()
    assert torch.equal(state["state"][0]["exp_avg"], before)


def test_a_state_that_was_never_used_can_be_loaded():
    mixed, fresh = Mixed(), Mixed()
    mixed.optimizer.load_state_dict(by_torch(fresh.optimizer.state_dict()))
    assert mixed.step() == fresh.step()


def test_moments_are_float32_for_bfloat16_parameters_and_so_they_stay_when_loaded():
    mixed = Mixed(dtype=torch.bfloat16)
    mixed.step()
    mixed.optimizer.load_state_dict(by_torch(mixed.optimizer.state_dict()))
    for param in mixed.params:
        state = mixed.optimizer.state[param]
        assert {value.dtype for value in state.values()} == {torch.float32}
        assert param.dtype == torch.bfloat16


def test_bfloat16_parameters_learn_what_float32_parameters_learn_but_for_rounding():
    half, single = Mixed(dtype=torch.bfloat16), Mixed()
    first = [half.step() for _ in range(40)]
    second = [single.step() for _ in range(40)]
    assert first[-1] < 0.9 * first[0]
    assert first[-1] == pytest.approx(second[-1], rel=0.05)


def test_the_state_takes_what_is_announced():
    mixed = Mixed()
    mixed.step()
    found = [
        sum(value.nbytes for factor in factors for value in mixed.optimizer.state[factor].values())
        for factors in (mixed.pairs[:2], mixed.pairs[2:])
    ]
    assert found == [state_bytes(M, N, R)] * 2


def test_a_state_of_another_rank_or_of_another_optimizer_is_refused():
    mixed = Mixed()
    mixed.step()
    state = mixed.optimizer.state_dict()
    small = [torch.randn(2, N).requires_grad_(), torch.randn(M, 2).requires_grad_()]
    plain = {"kind": "plain", "params": [torch.zeros(M, M).requires_grad_()]}
    other = LoFT([{"kind": "pairs", "params": small * 1}, plain])
    with pytest.raises(InputError, match="groups are others"):
        other.load_state_dict(state)
    others = [torch.randn(2, N).requires_grad_(), torch.randn(M, 2).requires_grad_()]
    other = LoFT([{"kind": "pairs", "params": [*small, *others]}, plain])
    with pytest.raises(InputError, match="is needed") as caught:
        other.load_state_dict(state)
    assert "rank" in caught.value.hint
    adamw = torch.optim.AdamW(mixed.params)
    with pytest.raises(InputError, match="no state of LoFT"):
        mixed.optimizer.load_state_dict(adamw.state_dict())


# --- a zero factor --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_from_a_zero_b_the_first_step_already_lowers_the_loss(dtype):
    b, a = pair(M, N, R)
    loft = Trained(torch.zeros_like(b).to(dtype), a.to(dtype), loss_of(M, N), lr=1e-2)
    losses = [loft.step() for _ in range(2)]
    assert losses[1] < losses[0]
    losses += [loft.step() for _ in range(100)]
    assert losses[-1] < 0.9 * losses[0]
    assert all(math.isfinite(loss) for loss in losses)


def test_the_first_step_from_a_zero_b_is_adams_step_within_the_rows_of_a():
    b, a = pair(M, N, R)
    loft = Trained(torch.zeros_like(b), a, loss_of(M, N), lr=1e-2, eps=1e-12)
    loft.step()
    full = torch.zeros(M, N, dtype=torch.float64, requires_grad=True)
    loft.loss(full).backward()
    onto_rows = a.T @ torch.linalg.inv(a @ a.T) @ a
    step = -1e-2 * (full.grad @ onto_rows).sign() @ onto_rows
    assert float((loft.product - step).abs().max()) <= 1e-8


@pytest.mark.parametrize("lr", [0.0, 1e-12, 1e-6])
def test_a_b_that_hardly_moves_from_zero_leaves_all_finite(lr):
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(R, N, generator=generator)
    loft = Trained(torch.zeros(M, R), a, loss_of(M, N), lr=lr)
    for _ in range(6):
        loft.step()
    for param in (loft.a, loft.b):
        assert bool(param.isfinite().all())
        assert all(bool(value.isfinite().all()) for value in loft.optimizer.state[param].values())
    loft.optimizer.param_groups[0]["lr"] = 1e-2
    losses = [loft.step() for _ in range(30)]
    assert losses[-1] < losses[0]


def test_a_gradient_of_rank_one_from_a_zero_b_leaves_all_finite():
    generator = torch.Generator().manual_seed(0)
    row, column = (torch.randn(size, generator=generator) for size in (M, N))
    b, a = torch.zeros(M, R), torch.randn(R, N, generator=generator)
    loft = Trained(b, a, lambda matrix: (row @ matrix @ column - 1) ** 2, lr=1e-2)
    losses = [loft.step() for _ in range(60)]
    assert bool(loft.product.isfinite().all())
    assert losses[-1] < 0.1 * losses[0]


# --- gradients that are missing or no numbers -----------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("index", [0, 1, 4])
def test_a_gradient_that_is_no_number_is_an_error_and_nothing_changes(value, index):
    mixed = Mixed()
    mixed.step()
    mixed.optimizer.zero_grad()
    mixed.loss().backward()
    before, state = mixed.copies(), by_torch(mixed.optimizer.state_dict())
    gradient = mixed.params[index].grad
    assert gradient is not None
    gradient[0, 0] = value
    with pytest.raises(FailureError, match="not finite") as caught:
        mixed.optimizer.step()
    assert caught.value.hint
    for param, old in zip(mixed.params, before, strict=True):
        assert torch.equal(param, old)
    for index, values in mixed.optimizer.state_dict()["state"].items():
        assert all(torch.equal(value, state["state"][index][key]) for key, value in values.items())


def test_a_learning_rate_that_overflows_ends_in_the_same_error():
    b, a = pair(M, N, R)
    loft = Trained(b.float(), a.float(), loss_of(M, N), lr=1e38)
    with pytest.raises(FailureError, match="not finite"):  # noqa: PT012 - some step finds it
        for _ in range(10):
            loft.step()


def test_the_error_names_the_parameter_where_names_were_given():
    a, b = torch.ones(R, N).requires_grad_(), torch.ones(M, R).requires_grad_()
    optimizer = LoFT([{"kind": "pairs", "params": [("q_proj.lora_A", a), ("q_proj.lora_B", b)]}])
    a.grad, b.grad = torch.ones_like(a), torch.full_like(b, math.nan)
    with pytest.raises(FailureError, match=r"q_proj\.lora_B"):
        optimizer.step()


def test_pairs_and_matrices_without_gradients_stay_as_they_are():
    mixed = Mixed()
    mixed.step()
    mixed.optimizer.zero_grad()
    mixed.loss().backward()
    for param in (*mixed.pairs[2:], mixed.whole):
        param.grad = None
    before = mixed.copies()
    mixed.optimizer.step()
    assert not torch.equal(mixed.pairs[0], before[0])  # the second step moves A
    for param, old in zip(mixed.params[2:], before[2:], strict=True):
        assert torch.equal(param, old)
    assert mixed.step() > 0  # pairs that have made unequally many steps


def test_one_factor_without_a_gradient_is_an_error():
    mixed = Mixed()
    mixed.loss().backward()
    mixed.pairs[0].grad = None
    before = mixed.copies()
    with pytest.raises(FailureError, match="the other has none"):
        mixed.optimizer.step()
    for param, old in zip(mixed.params, before, strict=True):
        assert torch.equal(param, old)


# --- how it is used -------------------------------------------------------------------------------


def test_plain_parameters_are_trained_by_adamw():
    whole, twin = torch.randn(5, 4).requires_grad_(), None
    twin = whole.detach().clone().requires_grad_()
    ours = LoFT([{"kind": "plain", "params": [whole]}], lr=1e-2, weight_decay=0.1, eps=1e-8)
    theirs = torch.optim.AdamW([twin], lr=1e-2, weight_decay=0.1)
    for _ in range(10):
        for param, optimizer in ((whole, ours), (twin, theirs)):
            optimizer.zero_grad()
            (param**3).sum().backward()
            optimizer.step()
    assert torch.equal(whole, twin)


def test_clipping_is_over_all_groups():
    free, clipped = Mixed(max_grad_norm=1e9), Mixed(max_grad_norm=1e-3)
    for mixed in (free, clipped):
        mixed.step()
    # A's moments are in terms of B, which has moved by another length: they are not compared.
    scales = [
        float(clipped.optimizer.state[c]["exp_avg"].norm())
        / float(free.optimizer.state[f]["exp_avg"].norm())
        for f, c in zip(
            (*free.pairs[1::2], free.whole), (*clipped.pairs[1::2], clipped.whole), strict=True
        )
    ]
    assert scales == pytest.approx([scales[0]] * 3, rel=1e-4)
    # The first step moves B: the norm is of G A⁺A for the pairs, and of the gradient beside them.
    free.optimizer.zero_grad()
    other = Mixed()
    other.loss().backward()
    square = float(other.whole.grad.square().sum())
    for a, b in (other.pairs[:2], other.pairs[2:]):
        projected = b.grad @ torch.linalg.inv(a @ a.T) @ a
        square += float(projected.detach().square().sum())
    assert scales[0] == pytest.approx(1e-3 / math.sqrt(square), rel=1e-4)


def test_accumulated_gradients_are_the_gradient_of_the_sum():
    one, other = Mixed(), Mixed()
    for _ in range(4):
        one.optimizer.zero_grad()
        (2 * one.loss()).backward()
        one.optimizer.step()
        other.optimizer.zero_grad()
        other.loss().backward()
        other.loss().backward()
        other.optimizer.step()
    for first, second in zip(one.params, other.params, strict=True):
        assert torch.allclose(first, second, atol=1e-6)


def test_a_closure_computes_the_loss():
    mixed, twin = Mixed(), Mixed()

    def closure() -> float:
        mixed.optimizer.zero_grad()
        loss = mixed.loss()
        loss.backward()
        return loss.item()

    for _ in range(3):
        assert mixed.optimizer.step(closure) == twin.step()
        mixed.scheduler.step()


# --- what is no group of it -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("group", "problem"),
    [
        ({"params": [torch.zeros(2, 2)]}, "parameter_groups"),
        ({"kind": "pairs", "params": [torch.zeros(2, 5)]}, "A, B, A, B"),
        ({"kind": "pairs", "params": [torch.zeros(5, 2), torch.zeros(2, 6)]}, "no pair"),
        ({"kind": "pairs", "params": [torch.zeros(8, 2, 5), torch.zeros(6, 2)]}, "no pair"),
        (
            {"kind": "pairs", "params": [torch.zeros(2, 5), torch.zeros(6, 2).double()]},
            "different types",
        ),
        ({"kind": "plain", "params": [torch.zeros(2, 2, dtype=torch.cfloat)]}, "real"),
        ({"kind": "plain", "params": [torch.zeros(2)], "lr": -1.0}, "lr"),
        ({"kind": "plain", "params": [torch.zeros(2)], "lr": math.nan}, "lr"),
        ({"kind": "plain", "params": [torch.zeros(2)], "eps": 0.0}, "eps"),
        ({"kind": "plain", "params": [torch.zeros(2)], "betas": (0.9, 1.0)}, "betas"),
        ({"kind": "plain", "params": [torch.zeros(2)], "weight_decay": -0.1}, "weight_decay"),
    ],
)
def test_a_group_that_makes_no_sense_is_refused_with_what_is_wrong(group, problem):
    with pytest.raises(ValueError, match=problem):
        LoFT([group])


def test_a_norm_that_nothing_can_have_is_refused():
    with pytest.raises(ValueError, match="max_grad_norm"):
        Mixed(max_grad_norm=0.0)


def test_sharded_parameters_are_refused(tmp_path):
    from torch.distributed import destroy_process_group, init_process_group
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        a, b = (
            torch.nn.Parameter(distribute_tensor(torch.randn(*shape), mesh, [Shard(0)]))
            for shape in ((R, N), (M, R))
        )
        optimizer = LoFT([{"kind": "pairs", "params": [a, b]}])
        (b @ a).sum().backward()
        with pytest.raises(UnsupportedError, match="sharded") as caught:
            optimizer.step()
        assert "DDP" in caught.value.hint
    finally:
        destroy_process_group()
