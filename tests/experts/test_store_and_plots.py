"""Routing survives a round trip, damage is named, and the picture is a picture."""

import json
import struct

import numpy as np
import pytest

from veche.core.errors import CheckpointError, InputError
from veche.engines.protocol import Routing
from veche.experts.plots import plot_routing
from veche.experts.store import load_routing, save_routing
from veche.experts.summary import summarise


def routing(tokens=20, layers=3, experts=8, top_k=2, seed=0):
    rng = np.random.default_rng(seed)
    ids = rng.random((tokens, layers, experts)).argsort(-1)[..., :top_k].astype(np.uint16)
    weights = rng.dirichlet(np.ones(top_k), (tokens, layers)).astype(np.float16)
    return Routing(expert_ids=ids, weights=weights, num_experts=experts)


VOICES = {"логик": routing(), "objector": routing(seed=1), "silent": routing(tokens=0)}


def test_routing_comes_back_as_it_was(tmp_path):
    path = tmp_path / "routing.safetensors"
    save_routing(path, VOICES)
    back = load_routing(path)
    assert list(back) == list(VOICES)
    for voice, kept in VOICES.items():
        assert np.array_equal(back[voice].expert_ids, kept.expert_ids)
        assert np.array_equal(back[voice].weights, kept.weights)
        assert back[voice].num_experts == 8
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("keep", [0, 4, 60, -1])
def test_a_cut_file_is_named(tmp_path, keep):
    path = tmp_path / "routing.safetensors"
    save_routing(path, VOICES)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"routing\.safetensors is damaged"):
        load_routing(path)


def test_a_missing_file_and_a_file_of_another_kind_are_named(tmp_path):
    path = tmp_path / "routing.safetensors"
    with pytest.raises(CheckpointError, match="does not exist"):
        load_routing(path)
    header = json.dumps({"__metadata__": {"format": "pt"}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(CheckpointError, match="not a routing file"):
        load_routing(path)


def test_an_expert_beyond_the_last_is_damage(tmp_path):
    path = tmp_path / "routing.safetensors"
    sound = routing()
    save_routing(
        path, {"a": Routing(expert_ids=sound.expert_ids, weights=sound.weights, num_experts=3)}
    )
    with pytest.raises(CheckpointError, match="contradicts itself"):
        load_routing(path)


@pytest.mark.parametrize("language", ["en", "ru"])
def test_the_picture_is_a_png_of_bounded_width(tmp_path, language):
    path = tmp_path / "experts.png"
    plot_routing(path, VOICES, titles={"objector": "Возражающий"}, language=language)
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", data[16:24])
    assert 1000 <= width <= 1600
    assert height <= 2 * width


def test_nothing_to_draw_is_said(tmp_path):
    with pytest.raises(InputError, match="no routing to draw"):
        plot_routing(tmp_path / "x.png", {"silent": routing(tokens=0)})
    with pytest.raises(InputError, match="different models"):
        plot_routing(tmp_path / "x.png", {"a": routing(), "b": routing(layers=2)})


def test_the_summary_is_json_with_every_speaking_voice():
    told = summarise({**VOICES, "once": routing(tokens=1)})
    json.dumps(told, allow_nan=False)
    assert [voice["name"] for voice in told["voices"]] == ["логик", "objector", "once"]
    assert told["null_overlap"] == 2 / 8
    assert told["overlap"][2][2] is None
    assert summarise({})["voices"] == []
