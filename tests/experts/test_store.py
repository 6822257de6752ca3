"""Routed tokens survive a round trip, a token costs what is promised, damage is named."""

import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.experts.routings import document, random_routing

from veche.core.errors import CheckpointError
from veche.engines.protocol import Routing
from veche.experts.recording import Record, Source, joined, recorded, recording_of_run
from veche.experts.store import files_of, read_recording, records_in, save_recording, shard_path
from veche.experts.token_classes import CLASSES

SOURCE = Source(model="м", identity="ab", layers=(1, 2, 5), has_equal_weights=True)
VOICES = {
    "логик": random_routing(),
    "objector": random_routing(seed=1),
    "silent": random_routing(tokens=0),
}


def same(first, second):
    names = ("expert_ids", "token_ids", "token_classes", "weights", "router_logits")
    for name in names:
        one, other = getattr(first, name), getattr(second, name)
        assert (one is None) == (other is None), name
        assert one is None or (np.array_equal(one, other) and one.dtype == other.dtype), name
    rest = ("records", "num_experts", "source")
    return all(getattr(first, name) == getattr(second, name) for name in rest)


def test_a_run_comes_back_as_it_was(tmp_path):
    path = tmp_path / "routing.safetensors"
    kept = recording_of_run(VOICES, source=SOURCE)
    save_recording(path, kept)
    back = read_recording(tmp_path)
    assert same(back, kept)
    assert back.voices == tuple(VOICES)
    assert list(back.by_voice()) == ["логик", "objector"]
    for voice, part in back.by_voice().items():
        assert np.array_equal(part.expert_ids, VOICES[voice].expert_ids)
        assert np.array_equal(part.weights, VOICES[voice].weights)
    assert not list(tmp_path.glob(".*.partial"))


def test_everything_that_can_be_kept_comes_back(tmp_path):
    rng = np.random.default_rng(0)
    whole = replace(
        document("д", random_routing(experts=300), domain="код", language="ru"),
        router_logits=rng.normal(size=(20, 3, 300)).astype(np.float16),
        token_classes=rng.integers(0, 8, 20).astype(np.uint8),
    )
    save_recording(shard_path(tmp_path, 0), whole)
    assert whole.expert_ids.dtype == np.uint16
    assert same(read_recording(tmp_path), whole)


def test_files_of_a_folder_are_one_recording_in_the_order_of_their_numbers(tmp_path):
    parts = [document(f"d{n}", random_routing(seed=n)) for n in range(3)]
    for number in (2, 0, 1):
        save_recording(shard_path(tmp_path, number), parts[number])
    assert same(read_recording(tmp_path), joined(parts))
    told = [record.document for file in files_of(tmp_path) for record in records_in(file)]
    assert told == ["d0", "d1", "d2"]


def test_a_token_of_48_layers_and_8_experts_of_128_costs_at_most_400_bytes_on_disk(tmp_path):
    """Documents of 60 tokens, each with labels, as short as texts get; 2,040 tokens a file."""
    parts = []
    for number in range(34):
        routing = random_routing(tokens=60, layers=48, experts=128, top_k=8, seed=number)
        part = document(f"{number:012x}", routing, domain="physics", language="русский")
        parts.append(replace(part, weights=None, token_classes=np.zeros(60, np.uint8)))
    whole = replace(joined(parts), source=replace(SOURCE, layers=tuple(range(48))))
    path = shard_path(tmp_path, 0)
    save_recording(path, whole)
    assert whole.expert_ids.dtype == np.uint8
    assert path.stat().st_size / whole.num_tokens <= 400


def test_ids_are_as_narrow_as_they_can_be():
    for experts, wide in ((256, np.uint8), (257, np.uint16)):
        routing = random_routing(tokens=400, experts=experts, top_k=8)
        assert document("d", routing).expert_ids.dtype == wide


def test_places_that_a_token_did_not_use_hold_no_expert():
    routing = Routing(
        expert_ids=np.array([[[3, 1, 0]], [[2, 0, 1]]], np.uint16),
        weights=np.array([[[0.7, 0.3, 0]], [[0.5, 0, 0.5]]], np.float16),
        num_experts=4,
    )
    kept = recorded(routing, Record(document="d", voice="v", num_tokens=2))
    # The weight of 0 in the middle was rounded; only a tail of zeros is unused.
    assert kept.expert_ids[:, 0].tolist() == [[3, 1, 4], [2, 0, 1]]


def test_voices_with_fewer_experts_than_others_have_places_unused():
    wide, narrow = random_routing(experts=256, top_k=3), random_routing(experts=256, top_k=2)
    both = recording_of_run({"a": wide, "b": narrow})
    assert both.expert_ids.shape == (40, 3, 3)
    assert (both.expert_ids[20:, :, 2] == 256).all()
    assert np.array_equal(both.expert_ids[20:, :, :2], narrow.expert_ids)


def first_format(path: Path, voices=VOICES, num_experts=8):
    tensors = {}
    for index, routed in enumerate(voices.values()):
        tensors[f"{index}.expert_ids"] = routed.expert_ids
        tensors[f"{index}.weights"] = np.ascontiguousarray(routed.weights)
    metadata = {
        "format": "veche-routing-1",
        "voices": json.dumps([*voices]),
        "num_experts": json.dumps([num_experts] * len(voices)),
    }
    save_file(tensors, path, metadata=metadata)


def test_a_file_of_the_first_format_is_read_as_the_same_run(tmp_path):
    path = tmp_path / "routing.safetensors"
    first_format(path)
    assert same(read_recording(path), recording_of_run(VOICES))


def test_an_expert_beyond_the_last_is_damage(tmp_path):
    path = tmp_path / "routing.safetensors"
    first_format(path, num_experts=3)
    with pytest.raises(CheckpointError, match="contradicts itself"):
        read_recording(path)
    save_recording(path, replace(document("d", random_routing()), num_experts=3))
    with pytest.raises(CheckpointError, match="contradicts itself"):
        read_recording(path)


@pytest.mark.parametrize(
    "change",
    [
        {"token_ids": np.zeros(19, np.uint32)},
        {"token_classes": np.zeros((20, 1), np.uint8)},
        {"weights": np.zeros((20, 3, 1), np.float16)},
        {"router_logits": np.zeros((20, 3, 7), np.float16)},
        {"records": (Record(document="d", voice="v", num_tokens=21),)},
        {"source": Source(model="m", layers=(0,))},
        {"token_classes": np.full(20, len(CLASSES), np.uint8)},
        {"weights": np.full((20, 3, 2), np.nan, np.float16)},
        {"expert_ids": np.zeros((20, 3, 0), np.uint8)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_parts_that_do_not_fit_each_other_are_damage(tmp_path, change):
    path = tmp_path / "routing.safetensors"
    save_recording(path, replace(document("d", random_routing()), **change))
    with pytest.raises(CheckpointError, match="contradicts itself"):
        read_recording(path)


@pytest.mark.parametrize("keep", [0, 4, 60, -1])
def test_a_cut_file_is_named(tmp_path, keep):
    path = tmp_path / "routing.safetensors"
    save_recording(path, recording_of_run(VOICES))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"routing\.safetensors is damaged"):
        read_recording(path)


def test_a_missing_file_and_a_file_of_another_kind_are_named(tmp_path):
    path = tmp_path / "routing.safetensors"
    with pytest.raises(CheckpointError, match="does not exist"):
        read_recording(path)
    with pytest.raises(CheckpointError, match="no routed tokens"):
        read_recording(tmp_path)
    header = json.dumps({"__metadata__": {"format": "pt"}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(CheckpointError, match="not a routing file"):
        read_recording(path)


@pytest.mark.parametrize("voices", ["[" * 100_000, "5", "[NaN]", "голос"])
def test_a_file_of_the_first_format_that_makes_no_sense_is_damage(tmp_path, voices):
    path = tmp_path / "routing.safetensors"
    told = {"format": "veche-routing-1", "voices": voices, "num_experts": "[8]"}
    save_file({"0.expert_ids": np.zeros((1, 1, 1), np.uint16)}, path, metadata=told)
    with pytest.raises(CheckpointError, match="damaged"):
        read_recording(path)


def test_files_of_two_models_are_no_recording(tmp_path):
    for number, identity in enumerate("ab"):
        source = replace(SOURCE, identity=identity)
        part = replace(document("d", random_routing()), source=source)
        save_recording(shard_path(tmp_path, number), part)
    with pytest.raises(CheckpointError, match="another model"):
        read_recording(tmp_path)
