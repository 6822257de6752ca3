"""Costs taken apart add up, grow with what grows, and agree with transformers group by group."""

from dataclasses import asdict, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.planning.test_accounting import SHAPE, SMALL, meta_model

from veche.checkpoint.config import spec_of
from veche.planning.accounting import (
    active_parameters,
    costs_of,
    flops_per_token,
    parameter_groups,
)
from veche.planning.bases import load_base
from veche.planning.breakdown import breakdown_of, flops_by_group, weight_bytes_by_group
from veche.planning.kv_cache import KV_BYTES_PER_VALUE, kv_bytes_per_token
from veche.planning.quantization import QUANTIZATIONS, weight_bytes
from veche.planning.tensors import matrices_of

MOE = [name for name, extra in SMALL.items() if "num_experts_per_tok" in extra]
SPECS = {
    name: spec_of({"model_type": name, **SHAPE, **extra, "max_position_embeddings": 512})
    for name, extra in SMALL.items()
}
GROWING = {
    "num_hidden_layers": st.integers(1, 6),
    "hidden_size": st.integers(1, 6).map(lambda n: 256 * n),
    "vocab_size": st.integers(2, 5000),  # of one token it would be a vector, never quantised
    "num_attention_heads": st.integers(1, 8).map(lambda n: 2 * n),
    "num_experts": st.integers(2, 16),
    "moe_intermediate_size": st.integers(1, 6).map(lambda n: 256 * n),
}
any_spec = st.builds(
    lambda values: replace(
        SPECS["qwen3_moe"], head_dim=64, num_key_value_heads=2, decoder_sparse_step=1, **values
    ),
    st.fixed_dictionaries(GROWING),
)


@pytest.mark.parametrize("model_type", SMALL)
def test_groups_are_those_of_transformers_modules(model_type):
    """Sort the modules of a real model by their names, and count."""
    config = {"model_type": model_type, **SHAPE, **SMALL[model_type]}
    counted = dict.fromkeys(asdict(parameter_groups(SPECS[model_type])), 0)
    for name, parameter in meta_model(config).named_parameters():
        counted[group_by_name(name)] += parameter.numel()
    assert asdict(parameter_groups(SPECS[model_type])) == counted


def group_by_name(name: str) -> str:
    for part, group in {
        "embed_tokens": "embeddings", "lm_head": "embeddings", "self_attn": "attention",
        "shared_expert": "shared_experts", "experts": "experts", "mlp.gate.": "router",
        "block_sparse_moe.gate.": "router", "norm": "norms", "mlp": "dense_mlp",
    }.items():  # fmt: skip
        if part in name:
            return group
    raise AssertionError(name)


@pytest.mark.parametrize("model_type", MOE)
def test_active_parameters_are_those_that_a_token_touches(model_type):
    """Run a real model on one token, and count the weights that take part by hand."""
    config = {"model_type": model_type, **SHAPE, **SMALL[model_type]}
    model, spec = meta_model(config), SPECS[model_type]
    counted = 0
    for name, parameter in model.named_parameters():
        if "embed_tokens" in name and not spec.tie_word_embeddings:
            continue
        is_routed = ".experts." in name
        share = spec.num_experts_per_tok / spec.num_experts if is_routed else 1
        counted += round(parameter.numel() * share)
    assert active_parameters(spec) == counted


@pytest.mark.parametrize("model_type", SMALL)
def test_parts_add_up_to_the_whole(model_type):
    spec = SPECS[model_type]
    whole, costs = breakdown_of(spec), costs_of(spec)
    assert sum(whole.parameters.values()) == costs.parameters
    assert sum(whole.active_parameters.values()) == costs.active_parameters
    for name, groups in whole.weight_bytes.items():
        assert sum(groups.values()) == weight_bytes(spec, name)
    assert sum(whole.weight_bytes["bf16"].values()) == 2 * costs.parameters
    for tokens, groups in whole.flops_per_token.items():
        assert sum(groups.values()) == flops_per_token(spec, tokens)
    for dtype, lengths in whole.kv_bytes.items():
        assert all(n == t * kv_bytes_per_token(spec, dtype) for t, n in lengths.items())


def _has_odd_rows(*specs):
    matrices = [matrix for spec in specs for matrix in matrices_of(spec)]
    return any(matrix.columns % 256 and not matrix.is_vector for matrix in matrices)


@given(spec=any_spec, name=st.sampled_from(sorted(GROWING)), data=st.data())
@settings(max_examples=60, deadline=None)
def test_what_grows_never_costs_less(spec, name, data):
    larger = replace(spec, **{name: max(getattr(spec, name), data.draw(GROWING[name]))})
    for field in asdict(costs_of(spec)):
        assert getattr(costs_of(larger), field) >= getattr(costs_of(spec), field)
    for quantization in QUANTIZATIONS:
        if name in ("num_hidden_layers", "num_experts") and QUANTIZATIONS[quantization].is_gguf:
            continue  # llama.cpp's mixes depend on the number of layers, and on 8 experts
        if QUANTIZATIONS[quantization].is_gguf and _has_odd_rows(spec, larger):
            continue  # rows that no block of 256 divides get a wider type
        assert weight_bytes(larger, quantization) >= weight_bytes(spec, quantization)


@given(spec=any_spec, layers=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_layers_add(spec, layers):
    """Law: cost(a + b layers) = cost(a) + cost(b) − what lies outside the layers."""
    more = replace(spec, num_hidden_layers=spec.num_hidden_layers + layers)
    just = replace(spec, num_hidden_layers=layers)
    outside = 2 * spec.vocab_size * spec.hidden_size + spec.hidden_size
    total = parameter_groups(spec).total + parameter_groups(just).total
    assert parameter_groups(more).total == total - outside
    for dtype in KV_BYTES_PER_VALUE:
        parts = kv_bytes_per_token(spec, dtype) + kv_bytes_per_token(just, dtype)
        assert kv_bytes_per_token(more, dtype) == pytest.approx(parts, abs=1)


@given(spec=any_spec, first=st.integers(0, 10**6), second=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_flops_are_linear_in_the_context(spec, first, second):
    total = flops_per_token(spec, first) + flops_per_token(spec, second)
    assert flops_per_token(spec, first + second) + flops_per_token(spec, 0) == total


def test_flops_are_those_that_torch_counts():
    """An independent reference: torch's own counter on a real forward pass of one token."""
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import AutoConfig, AutoModelForCausalLM

    config = {"model_type": "qwen3", **SHAPE, "max_position_embeddings": 64}
    spec = spec_of(config)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(**config), attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        past = model(torch.arange(20)[None], use_cache=True).past_key_values
        with FlopCounterMode(display=False) as counter:
            model(torch.tensor([[5]]), past_key_values=past, use_cache=True)
    groups = flops_by_group(spec, 21)
    vectors = groups["norms"] + 2 * spec.num_hidden_layers * 2 * spec.head_dim
    rope = sum(groups.values()) - vectors
    assert counter.get_total_flops() == pytest.approx(rope, rel=0.01)


def test_the_stock_model_in_every_type_is_what_its_files_are():
    """Against sizes that publishers and engines state (tests/launch/data/engine_logs.csv)."""
    groups = weight_bytes_by_group(spec_of(load_base("qwen3-30b-a3b")), "fp8-block")
    assert sum(groups.values()) / 2**30 == pytest.approx(29.03, abs=0.01)
    assert set(groups) == {"attention", "experts", "router", "embeddings", "norms"}
