"""The laws of every engine, over HTTP, with servers of four kinds."""

from threading import Event

import numpy as np
import pytest
from tests.engines.remote.served import (
    CONTEXT,
    END,
    KINDS,
    LLAMA,
    OLLAMA,
    SGLANG,
    VLLM,
    WORDS,
    serving,
)

from veche.core.errors import InputError, UnsupportedError
from veche.engines.openai import create
from veche.engines.protocol import (
    AdaptiveExperts,
    Branch,
    Capability,
    Capture,
    Sampling,
    Steering,
)
from veche.engines.remote.reply import UNKNOWN_ID

SYSTEM, USER = "Ты — вече.", "Почему небо голубое? Say it well."
TASKS = [" Draft an answer.", " Object to it.", " Сомневайся."]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: kind.name)
def served(request):
    with serving(request.param) as found:
        found.engine = create(found.url, timeout_s=20)
        yield found


@pytest.fixture(scope="module")
def vllm():
    with serving(VLLM) as found:
        found.engine = create(found.url, timeout_s=20)
        yield found


def branches(**sampling):
    given = {"max_new_tokens": 8, "temperature": 0.9} | sampling
    return [
        Branch(voice=f"v{index}", instruction=task, sampling=Sampling(seed=index, **given))
        for index, task in enumerate(TASKS)
    ]


def said(results):
    return [(r.voice, r.text, r.token_ids, r.finish_reason) for r in results]


def test_a_branch_says_what_it_would_say_alone_and_the_trunk_is_left_as_it_was(served):
    engine = served.engine
    trunk = engine.open_trunk(system=SYSTEM, user=USER)
    together = engine.decode(trunk, branches())
    alone = [engine.decode(trunk, [branch])[0] for branch in branches()]
    assert said(together) == said(alone) == said(engine.decode(trunk, branches()))
    assert len({r.text for r in together}) == len(TASKS)


def test_appending_says_the_same_as_opening_at_once(served):
    engine = served.engine
    grown = engine.open_trunk(system=SYSTEM, user=USER)
    assert engine.extend_trunk(grown, " And then?") > 0
    whole = engine.open_trunk(system=SYSTEM, user=USER + " And then?")
    assert said(engine.decode(grown, branches())) == said(engine.decode(whole, branches()))
    assert grown.num_tokens == whole.num_tokens


def test_every_request_is_the_trunk_and_its_own_end(vllm):
    trunk = vllm.engine.open_trunk(system=SYSTEM, user=USER)
    vllm.requests.clear()
    vllm.engine.decode(trunk, branches())
    assert sorted(r["messages"][-1]["content"] for r in vllm.requests) == sorted(
        USER + task for task in TASKS
    )
    assert all(r["messages"][0] == {"role": "system", "content": SYSTEM} for r in vllm.requests)


def test_pieces_join_to_the_text_and_come_under_their_voice(served):
    heard = {}
    trunk = served.engine.open_trunk(system=SYSTEM, user=USER)
    results = served.engine.decode(
        trunk, branches(), lambda voice, piece: heard.setdefault(voice, []).append(piece)
    )
    assert {r.voice: r.text for r in results if r.text} == {
        voice: "".join(pieces) for voice, pieces in heard.items()
    }


def test_tokens_are_numbered_where_the_server_tells_and_counted_where_not(served):
    trunk = served.engine.open_trunk(system=SYSTEM, user=USER)
    for result in served.engine.decode(trunk, branches()):
        if served.kind is OLLAMA or served.kind.name == "ollama":
            assert set(result.token_ids) == {UNKNOWN_ID}
        else:
            words = [WORDS[number] for number in result.token_ids if number != END]
            assert "".join(words) == result.text
        assert len(result.token_ids) == len(result.text.split()) + (result.finish_reason == "stop")


@pytest.mark.parametrize("kind", [VLLM, SGLANG, LLAMA], ids=lambda kind: kind.name)
def test_the_trunk_is_prefilled_once_and_read_by_all(kind):
    with serving(kind) as found:
        engine = create(found.url)
        trunk = engine.open_trunk(system=SYSTEM, user=USER)
        for result in engine.decode(trunk, branches()):
            assert result.prefilled_tokens + result.reused_tokens > trunk.num_tokens
            assert result.reused_tokens >= trunk.num_tokens - 2  # the last word, and markup


def test_a_server_that_does_not_tell_what_it_cached_is_billed_for_all():
    with serving(OLLAMA) as found:
        engine = create(found.url)
        trunk = engine.open_trunk(system=SYSTEM, user=USER)
        (result,) = engine.decode(trunk, branches()[:1])
        assert (result.reused_tokens, result.prefilled_tokens > trunk.num_tokens) == (0, True)


def test_a_server_that_sends_no_bill_is_billed_by_estimate():
    with serving(OLLAMA, usage=False) as found:
        engine = create(found.url)
        trunk = engine.open_trunk(system=SYSTEM, user=USER)
        assert trunk.num_tokens >= len((SYSTEM + USER).encode())
        (result,) = engine.decode(trunk, branches()[:1])
        assert result.reused_tokens == trunk.num_tokens
        assert result.prefilled_tokens == len(TASKS[0].encode())


def test_logprobs_are_those_of_the_whole_distribution():
    for kind in (VLLM, LLAMA):
        with serving(kind) as found:
            engine = create(found.url)
            trunk = engine.open_trunk(system=SYSTEM, user=USER)
            branch = Branch(
                voice="a",
                instruction=" x",
                sampling=Sampling(max_new_tokens=6, temperature=0.8, seed=3),
                capture=Capture(logprobs=END + 1),
            )
            (result,) = engine.decode(trunk, [branch])
            lines = result.logprobs
            assert lines.top.shape == (len(result.token_ids), END + 1)
            np.testing.assert_allclose(np.exp(lines.top.astype(float)).sum(-1), 1, atol=1e-5)
            for chosen, number, ids, top in zip(
                lines.chosen, result.token_ids, lines.top_ids, lines.top, strict=True
            ):
                assert top[list(ids).index(number)] == chosen
                assert (np.diff(top) <= 0).all()


@pytest.mark.parametrize("num_likeliest", [0, 1])
def test_as_many_likeliest_tokens_come_as_were_asked_for(num_likeliest):
    for kind in (VLLM, LLAMA):
        with serving(kind) as found:
            engine = create(found.url)
            trunk = engine.open_trunk(system="", user="u")
            branch = Branch(voice="a", instruction="", capture=Capture(logprobs=num_likeliest))
            (result,) = engine.decode(trunk, [branch])
            assert result.logprobs.top_ids.shape == (len(result.token_ids), num_likeliest)


def test_a_stop_text_is_no_part_of_the_text_even_if_the_server_sends_it(served):
    trunk = served.engine.open_trunk(system=SYSTEM, user=USER)
    (free,) = served.engine.decode(trunk, branches(temperature=0, max_new_tokens=12)[:1])
    word = free.text.split()[2]
    (cut,) = served.engine.decode(
        trunk, branches(temperature=0, max_new_tokens=12, stop=(word,))[:1]
    )
    assert cut.finish_reason == "stop"
    assert cut.text == free.text[: free.text.index(word)]


@pytest.mark.parametrize("kind", [VLLM, LLAMA, SGLANG], ids=lambda kind: kind.name)
def test_going_on_with_a_kept_answer_says_what_one_longer_answer_says(kind):
    with serving(kind) as found:
        engine = create(found.url)
        trunk = engine.open_trunk(system=SYSTEM, user=USER)
        make = lambda n, text, **more: Branch(  # noqa: E731
            voice="a", instruction=text, sampling=Sampling(max_new_tokens=n), **more
        )
        (whole,) = engine.decode(trunk, [make(6, " go")])
        (first,) = engine.decode(trunk, [make(3, " go", keep=True)])
        (rest,) = engine.decode(first.trunk, [make(3, "")])
        assert first.text + rest.text == whole.text
        assert first.trunk.num_tokens > trunk.num_tokens


def test_behind_a_kept_answer_an_instruction_is_the_users_next_turn(vllm):
    engine = vllm.engine
    trunk = engine.open_trunk(system=SYSTEM, user=USER)
    (first,) = engine.decode(trunk, [Branch(voice="a", instruction=" go", keep=True)])
    asked = engine.decode(first.trunk, [Branch(voice="a", instruction="why?")])
    roles = [turn["role"] for turn in vllm.requests[-1]["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    engine.extend_trunk(first.trunk, "why")
    assert said(engine.decode(first.trunk, [Branch(voice="a", instruction="?")])) == said(asked)


def test_a_server_that_would_begin_another_answer_is_not_asked_to_go_on():
    with serving(OLLAMA) as found:
        engine = create(found.url)
        trunk = engine.open_trunk(system=SYSTEM, user=USER)
        (first,) = engine.decode(trunk, [Branch(voice="a", instruction=" go", keep=True)])
        with pytest.raises(UnsupportedError, match="can't go on with an answer"):
            engine.decode(first.trunk, [Branch(voice="a", instruction="")])


def test_markup_in_a_text_reaches_the_server_as_no_markup(vllm):
    trunk = vllm.engine.open_trunk(system="<|im_start|>system", user="[INST] a </s> b")
    vllm.engine.decode(trunk, [Branch(voice="a", instruction="<|im_end|> <｜User｜>")])
    sent = " ".join(turn["content"] for turn in vllm.requests[-1]["messages"])
    for mark in ("<|im_start|>", "[INST]", "</s>", "<|im_end|>", "<｜User｜>"):
        assert mark not in sent
        assert mark in sent.replace("\u2060", "")


def test_json_is_held_to_its_schema(vllm):
    trunk = vllm.engine.open_trunk(system=SYSTEM, user=USER)
    schema = {"type": "object", "properties": {"holds": {"enum": ["да"]}}}
    (result,) = vllm.engine.decode(
        trunk, [Branch(voice="a", instruction=" judge", json_schema=schema)]
    )
    assert (result.text, result.finish_reason) == ('{"holds": "\\u0434\\u0430"}', "stop")
    assert vllm.requests[-1]["response_format"]["json_schema"]["schema"] == schema


@pytest.mark.parametrize(
    ("asked", "missing"),
    [
        ({"num_experts_per_tok": 2}, "num_experts_per_tok"),
        ({"num_experts_per_tok": AdaptiveExperts(least=1, most=2)}, "num_experts_per_tok"),
        ({"steering": Steering(bias=np.zeros((1, 1), np.float32))}, "steering"),
        ({"capture": Capture(logits=True)}, "logits"),
        ({"capture": Capture(hidden_layers=(0,))}, "hidden_states"),
        ({"capture": Capture(heads=True)}, "heads"),
        ({"capture": Capture(router_logits=True)}, "router_logits"),
        ({"adapter": "role"}, "adapters"),
    ],
)
def test_what_a_server_cannot_do_is_refused_by_name(vllm, asked, missing):
    trunk = vllm.engine.open_trunk(system=SYSTEM, user=USER)
    with pytest.raises(UnsupportedError, match=f"cannot do: {missing}"):
        vllm.engine.decode(trunk, [Branch(voice="a", instruction="", **asked)])


def test_the_context_is_kept(vllm):
    engine = vllm.engine
    with pytest.raises(InputError, match=f"context of {CONTEXT}"):
        engine.open_trunk(system="", user="w " * CONTEXT)
    trunk = engine.open_trunk(system="", user="w")
    with pytest.raises(InputError, match=f"context of {CONTEXT}"):
        engine.extend_trunk(trunk, " w" * CONTEXT)
    with pytest.raises(InputError, match=f"context of {CONTEXT}"):
        engine.decode(trunk, branches(max_new_tokens=CONTEXT)[:1])
    assert engine.decode(trunk, branches())[0].text


def test_a_closed_trunk_and_anothers_are_refused(vllm):
    trunk = vllm.engine.open_trunk(system="", user="w")
    vllm.engine.close_trunk(trunk)
    with pytest.raises(ValueError, match="closed"):
        vllm.engine.decode(trunk, branches())
    with pytest.raises(InputError, match="nothing to ask"):
        vllm.engine.open_trunk(system="", user="")


def test_no_more_requests_than_allowed_run_at_once():
    with serving(VLLM) as found:
        engine = create(found.url, concurrency=2)
        trunk = engine.open_trunk(system=SYSTEM, user=USER)
        found.most_busy = 0
        many = [Branch(voice=str(index), instruction=f" {index}") for index in range(8)]
        assert len(engine.decode(trunk, many)) == 8
        assert found.most_busy <= 2


def test_it_works_inside_a_running_event_loop(vllm):
    import asyncio

    async def inside():
        trunk = vllm.engine.open_trunk(system=SYSTEM, user=USER)
        return vllm.engine.decode(trunk, branches())

    trunk = vllm.engine.open_trunk(system=SYSTEM, user=USER)
    assert said(asyncio.run(inside())) == said(vllm.engine.decode(trunk, branches()))


def test_cancelled_before_it_begins_it_asks_nothing(vllm):
    trunk = vllm.engine.open_trunk(system=SYSTEM, user=USER)
    vllm.requests.clear()
    cancel = Event()
    cancel.set()
    results = vllm.engine.decode(trunk, branches(), cancel=cancel)
    assert [(r.text, r.finish_reason) for r in results] == [("", "cancelled")] * len(TASKS)
    assert vllm.engine.decode(trunk, []) == []


def test_capabilities_are_what_was_seen():
    seen = {}
    for kind in KINDS:
        with serving(kind) as found:
            seen[kind.name] = create(found.url).capabilities
    always = {Capability.FORK, Capability.KEEP, Capability.JSON}
    assert seen["vllm"] == seen["llama-server"] == always | {Capability.LOGPROBS}
    assert seen["sglang"] == seen["ollama"] == always
