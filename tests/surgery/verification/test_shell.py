"""A model that is run layer by layer computes what transformers computes, to the last bit."""

import pytest
import torch
from tiny_families import CASES, tiny
from transformers import AutoModelForCausalLM

from veche.checkpoint.reader import open_checkpoint
from veche.core.errors import CheckpointError
from veche.surgery.verification.shell import Shell
from veche.surgery.verification.weights import Weights

CPU = torch.device("cpu")
TOKENS = torch.arange(3, 67)


@torch.inference_mode()
def layerwise_logits(folder, dtype, attention="sdpa"):
    shell = Shell(folder, changes={}, attention=attention, device=CPU)
    weights = Weights(open_checkpoint(folder), shell.model, CPU)
    state = weights.embedded(TOKENS, dtype)[None]
    for layer in range(len(shell.model.model.layers)):
        state = shell.layer(layer, weights.layer(layer, dtype), state)
    state = shell.norm(weights.norm(dtype), state)
    return (state @ weights.head_rows(0, 384, dtype).T)[0]


@torch.inference_mode()
def logits(folder, dtype, attention="sdpa"):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation=attention)
    return model(TOKENS[None], use_cache=False).logits[0]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
def test_layer_by_layer_is_the_whole_model(tmp_path, case, attention, dtype):
    folder = tiny(tmp_path / "model", case)
    expected = logits(folder, dtype, attention)
    assert expected.float().std() > 0.1
    assert torch.equal(layerwise_logits(folder, dtype, attention), expected)


@pytest.mark.parametrize("case", ["qwen3_moe", "qwen2_moe", "olmoe"])
def test_fused_files_are_the_same_model(tmp_path, case):
    fused = tiny(tmp_path / "fused", case, fused=True)
    assert any("experts.gate_up_proj" in name for name in open_checkpoint(fused).tensors)
    one_by_one = tiny(tmp_path / "model", case)
    assert not any("gate_up_proj" in name for name in open_checkpoint(one_by_one).tensors)
    expected = layerwise_logits(one_by_one, torch.float32)
    assert torch.equal(layerwise_logits(fused, torch.float32), expected)
    assert torch.equal(logits(fused, torch.float32), expected)


def test_only_the_layer_that_is_asked_for_is_read(tmp_path):
    folder = tiny(tmp_path / "model", "mixtral")
    shell = Shell(folder, changes={}, attention="sdpa", device=CPU)
    weights = Weights(open_checkpoint(folder), shell.model, CPU)
    one = weights.layer(1, torch.float32)
    wanted = dict(shell.model.model.layers[1].state_dict())
    assert {name: value.shape for name, value in one.items()} == {
        name: value.shape for name, value in wanted.items()
    }


@pytest.mark.parametrize("dtype", ["F16", "F32"])
def test_other_dtypes_of_files_are_converted(tmp_path, dtype):
    stored = {"F16": torch.float16, "F32": torch.float32}[dtype]
    folder = tiny(tmp_path / "model", "qwen3_moe", dtype=stored)
    assert {info.dtype for info in open_checkpoint(folder).tensors.values()} == {dtype}
    for compute in (torch.bfloat16, torch.float32):
        assert torch.equal(layerwise_logits(folder, compute), logits(folder, compute))


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("qwen3_moe", "model.layers.1.self_attn.v_proj.weight"),
        ("qwen3_moe", "model.layers.2.mlp.experts.5.up_proj.weight"),
        ("qwen3_moe", "lm_head.weight"),
        ("qwen3_moe", "model.norm.weight"),
        ("llama-tied-biases", "model.layers.2.self_attn.o_proj.bias"),
    ],
)
def test_a_missing_tensor_or_one_cut_short_is_named_before_anything_runs(tmp_path, case, name):
    import safetensors.torch

    folder = tiny(tmp_path / "model", case)
    file = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    removed = tensors.pop(name)
    for found, reason in ((None, "has no tensor|missing key"), (removed[:-1], "mismatched key")):
        more = {} if found is None else {name: found.clone()}
        safetensors.torch.save_file({**tensors, **more}, file)
        shell = Shell(folder, changes={}, attention="sdpa", device=CPU)
        with pytest.raises(CheckpointError, match=f"({reason}).*" + name.replace(".", r"\.")):
            Weights(open_checkpoint(folder), shell.model, CPU)


@pytest.mark.parametrize(
    "name", ["model.layers.3.input_layernorm.weight", "model.layers.0.mlp.experts.8.up_proj.weight"]
)
def test_a_tensor_too_many_is_named(tmp_path, name):
    import safetensors.torch

    folder = tiny(tmp_path / "model", "qwen3_moe")
    file = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    tensors[name] = torch.zeros(24, 32)
    safetensors.torch.save_file(tensors, file)
    shell = Shell(folder, changes={}, attention="sdpa", device=CPU)
    with pytest.raises(CheckpointError, match="unexpected key " + name.replace(".", r"\.")):
        Weights(open_checkpoint(folder), shell.model, CPU)
