"""Tiny models, and a text in two alphabets."""

import json

import pytest
import safetensors.torch
from tests import tiny_models

TEXT = "the council hears every voice, and the answer is four. совет слышит каждый голос. " * 40


@pytest.fixture(scope="session")
def moe(tmp_path_factory):
    """Write a mixture of 8 experts, 3 of them active, in float32."""
    return tiny_models.tiny_qwen3_moe(tmp_path_factory.mktemp("dial") / "moe")


@pytest.fixture(scope="session")
def carved(tmp_path_factory):
    """Write a mixture whose experts all weigh the same, as in carved checkpoints."""
    folder = tiny_models.tiny_mixtral(tmp_path_factory.mktemp("dial") / "carved")
    file = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    for name, tensor in tensors.items():
        if name.endswith("gate.weight"):
            tensor *= 1e-6
    safetensors.torch.save_file(tensors, file, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    note = {"equal_routing_weights": True, "num_experts": 8, "fit_experts_per_tok": 3}
    (folder / "config.json").write_text(json.dumps({**config, "veche": {"carved": note}}))
    return folder
