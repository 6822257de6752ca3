"""`veche ask` with a council behind HTTP."""

import json
from importlib.metadata import entry_points

import pytest
from tests.engines.remote.served import OLLAMA, VLLM, serving

QUESTION = "Почему небо голубое?"


@pytest.fixture
def asked(veche, tmp_path):
    """A council over a server: the answer, what each voice said, the requests."""
    with serving(VLLM) as found:
        done = veche(
            "ask", found.url, QUESTION, "--engine", "openai", "--max-tokens", "12", "--json",
            "--out", tmp_path, "--engine-option", "timeout_s=20",
        )  # fmt: skip
    lines = (tmp_path / "transcript.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    said = [event["data"] for event in events if event["kind"] == "TEXT_MESSAGE_CONTENT"]
    return done, said, found.requests


def test_a_council_deliberates_over_a_server(asked):
    done, said, requests = asked
    assert done.code == 0
    assert done.json["answer"]
    assert len(said) >= 4
    assert {turn["role"] for request in requests for turn in request["messages"]} == {
        "system",
        "user",
    }


def test_every_voice_reads_the_whole_trunk_from_the_servers_cache(asked):
    _, said, requests = asked
    trunks = [request for request in requests if request["max_tokens"] == 1]
    assert trunks  # opened and extended by a request for one token
    for turn in said:
        assert turn["reused_tokens"] >= 15


def test_the_tokens_that_are_billed_are_those_that_were_said(asked):
    _, said, _ = asked
    for turn in said:
        assert 0 < turn["decoded_tokens"] <= 12
        assert len(turn["text"].split()) <= turn["decoded_tokens"]


def test_a_dial_that_the_server_lets_pass_is_named_with_the_way_round_it(veche):
    with serving(OLLAMA) as found:
        ask = ("ask", found.url, QUESTION, "--engine", "openai", "--max-tokens", "12", "--json")
        refused = veche(*ask)
        assert refused.code == 2
        assert "does not obey repetition_penalty" in refused.json["error"]["message"]
        *_, option = refused.json["error"]["hint"].split()
        assert veche(*ask, "--engine-option", option).json["answer"]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("timeout=3", "has no option 'timeout'"),
        ("timeout_s", "has no option 'timeout_s'"),
        ("timeout_s=soon", "--engine-option timeout_s=soon"),
        ("concurrency=0", "concurrency is 0"),
        ("top_k=3", "has no option 'top_k'"),
    ],
)
def test_an_option_that_the_engine_does_not_take_is_refused(veche, option, message):
    done = veche(
        "ask", "http://127.0.0.1:9/v1", "x", "--engine", "openai", "--engine-option", option,
        "--json",
    )  # fmt: skip
    assert done.code == 2
    assert message in done.json["error"]["message"]


def test_the_options_are_those_of_the_chosen_engine(veche, tmp_path):
    (tmp_path / "s.json").write_text("{}")
    done = veche(
        "ask", tmp_path / "s.json", "x", "--engine", "scripted", "--engine-option", "dtype=x",
        "--json",
    )  # fmt: skip
    assert done.json["error"]["hint"] == "it takes none"
    done = veche("ask", tmp_path, "x", "--engine-option", "dtpe=x", "--json")
    assert "did you mean dtype=…?" in done.json["error"]["hint"]


def test_a_server_that_is_not_there_is_one_clear_error(veche):
    with serving(VLLM) as found:
        url = found.url
    done = veche(
        "ask", url, "x", "--engine", "openai", "--engine-option", "max_retries=0", "--json"
    )
    assert done.code == 1
    assert done.json["error"]["type"] == "EngineError"
    assert "does not answer" in done.json["error"]["message"]


@pytest.mark.parametrize(
    "engine", sorted(point.name for point in entry_points(group="veche.engines"))
)
def test_every_engine_says_which_options_it_takes(veche, engine):
    refused = veche("ask", "model", QUESTION, "--engine", engine, "--engine-option", "цвет=1")
    assert refused.code == 2
    assert "has no option 'цвет'" in refused.err
