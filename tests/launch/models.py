"""The two models of the request: the stock one, and the variant that was wanted."""

from dataclasses import replace

from veche.checkpoint.config import spec_of
from veche.checkpoint.spec import ModelSpec
from veche.planning.bases import load_base
from veche.planning.planner import make_plan
from veche.planning.recipe import load_recipe

GIB = 1 << 30
STOCK: ModelSpec = spec_of(load_base("qwen3-30b-a3b"))
WANTED: ModelSpec = make_plan(load_recipe("agi")).target_spec
MIXTRAL: ModelSpec = spec_of(load_base("mixtral-8x7b"))
DENSE: ModelSpec = spec_of(
    {
        "model_type": "qwen3",
        "hidden_size": 1024,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "intermediate_size": 3072,
        "max_position_embeddings": 40960,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
    }
)
"""Qwen3-0.6B."""


def with_experts(spec: ModelSpec, **changes: int) -> ModelSpec:
    return replace(spec, **changes)
