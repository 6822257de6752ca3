"""A tiny random model of every family and layout, and plans to any target."""

from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from tiny_models import VOCAB_SIZE, tiny_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from veche.checkpoint.config import read_config, spec_of
from veche.checkpoint.edit import edited
from veche.planning.accounting import costs_of
from veche.planning.depth import layer_layout
from veche.planning.plan import BuildPlan, Mode
from veche.planning.steps import steps_of
from veche.surgery.build import build

TEXT = "the council hears every voice, and the answer is four. совет слышит каждый голос. " * 8
_SHAPE = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 24,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "initializer_range": 0.35,
    "tie_word_embeddings": False,
}
_EXPERTS = {"num_experts": 8, "num_experts_per_tok": 3}
_WIDTHS = {"intermediate_size": 48, "moe_intermediate_size": 24}
_YARN = {
    "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
    "original_max_position_embeddings": 128,
}  # fmt: skip
_FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "mixtral": {"num_local_experts": 8, "num_experts_per_tok": 3, "sliding_window": None},
    "olmoe": {**_EXPERTS, "norm_topk_prob": False},
    "qwen3_moe": {**_EXPERTS, **_WIDTHS, "norm_topk_prob": True, "decoder_sparse_step": 1},
    "qwen2_moe": {**_EXPERTS, **_WIDTHS, "shared_expert_intermediate_size": 40},
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in _FAMILIES},
    "llama-tied-biases": ("llama", {"tie_word_embeddings": True, "attention_bias": True}),
    "llama-yarn": ("llama", {"rope_parameters": _YARN}),
    "mixtral-sliding": ("mixtral", {"sliding_window": 16}),
    "qwen2-sliding": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 1},
    ),
    "qwen3_moe-some-dense": ("qwen3_moe", {"decoder_sparse_step": 2}),
    "qwen2_moe-some-dense": ("qwen2_moe", {"mlp_only_layers": [0]}),
}


def tiny(
    path: Path, case: str, *, dtype: torch.dtype = torch.bfloat16, fused: bool = False, **more: Any
) -> Path:
    """Write the random model of a case; fused: its experts in two tensors, not one by one."""
    family, changes = CASES[case]
    config = AutoConfig.for_model(family, **{**_SHAPE, **_FAMILIES[family], **changes, **more})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    # No gain, no bias and no norm is left at its neutral value.
    for name, value in model.named_parameters():
        if value.ndim == 1:
            noise = torch.rand(value.shape, generator=torch.Generator().manual_seed(len(name)))
            value.data.add_(noise * 0.5)
    model.to(dtype).save_pretrained(path)
    if fused:
        # Only what transformers calls mlp is spelt alike in files and in memory.
        tensors = {name: value.clone() for name, value in model.state_dict().items()}
        safetensors.torch.save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    tiny_tokenizer(path)
    return path


def plan_to(source: Path, changes: dict[str, Any], *, mode: Mode = "zero") -> BuildPlan:
    """Return the plan from a checkpoint to the same with other fields, whatever recipes allow."""
    base = read_config(source)
    target = edited(base, changes)
    if "layer_types" in base:
        layout = layer_layout(base["num_hidden_layers"], target["num_hidden_layers"])
        target["layer_types"] = [base["layer_types"][place.source] for place in layout]
    return BuildPlan(
        recipe="t",
        base=str(source),
        mode=mode,
        allow_lossy=True,
        fields=(),
        conflicts=(),
        operations=tuple(step.operation for step in steps_of(spec_of(base), spec_of(target))),
        before=costs_of(spec_of(base)),
        after=costs_of(spec_of(target)),
        base_config=base,
        target_config=target,
    )


def grown(tmp_path: Path, case: str, changes: dict[str, Any], **choices: Any):
    """Grow the model of a case; return source, target and plan."""
    mode = choices.pop("mode", "zero")
    source = tiny(tmp_path / "source", case, **choices)
    plan = plan_to(source, changes, mode=mode)
    build(plan, source, tmp_path / "grown")
    return source, tmp_path / "grown", plan


def change_tensor(folder: Path, name: str, change) -> None:
    """Change one tensor of a folder in place."""
    file = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    tensors[name] = change(tensors[name].clone())
    safetensors.torch.save_file(tensors, file, metadata={"format": "pt"})
