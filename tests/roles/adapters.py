"""Random adapters and steerings for tiny models, written by PEFT and by veche themselves."""

import warnings
from pathlib import Path

import numpy as np

from veche.experts.identity import source_of
from veche.experts.steering.basis import Finding, SteeringBasis
from veche.experts.steering.file import save_steering


def an_adapter(
    path: Path, model_folder: Path, *, seed: int = 0, targets=("q_proj", "v_proj"), **how
):
    """Write a random LoRA with PEFT itself; large enough to change what is said."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]} | how
    asked = LoraConfig(task_type="CAUSAL_LM", **settings)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*invocation.*")
        adapted = get_peft_model(model, asked)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            weight.data = 0.2 * torch.randn(weight.shape, generator=generator)
    adapted.save_pretrained(path)
    return path


def a_steering(path: Path, model_folder: Path) -> Path:
    """Write a steering towards the first expert of every layer that routes."""
    source = source_of(str(model_folder))
    basis = np.zeros((len(source.layers), 8), np.float32)
    basis[:, 0] = 1
    finding = Finding(
        towards="a", away_from="b", num_for=1, num_against=1, num_significant=1, seed=0,
        used_texts=(),
    )  # fmt: skip
    save_steering(path, SteeringBasis(basis=basis, source=source, finding=finding))
    return path
