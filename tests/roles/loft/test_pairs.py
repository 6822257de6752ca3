"""Pairs of PEFT models: found where BA is all that an adapter adds, refused elsewhere."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import VOCAB_SIZE, tiny_mixtral, tiny_qwen3_moe
from torch import nn
from transformers import AutoModelForCausalLM

from veche.core.errors import InputError, UnsupportedError
from veche.roles.loft.optimizer import LoFT
from veche.roles.loft.pairs import lora_pairs, parameter_groups

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    top = tmp_path_factory.mktemp("models")
    return {
        "mixtral": tiny_mixtral(top / "mixtral"),
        "qwen3_moe": tiny_qwen3_moe(top / "qwen3_moe"),
    }


@pytest.fixture(scope="module")
def folder(folders):
    return folders["qwen3_moe"]


def adapted(folder, *, rank=4, alpha=None, **options):
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    alpha = rank if alpha is None else alpha
    config = LoraConfig(r=rank, lora_alpha=alpha, **{"target_modules": ATTENTION, **options})
    return get_peft_model(base, config)


def loss_of(model, ids):
    return model(input_ids=ids, labels=ids, use_cache=False).loss


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_an_attention_adapter_s_loss_falls(folders, family):
    torch.manual_seed(0)
    model = adapted(folders[family])
    groups = parameter_groups(model)
    assert len(groups) == 1
    assert len(groups[0]["params"]) == 2 * 4 * 3
    optimizer = LoFT(groups, lr=1e-2, max_grad_norm=1.0)
    ids = torch.randint(3, VOCAB_SIZE, (4, 24), generator=torch.Generator().manual_seed(0))
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        loss = loss_of(model, ids)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.6 * losses[0]
    assert all(torch.equal(p, frozen[n]) for n, p in model.named_parameters() if n in frozen)


def test_pairs_are_all_of_the_adapter_s_factors_with_b_times_a_as_large_as_the_weight(folder):
    model = adapted(folder)
    pairs = lora_pairs(model)
    modules = dict(model.named_modules())
    for pair in pairs:
        assert (pair.b @ pair.a).shape == modules[pair.name].base_layer.weight.shape
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    assert {id(p) for pair in pairs for p in (pair.a, pair.b)} == trained
    assert all(pair.name.rpartition(".")[2] in ATTENTION for pair in pairs)


def test_an_adapter_with_an_invocation_has_the_same_pairs(folder):
    plain = lora_pairs(adapted(folder))
    invoked = lora_pairs(adapted(folder, alora_invocation_tokens=[5, 6], task_type="CAUSAL_LM"))
    assert [pair.name for pair in invoked] == [pair.name for pair in plain]


def test_of_several_adapters_the_trained_one_is_taken(folder):
    model = adapted(folder)
    model.add_adapter("other", LoraConfig(r=2, lora_alpha=2, target_modules=["q_proj"]))
    model.set_adapter("other")
    pairs = lora_pairs(model)
    assert {pair.a.shape[0] for pair in pairs} == {2}
    assert lora_pairs(model, "other") == pairs
    with pytest.raises(InputError, match="'default' is not trained") as caught:
        lora_pairs(model, "default")
    assert "set_adapter" in caught.value.hint


def test_several_trained_adapters_are_refused_unless_one_is_named(folder):
    model = adapted(folder)
    model.add_adapter("other", LoraConfig(r=2, lora_alpha=2, target_modules=["q_proj"]))
    model.base_model.set_adapter(["default", "other"])
    with pytest.raises(InputError, match="several adapters are trained"):
        lora_pairs(model)
    assert {pair.a.shape[0] for pair in lora_pairs(model, "default")} == {4}
    with pytest.raises(UnsupportedError, match="was not told about"):
        parameter_groups(model, adapter="default")


def test_a_model_without_a_trained_adapter_is_refused(folder):
    model = adapted(folder)
    model.requires_grad_(False)
    with pytest.raises(InputError, match="no LoRA adapter that is trained"):
        lora_pairs(model)
    with pytest.raises(InputError, match="no LoRA adapter that is trained"):
        lora_pairs(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "fused experts"),
        ({"use_dora": True}, "DoraLinear"),
        ({"lora_dropout": 0.1}, "dropout"),
        ({"alpha": 8}, "adds 2 BA"),
        ({"alpha": 4, "use_rslora": True}, "adds 2 BA"),
        ({"target_modules": ["q_proj", "embed_tokens"]}, "Embedding"),
    ],
)
def test_what_is_no_product_of_a_pair_is_refused_with_a_reason_and_a_next_step(
    folder, options, why
):
    with pytest.raises(UnsupportedError, match=why) as caught:
        lora_pairs(adapted(folder, **options))
    assert "--optimizer adamw" in caught.value.hint
    assert "model.layers" in caught.value.message or "embed_tokens" in caught.value.message


@pytest.mark.parametrize(
    ("options", "why", "next_step"),
    [
        ({"modules_to_save": ["lm_head"]}, "modules_to_save", "without modules_to_save"),
        ({"bias": "lora_only"}, "biases", "bias='none'"),
    ],
)
def test_what_is_trained_beside_the_pairs_is_refused_unless_named(
    tmp_path, options, why, next_step
):
    model = adapted(tiny_qwen3_moe(tmp_path / "model", attention_bias=True), **options)
    with pytest.raises(UnsupportedError, match=why) as caught:
        parameter_groups(model)
    assert next_step in caught.value.hint
    beside = [
        (name, param)
        for name, param in model.named_parameters()
        if param.requires_grad and "lora_" not in name
    ]
    assert parameter_groups(model, plain=beside)[1]["params"] == beside


def test_a_bias_of_the_factor_b_is_refused(tmp_path):
    folder = tiny_qwen3_moe(tmp_path / "model", attention_bias=True)
    with pytest.raises(UnsupportedError, match="its B has a bias"):
        lora_pairs(adapted(folder, lora_bias=True))


def test_routers_are_trained_by_adamw_beside_the_pairs(folder):
    torch.manual_seed(0)
    model = adapted(folder)
    routers = [
        (name, param) for name, param in model.named_parameters() if name.endswith("gate.weight")
    ]
    assert len(routers) == 3
    for _, router in routers:
        router.requires_grad_(True)
    with pytest.raises(UnsupportedError, match="whole parameters"):
        parameter_groups(model)
    optimizer = LoFT(parameter_groups(model, plain=routers), lr=1e-3)
    twin = {name: param.detach().clone().requires_grad_() for name, param in routers}
    adamw = torch.optim.AdamW(twin.values(), lr=1e-3, weight_decay=0)
    ids = torch.randint(3, VOCAB_SIZE, (2, 16), generator=torch.Generator().manual_seed(0))
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(model, ids).backward()
        for name, param in routers:
            twin[name].grad = param.grad.clone()
        optimizer.step()
        adamw.step()
    assert all(torch.equal(param, twin[name]) for name, param in routers)


def test_a_bfloat16_model_has_float32_factors_and_learns(folder):
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    config = LoraConfig(r=4, lora_alpha=4, target_modules=ATTENTION)
    model = get_peft_model(base, config)
    pairs = lora_pairs(model)
    assert {factor.dtype for pair in pairs for factor in (pair.a, pair.b)} == {torch.float32}
    optimizer = LoFT(parameter_groups(model), lr=1e-2)
    ids = torch.randint(3, VOCAB_SIZE, (4, 24), generator=torch.Generator().manual_seed(0))
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = loss_of(model, ids)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
