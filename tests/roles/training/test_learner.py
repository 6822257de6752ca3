"""The loss and its gradients against PEFT, TRL and transformers, which compute them plainly."""

import warnings

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.roles.training.dialogues import made
from tiny_families import CASES, tiny
from tiny_models import tiny_mixtral
from torch.nn.functional import cross_entropy

from veche.experts.balance_loss import load_balancing_loss
from veche.roles.training.adapter import ATTENTION
from veche.roles.training.frozen_experts import experts_forward, use_frozen_experts
from veche.roles.training.learner import Learner
from veche.roles.training.train import checkpoint_layers
from veche.surgery.loading import load_model

INVOCATION = (7, 8, 9)


def invoked(prefix, suffix, loss, seed):
    """Return random tokens whose suffix begins with the invocation."""
    example = made(prefix, suffix, loss, seed=seed)
    return type(example)(
        prefix_ids=tuple(10 + t % 300 for t in example.prefix_ids),
        suffix_ids=INVOCATION + tuple(10 + t % 300 for t in example.suffix_ids[3:]),
        num_loss=loss,
    )


EXAMPLES = [invoked(9, 14, 5, 1), invoked(4, 11, 8, 2), invoked(17, 6, 1, 3)]


def double(folder):
    """Return a model in float64, which torch's grouped kernel does not take."""
    model = load_model(folder, dtype=torch.float64)
    model.config._experts_implementation = "eager"
    return model


def lora(model, *, is_invoked=False):
    """Return a PEFT model with weights that are nowhere 0."""
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=[*ATTENTION],
        task_type="CAUSAL_LM",
        alora_invocation_tokens=[*INVOCATION] if is_invoked else None,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = get_peft_model(model, config)
    generator = torch.Generator().manual_seed(0)
    for name, weight in wrapped.named_parameters():
        if "lora_" in name:
            weight.data = 0.2 * torch.randn(weight.shape, generator=generator).to(weight.dtype)
    return wrapped


def gradients(model):
    found = {n: w.grad.clone() for n, w in model.named_parameters() if w.grad is not None}
    model.zero_grad()
    return found


def close(ours, theirs, tolerance=1e-9):
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        scale = theirs[name].abs().max()
        assert scale > 0, name
        assert (gradient - theirs[name]).abs().max() <= tolerance * scale, name


def plain_loss(model, examples, *, is_batch):
    """Return transformers' own logits, row by row or padded as one batch, and their summed loss."""
    rows = [[*e.prefix_ids, *e.suffix_ids] for e in examples]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    batches = [(ids, mask)] if is_batch else [(torch.tensor([row]), None) for row in rows]
    total = 0
    for number, (inputs, attention) in enumerate(batches):
        logits = model(input_ids=inputs, attention_mask=attention).logits
        of = examples if is_batch else [examples[number]]
        for row, example in enumerate(of):
            n, end = example.num_loss, example.num_tokens
            wanted = torch.tensor(example.suffix_ids[-n:])
            answer = logits[row, end - n - 1 : end - 1]
            total = total + cross_entropy(answer, wanted, reduction="sum")
    return total


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_are_those_of_pefts_own_invoked_adapter(case, tmp_path):
    folder = tiny(tmp_path / "model", case, dtype=torch.float64)
    theirs = lora(double(folder), is_invoked=True)
    expected = plain_loss(theirs, EXAMPLES, is_batch=False)
    expected.backward()
    ours = lora(double(folder))
    loss, balance = Learner(ours, wants_balance=False)(EXAMPLES)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-7)
    assert balance.item() == 0
    close(gradients(ours), gradients(theirs), 1e-6)  # RoPE and routers compute in float32


def test_without_a_prefix_it_is_a_plain_adapter(tmp_path):
    folder = tiny_mixtral(tmp_path / "model")
    examples = [made(0, 20, 6, seed=1), made(0, 9, 3, seed=2)]
    model = lora(double(folder))
    expected = plain_loss(model, examples, is_batch=True)
    expected.backward()
    theirs = gradients(model)
    loss, _ = Learner(model, wants_balance=False)(examples)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-7)
    close(gradients(model), theirs, 1e-6)


class TestOneExampleAndItsNeighbours:
    @pytest.fixture
    def model(self, tmp_path):
        return lora(double(tiny_mixtral(tmp_path / "model")))

    def test_packed_examples_add_up(self, model):
        learner = Learner(model, wants_balance=False)
        together, _ = learner(EXAMPLES)
        together.backward()
        packed = gradients(model)
        alone = sum(learner([example])[0] for example in EXAMPLES)
        alone.backward()
        assert together.item() == pytest.approx(alone.item(), rel=1e-12)
        close(packed, gradients(model))

    def test_no_token_sees_another_example(self, model):
        """Every answer's loss is the same to the last bits, whatever lies before and behind it."""
        learner = Learner(model, wants_balance=False)
        middle = EXAMPLES[1]
        losses = []
        for seed in (5, 6, 7):
            first, last = invoked(9, 14, 5, seed), invoked(17, 6, 1, seed + 10)
            whole, without = learner([first, middle, last])[0], learner([first, last])[0]
            losses.append((whole - without).item())
        assert max(losses) - min(losses) <= 1e-9 * abs(losses[0])
        assert losses[0] == pytest.approx(learner([middle])[0].item(), rel=1e-9)


def test_layers_computed_again_give_the_same_gradients(tmp_path):
    folder = tiny_mixtral(tmp_path / "model")
    kept, again = (lora(double(folder)) for _ in range(2))
    checkpoint_layers(again.get_base_model())
    for model in (kept, again):
        loss, balance = Learner(model, wants_balance=True)(EXAMPLES)
        (loss + 3 * balance).backward()
    close(gradients(again), gradients(kept))
    assert all(not m.training for m in again.modules() if "Dropout" in type(m).__name__)


@pytest.mark.parametrize("case", ["mixtral", "qwen3_moe-some-dense", "olmoe", "qwen2_moe"])
def test_the_balance_loss_is_of_each_layers_own_logits(case, tmp_path):
    folder = tiny(tmp_path / "model", case, dtype=torch.float64)
    example = made(0, 30, 4, seed=3)
    model = lora(double(folder))
    outputs = model(input_ids=torch.tensor([example.suffix_ids]), output_router_logits=True)
    # The routers' own projections, heard where transformers hears them.
    assert all(logits.shape == (30, 8) for logits in outputs.router_logits)
    expected = load_balancing_loss(outputs.router_logits, 3)
    expected.backward()
    theirs = gradients(model)
    _, balance = Learner(model, wants_balance=True)([example])
    assert balance.item() == pytest.approx(expected.item(), rel=1e-9)
    balance.backward()
    close(gradients(model), {name: theirs[name] for name in theirs}, 1e-6)


class TestFrozenExperts:
    def test_they_are_the_plain_experts(self, tmp_path):
        model = double(tiny_mixtral(tmp_path / "model", num_experts_per_tok=5))
        experts = model.model.layers[0].mlp.experts
        generator = torch.Generator().manual_seed(0)
        inputs = torch.randn(40, 32, generator=generator, dtype=torch.float64, requires_grad=True)
        scores = torch.rand(40, 8, generator=generator, dtype=torch.float64)
        weights, chosen = scores.topk(5)
        weights.requires_grad_()
        answers = []
        for forward in (experts, lambda *given: experts_forward(experts, *given)):
            answer = forward(inputs, chosen, weights)
            answers.append((answer, *torch.autograd.grad(answer.sin().sum(), (inputs, weights))))
        for ours, theirs in zip(answers[1], answers[0], strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)

    def test_a_model_computes_the_same_with_them_and_keeps_its_weights(self, tmp_path):
        folder = tiny_mixtral(tmp_path / "model", num_experts_per_tok=5)
        plain, frozen = (double(folder) for _ in range(2))
        assert use_frozen_experts(frozen)
        ids = torch.tensor([made(0, 20, 1, seed=0).suffix_ids])
        torch.testing.assert_close(frozen(ids).logits, plain(ids).logits, rtol=1e-9, atol=1e-9)
        for (name, ours), theirs in zip(
            frozen.state_dict().items(), plain.state_dict().values(), strict=True
        ):
            assert torch.equal(ours, theirs), name

    def test_few_active_experts_and_dense_models_stay_as_they_are(self, tmp_path):
        few = load_model(tiny_mixtral(tmp_path / "few", num_experts_per_tok=2))
        assert not use_frozen_experts(few)
        assert not use_frozen_experts(load_model(tiny(tmp_path / "dense", "llama")))


def test_one_step_of_trl_has_the_same_loss_and_gradients(tmp_path):
    """TRL's own trainer, on the same tokens with its own mask of prompts, padded."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from veche.surgery.loading import load_tokenizer

    folder = tiny_mixtral(tmp_path / "model")
    examples = [made(0, 20, 6, seed=1), made(0, 9, 3, seed=2), made(0, 14, 9, seed=4)]
    model = lora(load_model(folder, dtype=torch.float32))
    rows = [
        {
            "input_ids": [*e.suffix_ids],
            "labels": [-100] * (len(e.suffix_ids) - e.num_loss) + [*e.suffix_ids[-e.num_loss :]],
        }
        for e in examples
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(
                output_dir=str(tmp_path / "trl"),
                per_device_train_batch_size=3,
                use_cpu=True,
                bf16=False,
                report_to="none",
                save_strategy="no",
                gradient_checkpointing=False,
                router_aux_loss_coef=0.0,
                max_length=None,
                disable_tqdm=True,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=load_tokenizer(folder),
        )
        batch = trainer.data_collator([trainer.train_dataset[n] for n in range(3)])
        num_loss = sum(e.num_loss for e in examples)
        model.zero_grad()
        expected = trainer.compute_loss(model.eval(), batch, num_items_in_batch=num_loss)
    expected.backward()
    theirs = gradients(model)
    loss, _ = Learner(model, wants_balance=False)(examples)
    (loss / num_loss).backward()
    assert loss.item() / num_loss == pytest.approx(expected.item(), rel=1e-5)
    close(gradients(model), theirs, 1e-4)
