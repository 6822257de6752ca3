"""A reader in a council: it says what was asked, and the council says what it would have said."""

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console
from tests.roles.intent.questions import questions
from tests.tiny_models import tiny_mixtral

from veche.cli.council_view import CouncilView
from veche.council.deliberation import deliberate
from veche.council.readout import voices_of
from veche.council.seats import default_council, seated
from veche.council.settings import CouncilSettings
from veche.engines.transformers import create
from veche.roles.hot_swap import HotSwap
from veche.roles.intent.train import train_intents
from veche.roles.registry import Registry

SETTINGS = CouncilSettings(max_tokens_per_voice=10, early_stop=False)
QUESTION = "will it be raining today"


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tiny_mixtral(tmp_path_factory.mktemp("m"), max_position_embeddings=4096)
    return create(folder, dtype="float32")


@pytest.fixture
def registry(engine, tmp_path):
    registry = Registry(tmp_path / "roles")
    role = registry.get("q-intent")
    train_intents(engine, role, questions("weather", "balance", "flight"), tmp_path / "reader")
    kept = registry.keep(tmp_path / "reader", "probe", base_hash=engine.base_hash)
    registry.save(replace(role, probe=kept))
    return registry


def heard(engine, registry, names, language="en"):
    swap = HotSwap(engine, registry)
    voices = seated(registry, names)
    return deliberate(
        engine, QUESTION, voices=voices, swap=swap, settings=SETTINGS, language=language
    )


def test_a_reader_reports_before_anyone_drafts_and_changes_nothing(engine, registry):
    without, with_one = heard(engine, registry, ()), heard(engine, registry, ("q-intent",))
    (said,) = [event for event in with_one.events if event.voice == "q-intent"]
    drafts = next(event for event in with_one.events if event.data.get("step") == "drafts")
    assert said.kind == "STATE_DELTA"
    assert said.seq < drafts.seq
    assert said.data["question"]["intent"] == "weather"
    assert with_one.answer == without.answer
    assert with_one.usage == without.usage
    assert with_one.observations == without.observations


@pytest.mark.parametrize(("language", "known"), [("en", "known intent"), ("ru", "намерение")])
def test_what_was_read_is_put_into_words(engine, registry, language, known):
    result = heard(engine, registry, ("q-intent",), language)
    texts = {voice["name"]: voice["text"] for voice in voices_of(result.events, language)}
    assert known in texts["q-intent"]
    assert "weather" in texts["q-intent"]
    assert "token" in texts["recursia"] or "токенов" in texts["recursia"]


@pytest.mark.parametrize(("language", "known"), [("en", "known intent"), ("ru", "намерение")])
def test_whoever_looks_on_reads_it_on_the_terminal(engine, registry, language, known):
    result = heard(engine, registry, ("q-intent",), language)
    console = Console(file=StringIO(), width=200)
    view = CouncilView(console, seated(registry, ("q-intent",)), language)
    for event in result.events:
        view.on_event(event)
    title = registry.get("q-intent").title[language]
    (line,) = [line for line in console.file.getvalue().splitlines() if line.startswith(title)]
    assert known in line
    assert "weather" in line


def test_an_untrained_reader_reads_nothing(engine, tmp_path):
    registry = Registry(tmp_path / "empty")
    voices = (*default_council(registry), registry.get("q-intent"))
    result = deliberate(
        engine, QUESTION, voices=voices, swap=HotSwap(engine, registry), settings=SETTINGS
    )
    assert not [event for event in result.events if event.voice == "q-intent"]
