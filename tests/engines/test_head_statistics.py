"""Heads of rows behind one trunk, against transformers' own eager attention of each row alone."""

import numpy as np
import pytest
import torch
from tests import tiny_models
from tests.engines.eager_heads import Alone
from transformers import AutoModelForCausalLM

from veche.engines.embedded.head_statistics import (
    HeadLog,
    HeadTap,
    Segment,
    cosine_between,
    read_heads,
)

TRUNK_TOKENS = 9
OWN_TOKENS = (5, 8, 70)
"""The last is longer than what is attended to at a time."""

MODELS = {
    "mixtral": tiny_models.tiny_mixtral,
    "qwen3_moe": tiny_models.tiny_qwen3_moe,
    "llama": tiny_models.tiny_llama,
}


@pytest.fixture(scope="module", params=MODELS)
def rows(request, tmp_path_factory):
    folder = MODELS[request.param](tmp_path_factory.mktemp("model"))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    random = torch.Generator().manual_seed(0)
    trunk = torch.randint(3, tiny_models.VOCAB_SIZE, (TRUNK_TOKENS,), generator=random)
    own = [torch.randint(3, tiny_models.VOCAB_SIZE, (n,), generator=random) for n in OWN_TOKENS]
    return [Alone(model, torch.cat([trunk, ids])) for ids in own]


def padded(tensors, width):
    """Left-pad along the tokens with what must never be read."""
    out = torch.full((len(tensors), tensors[0].shape[1], width, tensors[0].shape[-1]), 1e3)
    for row, tensor in enumerate(tensors):
        out[row, :, width - tensor.shape[2] :] = tensor[0]
    return out


def batched(rows, layer, num_query_tokens):
    """Read all rows at once: the trunk's keys from the first, each row's own behind padding."""
    calls = [row.calls[layer] for row in rows]
    width = max(OWN_TOKENS)
    is_real = torch.zeros(len(rows), width, dtype=torch.bool)
    positions = torch.zeros(len(rows), width, dtype=torch.long)
    for row, tokens in enumerate(OWN_TOKENS):
        is_real[row, width - tokens :] = True
        positions[row, width - tokens :] = TRUNK_TOKENS + torch.arange(tokens)
    module, _, first_keys, first_values, options = calls[0]
    trunk = Segment(
        keys=first_keys[:, :, :TRUNK_TOKENS],
        values=first_values[:, :, :TRUNK_TOKENS],
        positions=torch.arange(TRUNK_TOKENS)[None],
    )
    own = Segment(
        keys=padded([keys[:, :, TRUNK_TOKENS:] for _, _, keys, _, _ in calls], width),
        values=padded([values[:, :, TRUNK_TOKENS:] for _, _, _, values, _ in calls], width),
        positions=positions,
        is_real=is_real,
    )
    queries = padded([query[:, :, TRUNK_TOKENS:] for _, query, _, _, _ in calls], width)
    return read_heads(
        queries[:, :, -num_query_tokens:],
        [trunk, own],
        query_positions=positions[:, -num_query_tokens:],
        scaling=options["scaling"],
        output_weight=module.o_proj.weight.detach(),
        counts=is_real[:, -num_query_tokens:],
    )


@pytest.mark.parametrize("num_query_tokens", [1, max(OWN_TOKENS)], ids=["decoding", "scoring"])
def test_heads_behind_a_shared_trunk_are_those_of_eager_attention(rows, num_query_tokens):
    tap, logs = HeadTap(), [HeadLog() for _ in rows]
    with tap.listening():
        for layer in range(len(rows[0].calls)):
            tap.record(batched(rows, layer, num_query_tokens))
        for log, row in zip(logs, tap.take(), strict=True):
            log.add(row)
    for alone, log, own in zip(rows, logs, OWN_TOKENS, strict=True):
        told = log.joined()
        last = min(own, num_query_tokens)
        assert told.entropy.shape == (last, 3, 4)
        for layer in range(3):
            entropy, distance, norm, cosine = alone.expected(layer, last)
            assert told.entropy[:, layer] == pytest.approx(entropy, abs=1e-4)
            assert told.distance[:, layer] == pytest.approx(distance, abs=1e-4, rel=1e-5)
            assert told.output_norm[:, layer] == pytest.approx(norm, abs=1e-4)
            assert told.similarity[layer] == pytest.approx(cosine, abs=1e-4)


def test_tokens_read_one_by_one_make_the_same_statistics_as_read_at_once(rows):
    alone = rows[0]
    at_once, one_by_one = HeadLog(), HeadLog()
    tap = HeadTap()
    total = TRUNK_TOKENS + OWN_TOKENS[0]
    for log, chunks in (
        (at_once, [slice(0, total)]),
        (one_by_one, [slice(at, at + 1) for at in range(total)]),
    ):
        with tap.listening():
            for chunk in chunks:
                for module, query, keys, values, options in alone.calls:
                    positions = torch.arange(total)[None]
                    segment = Segment(
                        keys=keys[:, :, : chunk.stop],
                        values=values[:, :, : chunk.stop],
                        positions=positions[:, : chunk.stop],
                    )
                    reading = read_heads(
                        query[:, :, chunk],
                        [segment],
                        query_positions=positions[:, chunk],
                        scaling=options["scaling"],
                        output_weight=module.o_proj.weight.detach(),
                    )
                    tap.record(reading)
                log.add(tap.take()[0])
    first, second = at_once.joined(), one_by_one.joined()
    for name in ("entropy", "distance", "output_norm", "similarity"):
        assert getattr(first, name) == pytest.approx(getattr(second, name), abs=1e-5)


def uniform_reading(num_tokens):
    keys = torch.zeros(1, 1, num_tokens, 4)
    segment = Segment(
        keys=keys, values=torch.ones_like(keys), positions=torch.arange(num_tokens)[None]
    )
    return read_heads(
        torch.ones(1, 2, num_tokens, 4),
        [segment],
        query_positions=torch.arange(num_tokens)[None],
        scaling=0.5,
        output_weight=torch.eye(8),
    )


def test_a_head_that_looks_everywhere_alike_has_the_entropy_of_a_uniform_distribution():
    reading = uniform_reading(10)
    tokens = torch.arange(10.0)
    for head in range(2):
        assert torch.allclose(reading.entropy[0, :, head], (tokens + 1).log(), atol=1e-6)
        assert torch.allclose(reading.distance[0, :, head], tokens / 2, atol=1e-6)
        assert torch.allclose(reading.output_norm[0, :, head], torch.tensor(2.0))


def test_a_head_that_adds_nothing_is_like_no_other():
    vectors = torch.tensor([[3.0, 0, 0], [6.0, 0, 0], [0, 0, 0], [-1.0, 0, 0]])
    expected = [[1, 1, 0, -1], [1, 1, 0, -1], [0, 0, 0, 0], [-1, -1, 0, 1]]
    assert cosine_between(vectors).tolist() == expected


def test_a_row_of_nothing_but_padding_is_finite_and_does_not_count():
    keys = torch.randn(2, 1, 3, 4)
    is_real = torch.tensor([[True] * 3, [False] * 3])
    segment = Segment(keys=keys, values=keys, positions=torch.arange(3)[None], is_real=is_real)
    tap = HeadTap()
    with tap.listening():
        tap.record(
            read_heads(
                torch.randn(2, 2, 3, 4),
                [segment],
                query_positions=torch.arange(3)[None].repeat(2, 1),
                scaling=0.5,
                output_weight=torch.eye(8),
                counts=is_real,
            )
        )
        real, padding = tap.take()
    log = HeadLog()
    log.add(padding)
    assert log.joined() is None
    assert np.isfinite(real.entropy).all()
    assert padding.entropy.shape == (0, 1, 2)
    assert not padding.similarity_sum.any()


def test_a_tap_forgets_when_it_stops_listening():
    tap = HeadTap()
    with tap.listening():
        assert tap.is_listening
        tap.record(uniform_reading(2))
    assert not tap.is_listening
    assert tap.take() == []
