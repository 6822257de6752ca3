"""Servers that die, hang, babble or lie: one clear error, and nothing is left open."""

import threading
import time
from pathlib import Path
from threading import Event

import pytest
from tests.engines.remote.served import VLLM, serving

from veche.core.errors import EngineError, InputError
from veche.engines.openai import create
from veche.engines.protocol import Branch, Sampling

KEY = "sk-veche-secret-0123456789"
TIMEOUT_S = 1.5


def _sockets():
    """Sockets of this process: the test server's are among them."""
    names = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            names.append(entry.readlink().name)
        except OSError:  # it was the listing's own
            continue
    return [name for name in names if name.startswith("socket:")]


def _settled(look, wanted):
    """Wait until `look()` is `wanted`: the server notices a closed connection when it may."""
    deadline = time.monotonic() + 10
    while (found := look()) != wanted and time.monotonic() < deadline:
        time.sleep(0.01)
    return found


@pytest.fixture
def served(monkeypatch):
    """A sound server with an engine; afterwards no thread, socket or connection is left."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving(VLLM) as found:
        threads, sockets = threading.active_count(), len(_sockets())
        found.engine = create(found.url, timeout_s=30, max_retries=1)
        found.trunk = found.engine.open_trunk(system="s", user="u")
        found.requests.clear()
        yield found
        assert _settled(lambda: found.open_connections, 0) == 0
        assert _settled(threading.active_count, threads) == threads
        assert _settled(lambda: len(_sockets()), sockets) == sockets


def ask(served, *, on_token=None, cancel=None, voices=1, **sampling):
    given = {"max_new_tokens": 6} | sampling
    branches = [
        Branch(voice=f"v{index}", instruction=f" {index}", sampling=Sampling(**given))
        for index in range(voices)
    ]
    return served.engine.decode(served.trunk, branches, on_token, cancel=cancel)


def refused(served, fault, match, *, times=9, **more):
    """Every request meets `fault`; afterwards the engine works as if nothing had been."""
    served.faults.extend([fault] * times)
    with pytest.raises(EngineError, match=match) as caught:
        ask(served, **more)
    assert KEY not in caught.value.message + caught.value.hint
    served.faults.clear()
    assert ask(served)[0].text
    return caught.value


def until_hung_up(handler):
    handler.connection.settimeout(20)
    handler.rfile.read(1)
    handler.close_connection = True


def drop(handler):
    handler.wfile.flush()
    handler.close_connection = True


def dies_after(num_tokens):
    def fault(handler, body):
        handler.begin_stream()
        for index in range(num_tokens):
            handler.event(handler.piece(f" {index}"))
        drop(handler)

    return fault


def status(code, message="boom", **headers):
    def fault(handler, body):
        handler.say({"error": {"message": message}}, code, **headers)

    return fault


def sends(text):
    def fault(handler, body):
        handler.begin_stream()
        handler.event(text)
        handler.end_stream()

    return fault


# --- death ----------------------------------------------------------------------------------------


def test_a_server_that_dies_in_mid_stream_says_how_far_it_came(served):
    error = refused(served, dies_after(2), r"after 2 tokens of voice 'v0'")
    assert "nothing of this batch is kept" in error.hint


def test_what_was_shown_is_never_asked_for_again(served):
    served.faults.append(dies_after(1))
    shown = []
    with pytest.raises(EngineError, match="after 1 tokens"):
        ask(served, on_token=lambda voice, piece: shown.append(piece))
    assert (shown, len(served.requests)) == ([" 0"], 1)


def test_a_server_that_dies_before_the_first_token_is_asked_once_more(served):
    sound = ask(served)[0]
    served.requests.clear()
    served.faults.append(dies_after(0))
    again = ask(served)[0]
    assert (again.text, again.token_ids, len(served.requests)) == (sound.text, sound.token_ids, 2)
    refused(served, dies_after(0), "gave no answer to voice 'v0'")


def test_a_stream_that_ends_without_a_reason_has_died(served):
    def fault(handler, body):
        handler.begin_stream()
        handler.event(handler.piece(" a"))
        handler.end_stream()

    refused(served, fault, "after 1 tokens .* ended before the answer did")


def test_an_error_inside_a_stream_is_told(served):
    def fault(handler, body):
        handler.begin_stream()
        handler.event(handler.piece(" a"))
        handler.event({"error": {"message": "EngineDeadError \x1b[31m", "code": 500}})

    error = refused(served, fault, "after 1 tokens .* EngineDeadError")
    assert "\x1b" not in error.message


def test_a_refusal_inside_a_stream_is_not_asked_again(served):
    served.faults.append(sends('data: {"error": {"message": "at most 20", "code": 400}}\n\n'))
    with pytest.raises(EngineError, match="no answer to voice 'v0': at most 20"):
        ask(served)
    assert len(served.requests) == 1


def test_a_dead_branch_closes_those_that_still_speak(served):
    def speaks_on(handler, body):
        handler.begin_stream()
        handler.event(handler.piece(" a"))
        until_hung_up(handler)

    served.faults.extend([speaks_on, speaks_on, dies_after(2)])
    with pytest.raises(EngineError, match="after 2 tokens"):
        ask(served, voices=3)
    assert _settled(lambda: served.busy, 0) == 0


def test_a_connection_that_is_cut_before_an_answer_is_made_again(served):
    served.faults.append(lambda handler, body: drop(handler))
    assert ask(served)[0].text
    refused(served, lambda handler, body: drop(handler), "does not answer")


def test_where_no_one_listens_there_is_one_clear_error():
    with serving(VLLM) as found:
        url = found.url
    with pytest.raises(EngineError, match="does not answer") as caught:
        create(url, max_retries=0)
    assert "running" in caught.value.hint


def test_a_server_that_starts_and_dies_at_its_first_request_is_noticed_at_creation():
    with serving(VLLM) as found:
        found.faults.extend([lambda handler, body: drop(handler)] * 9)
        with pytest.raises(EngineError, match="does not answer"):
            create(found.url, max_retries=0)


def test_a_server_that_reports_its_own_death_at_the_first_request_is_noticed_too():
    """As vLLM does on a CPU with a mixture of experts and --enable-lora."""
    with serving(VLLM) as found:
        found.faults.append(sends('data: {"error": {"message": "EngineCore died"}}\n\n'))
        with pytest.raises(EngineError, match="failed: EngineCore died") as caught:
            create(found.url)
        assert "log" in caught.value.hint


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_busy_or_failing_server_is_asked_again(served, code):
    sound = ask(served)[0].text
    served.faults.append(status(code, Retry_After="0.01"))
    assert ask(served)[0].text == sound


def test_a_server_that_always_fails_is_asked_as_often_as_allowed(served):
    served.faults.extend([status(500, "CUDA error", Retry_After="0.01")] * 9)
    with pytest.raises(EngineError, match="answers 500: CUDA error") as caught:
        ask(served)
    assert "log" in caught.value.hint
    assert len(served.requests) == 2
    served.faults.clear()


def test_a_refusal_is_not_asked_again(served):
    served.faults.append(status(400, "too long"))
    with pytest.raises(EngineError, match="answers 400: too long"):
        ask(served)
    assert len(served.requests) == 1


def test_a_key_is_sent_and_never_shown(served):
    assert served.headers[-1]["Authorization"] == f"Bearer {KEY}"
    error = refused(served, status(401, f"{KEY} is wrong"), "answers 401: \\*\\*\\* is wrong")
    assert "OPENAI_API_KEY" in error.hint


def test_without_a_key_none_is_sent(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "admin")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer ambient")
    monkeypatch.setenv("OPENAI_ORG_ID", "org")
    with serving(VLLM) as found:
        create(found.url)
        for headers in found.headers:
            assert not {"Authorization", "Openai-Organization"} & set(headers)


def test_a_key_that_no_header_can_hold_is_refused_unshown(monkeypatch):
    monkeypatch.setenv("OTHER_KEY", f"{KEY}\nx")
    with pytest.raises(InputError, match="the key in OTHER_KEY") as caught:
        create("http://127.0.0.1:1/v1", key_variable="OTHER_KEY")
    assert KEY not in caught.value.message


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_a_redirect_is_not_followed_and_the_key_stays(served, code):
    with serving(VLLM) as other:
        location = f"{other.url}/chat/completions"
        error = refused(served, status(code, Location=location), f"answers {code}")
        assert location in error.hint
        assert other.headers == []


# --- babble ---------------------------------------------------------------------------------------

PIECE = '{"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": null%s}]}'


@pytest.mark.parametrize(
    "data",
    [
        "{", "nonsense", "[" * 100_000, '{"choices": [], "usage": {"prompt_tokens": "\\ud8',
    ],
    ids=["cut", "word", "deep", "half"],
)  # fmt: skip
def test_what_is_no_json_is_garbage(served, data):
    refused(served, sends(f"data: {data}\n\n"), "garbage|died")


@pytest.mark.parametrize(
    "data",
    [
        "[]", "7", "null", '"text"', "{}", '{"choices": {}}', '{"choices": [7]}',
        '{"choices": [{"delta": {"content": 5}}]}', '{"choices": [{"delta": "a"}]}',
        PIECE % ', "token_ids": ["x"]', PIECE % ', "logprobs": {"content": [{"logprob": "x"}]}',
        '{"choices": [], "usage": {"prompt_tokens": -4}}', '{"choices": [], "usage": {}}',
    ],
)  # fmt: skip
def test_what_has_another_shape_is_named(served, data):
    refused(served, sends(f"data: {data}\n\n"), "answers what no OpenAI-compatible server does")


def test_bytes_that_are_no_text_are_garbage(served):
    def fault(handler, body):
        handler.begin_stream()
        handler.wfile.write(b"9\r\ndata: \xff\n\n\r\n0\r\n\r\n")

    refused(served, fault, "garbage")


def test_a_web_page_is_no_stream(served):
    def page(handler, body):
        handler.say(b"<html>welcome</html>", kind="text/html")

    error = refused(served, page, "'text/html' instead of a stream")
    assert "/v1" in error.hint
    refused(served, lambda h, b: h.say(b"<html>bad gateway", 502, "text/html"), "answers 502")


def test_a_server_of_another_kind_is_noticed_at_creation():
    with serving(VLLM, is_website=True) as found:
        with pytest.raises(EngineError, match="no OpenAI-compatible server") as caught:
            create(found.url)
        assert "/v1" in caught.value.hint


def test_an_answer_cut_for_a_strange_reason_is_no_answer(served):
    refused(served, sends(f"data: {PIECE % ''}\n\n".replace("null", '"content_filter"')), "filter")


# --- too much -------------------------------------------------------------------------------------


def test_a_server_that_does_not_stop_is_stopped(served):
    def fault(handler, body):
        handler.begin_stream()
        while True:
            handler.event(handler.piece(" a"))

    refused(served, fault, "goes on after the 6 tokens that voice 'v0' may say")


def test_a_line_without_end_is_bounded(served):
    def fault(handler, body):
        handler.begin_stream()
        while True:
            handler.event("data: " + "x" * (1 << 20))

    refused(served, fault, "more than .* bytes came")


def test_an_error_page_without_end_is_bounded(served):
    refused(served, lambda h, b: h.say(b"x" * (20 << 20), 400, "text/html"), "more than .* bytes")


def test_what_is_compressed_unasked_is_refused(served):
    def fault(handler, body):
        handler.say(b"\x1f\x8b", kind="text/event-stream", Content_Encoding="gzip")

    refused(served, fault, "compressed")


# --- silence --------------------------------------------------------------------------------------


def _hangs_at_once(handler, body):
    until_hung_up(handler)


def _hangs_after_the_header(handler, body):
    handler.begin_stream()
    until_hung_up(handler)


def _hangs_in_mid_stream(handler, body):
    handler.begin_stream()
    handler.event(handler.piece(" a"))
    until_hung_up(handler)


def _drips(text):
    def fault(handler, body):
        handler.begin_stream()
        while True:
            handler.event(text)
            time.sleep(TIMEOUT_S / 8)

    return fault


EMPTY = 'data: {"choices": [{"index": 0, "delta": {}}]}\n\n'


@pytest.mark.parametrize(
    "fault",
    [
        _hangs_at_once, _hangs_after_the_header, _hangs_in_mid_stream,
        _drips(": still here\n\n"), _drips("d"), _drips(EMPTY),
    ],
    ids=["at once", "after the header", "in mid-stream", "comments", "bytes", "empty events"],
)  # fmt: skip
def test_a_server_that_says_nothing_is_not_waited_for_long(served, fault):
    served.engine = create(served.url, timeout_s=TIMEOUT_S, max_retries=1)
    served.requests.clear()
    error = refused(served, fault, f"silent for {TIMEOUT_S:g} s")
    assert "timeout_s" in error.hint
    assert len(served.requests) == 2  # this one was not sent again; the sound one followed


def test_a_slow_server_that_does_speak_may_take_longer_than_the_timeout(served):
    served.engine = create(served.url, timeout_s=TIMEOUT_S, max_retries=1)

    def fault(handler, body):
        handler.begin_stream()
        for index in range(5):
            handler.event(handler.piece(f" {index}"))
            time.sleep(TIMEOUT_S / 4)
        handler.event(handler.piece("", "stop"))
        handler.end_stream()

    served.faults.append(fault)
    assert ask(served)[0].text == " 0 1 2 3 4"


# --- the caller's own end -------------------------------------------------------------------------


def test_cancelling_closes_every_request_and_keeps_what_was_said(served):
    served.faults.extend([_hangs_in_mid_stream] * 3)
    cancel, heard = Event(), []

    def hear(voice, piece):
        heard.append(voice)
        if len(heard) == 3:
            cancel.set()

    results = ask(served, voices=3, on_token=hear, cancel=cancel)
    assert [(r.text, r.finish_reason) for r in results] == [(" a", "cancelled")] * 3
    assert _settled(lambda: served.busy, 0) == 0


def test_a_branch_that_was_done_stays_done_when_others_are_cancelled(served):
    served.faults.append(_hangs_in_mid_stream)
    cancel = Event()
    whole = {}

    def hear(voice, piece):
        whole[voice] = whole.get(voice, 0) + 1
        if len(whole) == 2 and sum(whole.values()) >= 5:
            threading.Timer(0.2, cancel.set).start()

    results = ask(served, voices=2, on_token=hear, cancel=cancel, max_new_tokens=4)
    assert sorted(r.finish_reason for r in results) == ["cancelled", "length"]


@pytest.mark.parametrize("kind", [RuntimeError, KeyboardInterrupt])
def test_an_error_of_the_listener_ends_all(served, kind):
    served.faults.extend([_hangs_in_mid_stream] * 2)

    def hear(voice, piece):
        raise kind("enough")

    with pytest.raises(kind, match="enough"):
        ask(served, voices=2, on_token=hear)
    served.faults.clear()
    assert ask(served)[0].text
