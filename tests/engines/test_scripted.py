"""The scripted engine keeps the same contract as a model."""

import json
from threading import Event

import pytest

from veche.core.errors import CheckpointError, InputError, UnsupportedError
from veche.engines.protocol import Branch, Capability, Sampling, require
from veche.engines.scripted import ScriptedEngine, create


def say(engine, trunk, voice, **sampling):
    return engine.decode(
        trunk, [Branch(voice=voice, instruction="x y", sampling=Sampling(**sampling))]
    )[0]


def test_replies_come_in_order_and_the_last_one_repeats():
    engine = ScriptedEngine({"a": ["one", "two"], "b": "always"})
    trunk = engine.open_trunk(system="s", user="u")
    assert [say(engine, trunk, "a").text for _ in range(3)] == ["one", "two", "two"]
    assert say(engine, trunk, "b").text == say(engine, trunk, "b → A").text == "always"
    assert say(engine, trunk, "silent").text == ""


def test_tokens_are_words_and_budgets_hold():
    engine = ScriptedEngine({"a": "one two three"})
    trunk = engine.open_trunk(system="be brief", user="why?")
    assert engine.extend_trunk(trunk, " more words") == engine.count_tokens(" more words") == 2
    result = say(engine, trunk, "a", max_new_tokens=2)
    assert (result.text, result.finish_reason) == ("one two", "length")
    assert (result.prefilled_tokens, result.reused_tokens, len(result.token_ids)) == (2, 5, 2)


def test_entropy_is_a_capability_only_when_it_is_scripted():
    plain, told = ScriptedEngine({}), ScriptedEngine({"a": "x y"}, entropies={"a": 0.5})
    require(told, Capability.FORK, Capability.ENTROPY)
    with pytest.raises(UnsupportedError, match="cannot do: entropy, routing"):
        require(plain, Capability.ENTROPY, Capability.ROUTING)
    assert say(told, told.open_trunk(system="", user=""), "a").entropies == (0.5, 0.5)


def test_the_context_is_kept():
    engine = ScriptedEngine({}, context_tokens=3)
    with pytest.raises(InputError, match="context of 3"):
        engine.open_trunk(system="a b", user="c d")


def test_a_script_is_read_from_json(tmp_path):
    path = tmp_path / "replies.json"
    path.write_text(json.dumps({"a": ["да"]}))
    engine = create(path)
    assert say(engine, engine.open_trunk(system="", user=""), "a").text == "да"
    assert engine.name == "replies"


@pytest.mark.parametrize("script", ['{"a": 1}', '{"a": []}'])
def test_a_script_without_texts_is_refused(tmp_path, script):
    (tmp_path / "s.json").write_text(script)
    with pytest.raises(InputError, match="are not texts"):
        create(tmp_path / "s.json")


def test_a_script_that_is_no_json_is_refused(tmp_path):
    (tmp_path / "s.json").write_text("hello")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        create(tmp_path / "s.json")


def test_a_reply_ends_at_a_stop_text_or_when_it_is_cancelled():
    engine = ScriptedEngine({"a": "one two END three"})
    trunk = engine.open_trunk(system="", user="why?")
    cut = say(engine, trunk, "a", stop=("END",))
    assert (cut.text, cut.finish_reason) == ("one two ", "stop")
    cancel, pieces = Event(), []

    def hear(voice, piece):
        pieces.append(piece)
        cancel.set()

    branch = Branch(voice="a", instruction="", keep=True)
    result = engine.decode(trunk, [branch], hear, cancel=cancel)[0]
    assert (result.text, result.finish_reason, result.trunk) == ("one", "cancelled", None)
    assert pieces == ["one"]


def test_a_kept_branch_goes_on_where_its_voice_was():
    engine = ScriptedEngine({"a": ["first", "second"]})
    trunk = engine.open_trunk(system="", user="why?")
    kept = engine.decode(trunk, [Branch(voice="a", instruction=" Say.", keep=True)])[0].trunk
    assert kept.text == f"{trunk.text} Say. first"
    assert say(engine, kept, "a").text == "second"
