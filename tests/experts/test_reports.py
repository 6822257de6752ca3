"""Summaries are JSON, pictures are pictures, pages load nothing and name nothing untested."""

import json
import re
import struct
from dataclasses import replace

import numpy as np
import pytest
from tests.experts.routings import document, labelled, random_routing

from veche.core.errors import InputError
from veche.experts.compare import compare
from veche.experts.layer_plots import comparison_png, layers_png, specialisation_png
from veche.experts.live import LiveRouting
from veche.experts.metrics import expert_counts, load
from veche.experts.plots import voices_png
from veche.experts.recording import Source, joined, recording_of_run
from veche.experts.report import comparison_page, recording_page
from veche.experts.specialisation import specialisation
from veche.experts.summary import (
    axes_summary,
    comparison_summary,
    has_equal_weights,
    summarise,
)

VOICES = {
    "логик": random_routing(),
    "objector": random_routing(seed=1),
    "silent": random_routing(tokens=0),
}
EQUAL = Source(model="<b>м</b>", identity="ab" * 32, layers=(1, 3, 5), has_equal_weights=True)
FEW = {"num_permutations": 1999}


def size(png):
    assert png.startswith(b"\x89PNG")
    return struct.unpack(">II", png[16:24])


@pytest.mark.parametrize("language", ["en", "ru"])
def test_pictures_are_pngs_of_bounded_width(language):
    recording = recording_of_run(VOICES)
    specialised = labelled(range(24), favours=(1, 5, 2.0), tokens=60)
    axes = specialisation(specialised, **FEW)
    pictures = [
        voices_png(recording, {"objector": "Возражающий"}, language),
        layers_png(recording, {}, language),
        specialisation_png(specialised, axes, language),
        comparison_png(compare(specialised, specialised, **FEW), language),
    ]
    for picture in pictures:
        width, height = size(picture)
        assert 1000 <= width <= 1600
        assert height <= 2 * width


def test_where_nothing_is_significant_nothing_is_drawn():
    recording = labelled(range(4))
    assert specialisation_png(recording, specialisation(recording, **FEW)) is None
    with pytest.raises(InputError, match="no routing to draw"):
        voices_png(recording_of_run({"silent": random_routing(tokens=0)}), {})


def test_the_summary_is_json_with_every_speaking_voice():
    told = summarise(recording_of_run({**VOICES, "once": random_routing(tokens=1)}))
    json.dumps(told, allow_nan=False)
    assert [voice["name"] for voice in told["voices"]] == ["логик", "objector", "once"]
    assert told["null_overlap"] == 2 / 8
    assert told["overlap"][2][2] is None
    assert [layer["layer"] for layer in told["layers"]] == [0, 1, 2]
    assert summarise(recording_of_run({}))["voices"] == []


def test_router_logits_bring_their_figures_and_layers_their_own_numbers():
    rng = np.random.default_rng(0)
    part = replace(
        document("d", random_routing()),
        router_logits=rng.normal(size=(20, 3, 8)).astype(np.float16),
        source=EQUAL,
    )
    layers = summarise(part)["layers"]
    assert [layer["layer"] for layer in layers] == [1, 3, 5]
    assert all({"router_entropy", "top_k_mass", "top_1_margin"} <= set(layer) for layer in layers)


def test_equal_weights_are_known_of_the_model_or_seen():
    uneven = document("d", random_routing())
    assert not has_equal_weights(uneven)
    assert has_equal_weights(replace(uneven, source=EQUAL))
    assert has_equal_weights(replace(uneven, weights=np.full((20, 3, 2), 0.5, np.float16)))
    assert not has_equal_weights(replace(uneven, weights=None))


def test_a_pair_that_goes_together_is_listed_first_with_its_lift():
    recording = document("d", random_routing(tokens=800, experts=16))
    ids = recording.expert_ids.copy()
    ids[:200, 1] = [4, 9]
    ids[200:, 1] = np.where(np.isin(ids[200:, 1], [4, 9]), [[2, 3]], ids[200:, 1])
    best = summarise(replace(recording, expert_ids=ids))["coactivation"][0]
    assert (best["layer"], best["experts"], best["share"]) == (1, [4, 9], 1)
    assert best["lift"] == pytest.approx(800 / 200)


def page_of(recording, language="en"):
    axes = specialisation(recording, **FEW)
    summary = {**summarise(recording), "axes": axes_summary(recording, axes)}
    json.dumps(summary, allow_nan=False)
    pictures = {"voices": b"1", "layers": b"2"}
    return recording_page(summary, names={}, pictures=pictures, language=language)


def loads_nothing(page):
    targets = re.findall(r"""(?:src|href)=["']([^"']*)""", page)
    assert all(target.startswith("data:image/png;base64,") for target in targets)
    assert "<script" not in page
    assert "url(" not in page


@pytest.mark.parametrize("language", ["en", "ru"])
def test_a_page_loads_nothing_and_escapes_what_strangers_wrote(language):
    recording = replace(labelled(range(4), values=("<i>a", "b")), source=EQUAL)
    page = page_of(recording, language)
    loads_nothing(page)
    assert "<b>м" not in page
    assert "<i>a" not in page
    assert f'lang="{language}"' in page
    assert "1/k" in page
    assert "ab" * 32 in page


def test_no_expert_is_named_without_its_null_and_an_adjusted_p_value():
    quiet = page_of(labelled(range(6)))
    assert "nothing can be found here" in quiet
    assert "p, adjusted" not in quiet
    loud = page_of(labelled(range(24), favours=(1, 5, 2.0), tokens=60))
    assert "p, adjusted" in loud
    assert "by chance" in loud
    assert "code against prose" in loud


@pytest.mark.parametrize("language", ["en", "ru"])
def test_a_comparison_is_json_and_a_page(language):
    first, second = labelled(range(8)), labelled(range(8), favours=(0, 1, 3.0))
    summary = comparison_summary(compare(first, second, **FEW))
    json.dumps(summary, allow_nan=False)
    page = comparison_page(summary, titles=("до <", "после"), picture=b"1", language=language)
    loads_nothing(page)
    assert "до &lt;" in page


def test_live_counts_are_those_of_the_last_tokens_alone():
    routing = random_routing(tokens=30, experts=300)
    live = LiveRouting(window_tokens=7)
    for number, (ids, weights) in enumerate(
        zip(routing.expert_ids, routing.weights, strict=True), start=1
    ):
        live.add(ids, weights)
        window = routing.expert_ids[max(0, number - 7) : number]
        counts = expert_counts(window, live.counts_LE.shape[1])
        assert np.array_equal(live.counts_LE, counts)
        assert live.load == pytest.approx(load(counts))
        assert live.current == ids.tolist()
    assert (live.num_tokens, live.window_tokens) == (30, 7)
    unused = np.array([[0.6, 0], [0.5, 0.5], [1, 0]], np.float16)
    live.add(routing.expert_ids[0], unused)
    assert [len(chosen) for chosen in live.current] == [1, 2, 1]


def test_recordings_without_places_in_common_cannot_be_joined():
    with pytest.raises(ValueError, match="2 shapes"):
        joined([document("a", random_routing()), document("b", random_routing(layers=2))])
