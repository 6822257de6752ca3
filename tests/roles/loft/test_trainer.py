"""LoFT in the hands of transformers' Trainer, which wraps, saves and loads optimizers itself."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny_models import VOCAB_SIZE, tiny_mixtral
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from veche.roles.loft.optimizer import LoFT
from veche.roles.loft.pairs import parameter_groups

STEPS, SAVED_AT = 7, 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_mixtral(tmp_path_factory.mktemp("models") / "mixtral")


def trainer_of(folder, out):
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=4, target_modules=["q_proj", "v_proj"]))
    ids = torch.randint(3, VOCAB_SIZE, (16, 12), generator=torch.Generator().manual_seed(0))
    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=STEPS,
        save_steps=SAVED_AT,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        max_grad_norm=0,  # LoFT clips
        warmup_steps=2,
        lr_scheduler_type="cosine",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    optimizer = LoFT(parameter_groups(model), lr=1e-2, max_grad_norm=1.0)
    data = [{"input_ids": row, "labels": row} for row in ids]
    return Trainer(model, arguments, train_dataset=data, optimizers=(optimizer, None))


def test_a_run_of_trainer_that_is_resumed_ends_with_the_same_bits(folder, tmp_path):
    whole = trainer_of(folder, tmp_path / "whole")
    whole.train()
    resumed = trainer_of(folder, tmp_path / "resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / f"checkpoint-{SAVED_AT}"))
    untrained = trainer_of(folder, tmp_path / "untrained")
    start = dict(untrained.model.named_parameters())
    other = dict(resumed.model.named_parameters())
    for name, param in whole.model.named_parameters():
        assert torch.equal(param, other[name]), name
        assert torch.equal(param, start[name]) != param.requires_grad, name
