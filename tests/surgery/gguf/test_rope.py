"""Rotary positions: laws, and transformers' own formulas."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, Qwen3MoeConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from veche.checkpoint.config import spec_of
from veche.surgery.gguf.rope import (
    llama3_frequency_factors,
    neighbours_from_halves,
    yarn_attention_scale,
)

_SHAPE = {
    "vocab_size": 64, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
}  # fmt: skip


@given(heads=st.integers(1, 5), half=st.integers(1, 8), position=st.integers(0, 50))
def test_turning_halves_and_reordering_is_reordering_and_turning_neighbours(heads, half, position):
    size = 2 * half
    rows = np.random.default_rng(0).normal(size=(heads * size,))
    angles = position * 100.0 ** (-np.arange(half) / half)
    sine, cosine = np.sin(angles), np.cos(angles)
    first, second = np.split(rows.reshape(heads, size), 2, axis=1)
    halves = np.concatenate([first * cosine - second * sine, second * cosine + first * sine], 1)
    even, odd = np.moveaxis(neighbours_from_halves(rows, size).reshape(heads, half, 2), 2, 0)
    pairs = np.stack([even * cosine - odd * sine, odd * cosine + even * sine], axis=2)
    np.testing.assert_allclose(neighbours_from_halves(halves.ravel(), size), pairs.ravel())


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_reordering_moves_whole_rows_within_their_head(heads, half, columns):
    size = 2 * half
    rows = np.arange(heads * size * columns).reshape(heads * size, columns)
    moved = neighbours_from_halves(rows, size)
    assert (np.diff(moved, axis=1) == 1).all()
    assert (np.sort(moved.reshape(heads, -1)) == rows.reshape(heads, -1)).all()


@pytest.mark.parametrize("factor", [1.0, 2.0, 40.0])
@pytest.mark.parametrize(
    "more",
    [{}, {"attention_factor": 0.7}, {"mscale": 1.0, "mscale_all_dim": 0.8}, {"mscale": 0.5}],
    ids=str,
)
def test_llama_cpp_scales_by_what_transformers_scales_by(factor, more):
    rope = {"rope_type": "yarn", "rope_theta": 1e4, "factor": factor, **more}
    rope["original_max_position_embeddings"] = 64
    config = Qwen3MoeConfig(**_SHAPE, rope_parameters=rope)
    _, wanted = ROPE_INIT_FUNCTIONS["yarn"](config, torch.device("cpu"))
    parsed = config.to_dict()
    own = 1.0 + 0.1 * math.log(factor)  # rope_yarn in ggml-cpu/ops.cpp
    assert own * yarn_attention_scale(spec_of(parsed), parsed) == pytest.approx(wanted)


@pytest.mark.parametrize("bounds", [(1.0, 4.0), (2.0, 8.0)])
def test_frequency_factors_are_those_of_transformers(bounds):
    rope = {
        "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": bounds[0],
        "high_freq_factor": bounds[1], "original_max_position_embeddings": 8192,
    }  # fmt: skip
    config = LlamaConfig(**{**_SHAPE, "head_dim": 128}, rope_parameters=rope)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    parsed = config.to_dict()
    factors = llama3_frequency_factors(spec_of(parsed), parsed)
    plain = 5e5 ** (-np.arange(0, 128, 2) / 128)
    np.testing.assert_allclose(plain / factors, scaled.numpy(), rtol=1e-5)
    assert factors.min() == 1.0
    assert factors.max() == 8.0
