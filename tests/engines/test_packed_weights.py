"""Packed weights and experts at once compute what the plain layers compute."""

import pytest
import torch
from torch import nn
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralExperts

from veche.engines.embedded import experts_at_once
from veche.engines.embedded.forward import Runner
from veche.engines.embedded.packed_weights import (
    PackedWeight,
    can_pack,
    pack_linear_layers,
    packable,
)
from veche.engines.protocol import Branch, Capture, Sampling
from veche.engines.transformers import create

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2}
needs_packing = pytest.mark.skipif(
    not can_pack(torch.zeros(512, 512)), reason="this build of torch packs no weights"
)


@needs_packing
@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("shape", [(1, 300), (5, 300), (70, 300), (2, 3, 300)])
@pytest.mark.parametrize("has_bias", [False, True])
def test_a_packed_layer_equals_the_plain_one(dtype, shape, has_bias):
    torch.manual_seed(0)
    layer = nn.Linear(300, 400, bias=has_bias).to(dtype)
    inputs = torch.randn(shape).to(dtype)
    with torch.inference_mode():
        expected = layer(inputs)
        pack_linear_layers(packable(layer))
        answer = layer(inputs)
    assert answer.shape == expected.shape
    assert torch.allclose(answer, expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_small_layers_other_types_and_other_classes_are_left_alone():
    class Other(nn.Linear):
        pass

    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(512, 512).double(), Other(512, 512))
    assert packable(model) == []


def experts(dtype, num_experts=8, width=64, hidden=128):
    torch.manual_seed(1)
    config = MixtralConfig(
        hidden_size=hidden, intermediate_size=width, num_local_experts=num_experts
    )
    config._experts_implementation = experts_at_once.NAME
    module = MixtralExperts(config)
    for weight in module.parameters():
        weight.data = 0.1 * torch.randn(weight.shape)
    return module.to(dtype).eval()


def one_by_one(module, hidden_states, ids, weights):
    """The slow obvious way: token by token, expert by expert, in float64."""
    answer = torch.zeros(hidden_states.shape, dtype=torch.float64)
    for token, state in enumerate(hidden_states.double()):
        for expert, weight in zip(ids[token].tolist(), weights[token].double(), strict=True):
            gate, up = (module.gate_up_proj[expert].double() @ state).chunk(2)
            inner = nn.functional.silu(gate) * up
            answer[token] += weight * (module.down_proj[expert].double() @ inner)
    return answer


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("num_tokens", [1, 5, 64, 100])
@pytest.mark.parametrize("top_k", [1, 2, 6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_experts_at_once_equal_experts_one_by_one(is_packed, num_tokens, top_k, dtype):
    module = experts(dtype)
    if is_packed and can_pack(module.gate_up_proj):
        experts_at_once.pack_experts([module])
    hidden_states = torch.randn(num_tokens, 128).to(dtype)
    weights, ids = torch.softmax(torch.randn(num_tokens, 8), -1).topk(top_k)
    with torch.inference_mode():
        answer = module(hidden_states, ids, weights)
        expected = one_by_one(module, hidden_states, ids, weights)
    scale = float(expected.abs().max())
    tolerance = {torch.float64: 1e-6, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    assert torch.allclose(answer.double(), expected, rtol=0, atol=tolerance * scale)


def test_a_slot_without_weight_adds_nothing_whatever_expert_it_names():
    module = experts(torch.float32)
    hidden_states = torch.randn(3, 128)
    ids = torch.tensor([[2, 2], [1, 2], [5, 0]])
    weights = torch.tensor([[0.7, 0.0], [0.4, 0.6], [1.0, 0.0]])
    with torch.inference_mode():
        answer = module(hidden_states, ids, weights)
    expected = one_by_one(module, hidden_states, ids, weights)
    assert torch.allclose(answer.double(), expected, rtol=0, atol=1e-5)


@needs_packing
def test_packing_keeps_its_limit_and_changes_no_answer(tmp_path):
    from tests import tiny_models

    shape = {"hidden_size": 128, "head_dim": 128, "moe_intermediate_size": 64}
    folder = tiny_models.tiny_qwen3_moe(tmp_path, initializer_range=0.1, **shape)
    engine = create(folder, dtype="float32")
    plain = create(folder, dtype="float32")
    assert packed_layers(engine) > 0
    for module in plain._model.modules():
        module.__dict__.pop("forward", None)
        module.__dict__.pop("veche_packed", None)
    assert packed_layers(plain) == 0
    branch = Branch(
        voice="v",
        instruction=" Why",
        sampling=Sampling(max_new_tokens=12),
        capture=Capture(logits=True),
    )
    first, second = (
        each.decode(each.open_trunk(system="", user="Вопрос"), [branch])[0]
        for each in (engine, plain)
    )
    assert first.token_ids == second.token_ids
    assert abs(first.logits - second.logits).max() <= 1e-4 * abs(second.logits).max()
    runner = Runner(plain._model)
    num_bytes = runner.pack(1 << 40)
    assert num_bytes > 0
    assert Runner(plain._model).pack(num_bytes - 1) == 0


def packed_layers(engine):
    return sum(isinstance(value, PackedWeight) for value in packed_values(engine))


def packed_values(engine):
    for module in engine._model.modules():
        yield module.__dict__.get("veche_packed")
        forward = module.__dict__.get("forward")
        yield from (getattr(forward, "__defaults__", None) or ()) if forward else ()
