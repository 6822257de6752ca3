"""The memory plan against real tensors: of the model, the adapter, the optimiser, the graph."""

from dataclasses import replace

import pytest
import torch
from tests.roles.training.dialogues import made
from tiny_families import CASES, tiny

from veche.checkpoint.config import read_config, spec_of
from veche.launch.gpus import find_gpu
from veche.planning.bases import load_base
from veche.roles.training.learner import Learner
from veche.roles.training.memory_plan import (
    PassSize,
    fitting_cards,
    largest_pass,
    plan_memory,
)
from veche.roles.training.optimizer import OPTIMIZERS
from veche.roles.training.settings import TrainingSettings, chosen
from veche.roles.training.train import model_with_adapter

GIVEN = TrainingSettings(rank=3, gradient_checkpointing=False)


def planned(folder, settings, examples):
    size = PassSize(
        prefix_tokens=sum(len(example.prefix_ids) for example in examples),
        suffix_tokens=sum(len(example.suffix_ids) for example in examples),
        answer_tokens=sum(example.num_loss for example in examples),
    )
    return plan_memory(spec_of(read_config(folder)), settings, size)


def settled(folder, settings=GIVEN):
    return chosen(settings, spec_of(read_config(folder)), num_examples=8)


EXAMPLES = [made(30, 50, 20, seed=1), made(20, 40, 10, seed=2)]
EVERYWHERE = [made(0, 80, 20, seed=1), made(0, 60, 10, seed=2)]


def state_bytes(model, settings):
    """Return the bytes of an optimiser's tensors after one step."""
    optimizer = OPTIMIZERS[settings.optimizer](model, settings)
    for weight in model.parameters():
        if weight.requires_grad:
            weight.grad = torch.full_like(weight, 0.01)
    optimizer.step()
    return sum(
        value.nbytes
        for state in optimizer.state_dict()["state"].values()
        for value in state.values()
        if isinstance(value, torch.Tensor)
    )


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("kind", ["adamw", "loft", "merged-experts"])
def test_weights_adapter_gradients_and_states_are_exact(case, kind, tmp_path):
    folder = tiny(tmp_path / "model", case)
    is_moe = spec_of(read_config(folder)).is_moe
    if kind == "merged-experts" and not is_moe:
        pytest.skip("it has no experts")
    changes = {"method": kind} if kind == "merged-experts" else {"optimizer": kind}
    settings = settled(folder, replace(GIVEN, **changes))
    plan = planned(folder, settings, EXAMPLES)
    model = model_with_adapter(folder, settings)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    frozen = [weight for weight in model.parameters() if not weight.requires_grad]
    assert plan.weights == sum(weight.nbytes for weight in frozen)
    assert plan.adapter == sum(weight.nbytes for weight in trained)
    assert plan.optimizer == state_bytes(model, settings)
    assert plan.gradients == sum(weight.grad.nbytes for weight in trained)


def kept_for_backward(model, examples):
    """Return the bytes that autograd keeps of a pass, parameters aside; each storage once."""
    parameters = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    storages = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            storages[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss, _ = Learner(model, wants_balance=False)(examples)
    del loss
    return sum(storage.nbytes() for storage in storages.values())


FAMILIES = ["llama", "qwen2", "mixtral", "olmoe", "qwen3_moe", "qwen2_moe"]


@pytest.mark.parametrize("case", FAMILIES)
@pytest.mark.parametrize("top_k", [3, 6])
@pytest.mark.parametrize("method", ["alora", "merged-experts"])
def test_what_autograd_keeps_is_planned_within_a_tenth(case, top_k, method, tmp_path):
    is_moe = case not in ("llama", "qwen2")
    if not is_moe and (method != "alora" or top_k != 3):
        pytest.skip("it has no experts")
    folder = tiny(tmp_path / "model", case, **({"num_experts_per_tok": top_k} if is_moe else {}))
    settings = settled(folder, replace(GIVEN, method=method))
    examples = EXAMPLES if method == "alora" else EVERYWHERE
    plan = planned(folder, settings, examples)
    kept = kept_for_backward(model_with_adapter(folder, settings), examples)
    logits = 4 * plan.size.answer_tokens * 384  # their log-softmax, in float32
    assert plan.activations == pytest.approx(kept - logits, rel=0.1)
    assert plan.logits >= logits


def test_layers_computed_again_keep_their_inputs_alone(tmp_path):
    folder = tiny(tmp_path / "model", "mixtral")
    settings = settled(folder, replace(GIVEN, gradient_checkpointing=True))
    plan = planned(folder, settings, EXAMPLES)
    kept = kept_for_backward(model_with_adapter(folder, settings), EXAMPLES)
    whole = planned(folder, settled(folder), EXAMPLES)
    assert kept - 4 * plan.size.answer_tokens * 384 < plan.activations < whole.activations


def test_the_largest_pass_is_the_largest(tmp_path):
    folder = tiny(tmp_path / "model", "llama")
    examples = tuple(made(n % 7, 10 + n, 3, seed=n) for n in range(20))
    settings = chosen(
        TrainingSettings(batch=4, micro_batch=1, epochs=2),
        spec_of(read_config(folder)),
        num_examples=20,
    )
    assert largest_pass(examples, settings) == PassSize(
        prefix_tokens=19 % 7, suffix_tokens=29, answer_tokens=3
    )


def test_a_card_is_enough_or_several_share_the_model():
    spec = spec_of(load_base("qwen3-30b-a3b"))
    settings = chosen(TrainingSettings(), spec, num_examples=1000)
    plan = plan_memory(
        spec, settings, PassSize(prefix_tokens=4096, suffix_tokens=4096, answer_tokens=2048)
    )
    assert 60e9 < plan.weights < 62e9
    assert plan.num_cards(find_gpu("rtx-4090")) > 1
    assert plan.num_cards(find_gpu("b200")) == 1
    cards = fitting_cards(plan)
    assert cards["rtx-4090"] == plan.num_cards(find_gpu("rtx-4090"))
    for name in ("rtx-4090", "h100-sxm"):
        gpu = find_gpu(name)
        free = gpu.visible_bytes[0] - plan.own
        assert plan.shared <= cards[name] * free


def test_a_pass_that_fits_no_card_says_so():
    spec = spec_of(load_base("qwen3-30b-a3b"))
    settings = chosen(TrainingSettings(gradient_checkpointing=False), spec, num_examples=1000)
    plan = plan_memory(
        spec, settings, PassSize(prefix_tokens=0, suffix_tokens=1 << 20, answer_tokens=1 << 19)
    )
    assert fitting_cards(plan)["rtx-4090"] is None
