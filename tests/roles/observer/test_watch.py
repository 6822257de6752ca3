"""An observer over a council: it sees, and changes nothing."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.tiny_models import tiny_llama, tiny_mixtral

from veche.core.errors import UnsupportedError
from veche.council.deliberation import deliberate
from veche.council.readout import messages_of
from veche.council.settings import CouncilSettings
from veche.engines.protocol import Branch, Sampling
from veche.engines.scripted import ScriptedEngine
from veche.engines.transformers import create
from veche.roles.data.problems.generate import generate
from veche.roles.hot_swap import HotSwap
from veche.roles.observer.watch import Watch
from veche.roles.probe.fitting import FitSettings
from veche.roles.probe.probe_file import load_probes
from veche.roles.probe.reading import reading_of
from veche.roles.probe.train import train_probe
from veche.roles.registry import Registry

QUESTION = "how many voices does the council hear?"
SETTINGS = CouncilSettings(max_tokens_per_voice=24)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return create(
        tiny_mixtral(tmp_path_factory.mktemp("mixtral"), max_position_embeddings=4096),
        dtype="float32",
    )


@pytest.fixture(scope="module")
def registry(engine, tmp_path_factory):
    """A registry whose RECURSIA has a probe."""
    folder = tmp_path_factory.mktemp("home")
    registry = Registry(folder / "roles")
    examples = generate("arithmetic", language="en", difficulty=1, count=10, seed=0)
    recursia = registry.get("recursia")
    fast = FitSettings(strengths=(0.01,), folds=2, components=8)
    probes = train_probe(engine, recursia, examples, folder / "probe", settings=fast)
    artefact = registry.keep(folder / "probe", "probe", base_hash=probes.base_hash)
    registry.save(replace(recursia, probe=artefact))
    return registry


def held(engine, registry, question=QUESTION):
    swap = HotSwap(engine, registry)
    return deliberate(engine, question, settings=SETTINGS, swap=swap)


def test_a_council_says_the_same_with_the_observer_and_without(engine, registry, tmp_path):
    watched = held(engine, registry)
    plain = held(engine, Registry(tmp_path / "roles"))
    texts = [
        [(e.voice, e.data["text"]) for e in run.events if e.kind == "TEXT_MESSAGE_CONTENT"]
        for run in (watched, plain)
    ]
    assert texts[0] == texts[1]
    assert watched.answer == plain.answer
    assert watched.usage == plain.usage
    assert all("confidence" not in signals for signals in plain.observations)


def test_every_voice_that_answers_is_reported_and_objections_are_not(engine, registry):
    run = held(engine, registry)
    by_step = {signals["step"]: signals for signals in run.observations}
    drafts = by_step["drafts"]
    spoken = {m.voice: m.text for m in run_messages(run) if m.step == "drafts" and m.text.strip()}
    assert set(drafts["confidence"]) == set(spoken)
    for voice, chances in drafts["suspicion"].items():
        assert all(0 <= chance <= 1 for chance in [*chances, drafts["confidence"][voice]])
        bad = drafts["first_bad_step"][voice]
        assert bad is None or 0 <= bad < len(chances)
    assert "confidence" not in by_step.get("objections", {})
    assert "probably right" in {v["name"]: v["text"] for v in run.voices}["recursia"]


def run_messages(run):
    return messages_of(run.events)


def test_states_of_decoded_tokens_are_those_of_one_pass_over_them(engine, registry):
    """Live, states come one by one; row t + 1 is the state after token t, as in reading."""
    role = registry.get("recursia")
    probes = load_probes(registry.folder(role.probe))
    watch = Watch(engine, probes, QUESTION)
    trunk = engine.open_trunk(system="", user=QUESTION)
    sampling = Sampling(max_new_tokens=24)
    branch = Branch(voice="a", instruction="", sampling=sampling, capture=watch.capture)
    result = engine.decode(trunk, [branch])[0]
    prompt = engine._format.head_ids("", QUESTION) + engine._format.suffix_ids("")
    whole = [*prompt, *result.token_ids]
    with torch.inference_mode(), engine._runner.watched():
        rows = engine._runner.rows((), 1, 512)
        out = engine._runner.feed(
            rows, torch.tensor([whole]), logits_to_keep=len(whole), hidden_layers=probes.layers
        )
    after = out.hidden[0, len(prompt) : -1].numpy()
    np.testing.assert_allclose(result.hidden_states[1:], after, rtol=1e-3, atol=1e-3)
    owner = np.zeros(len(result.text), np.int64)
    reading = reading_of(result, owner, 1)
    own = np.flatnonzero(reading.token_step == 0)
    last = len(result.token_ids) - 1
    expected = result.hidden_states[np.minimum(own + 1, last)].mean(0)
    np.testing.assert_allclose(reading.hidden[0], expected, rtol=2e-3, atol=2e-3)


def test_a_probe_of_another_model_is_refused_before_anyone_speaks(registry, tmp_path):
    other = create(tiny_llama(tmp_path), dtype="float32")
    with pytest.raises(UnsupportedError, match="the probe was trained on the model"):
        held(other, registry)


def test_an_engine_that_cannot_look_inside_is_refused(registry):
    with pytest.raises(UnsupportedError, match="hidden_states"):
        held(ScriptedEngine({}), registry)
