"""The protocol, with scripted voices: who is heard when, what it costs, and that it ends."""

import json
from itertools import pairwise

import pytest

from veche.core.errors import InputError, OutputError, UnsupportedError
from veche.core.transcript import read_transcript
from veche.council import readout
from veche.council.deliberation import deliberate
from veche.council.seats import default_council
from veche.council.settings import CouncilSettings
from veche.engines.scripted import ScriptedEngine
from veche.roles.registry import Registry

AGREE = dict.fromkeys(("proposer", "logician", "objector"), "Paris is the capital of France.")
DISAGREE = {
    "proposer": ["The capital is Lyon.", "The capital is Paris."],
    "logician": "The capital is Paris.",
    "objector": "The capital is Paris.",
    "objector → A": "No fault.",
    "objector → B": "No fault.",
    "objector → C": "No fault.",
    "synthesiser": "Paris, although one draft said Lyon.",
}


def with_objection_to(author, script=DISAGREE):
    """Object to the draft of one voice, whatever letter it was shown under."""
    letters = letters_of(deliberate(ScriptedEngine(script), "Capital?").events)
    letter = next(letter for letter, name in letters.items() if name == author)
    return {**script, f"objector → {letter}": "Lyon is wrong: the capital is Paris."}


def letters_of(events):
    return next(e.data["letters"] for e in events if "letters" in e.data)


def steps(result):
    return [e.data["step"] for e in result.events if e.kind == "STEP_STARTED"]


def test_a_council_that_agrees_ends_after_its_drafts():
    result = deliberate(ScriptedEngine(AGREE), "Capital of France?")
    assert result.stopped_early
    assert steps(result) == ["trunk", "drafts"]
    assert result.answer == AGREE["proposer"]
    assert result.bill.self_consistency_samples == 3


def test_early_stop_can_be_turned_off():
    result = deliberate(
        ScriptedEngine({**AGREE, "synthesiser": "Paris."}),
        "Capital?",
        settings=CouncilSettings(early_stop=False),
    )
    assert not result.stopped_early
    assert result.answer == "Paris."


def test_without_an_objection_that_holds_nothing_is_revised():
    result = deliberate(ScriptedEngine(DISAGREE), "Capital?")
    assert steps(result) == ["trunk", "drafts", "objections", "synthesis"]
    assert result.answer == DISAGREE["synthesiser"]
    assert not result.stopped_early


def test_only_the_author_of_a_faulty_draft_revises():
    result = deliberate(ScriptedEngine(with_objection_to("proposer")), "Capital?")
    assert steps(result) == ["trunk", "drafts", "objections", "revisions", "synthesis"]
    messages = readout.messages_of(result.events)
    revised = [m for m in messages if m.step == "revisions"]
    assert [(m.voice, m.text) for m in revised] == [("proposer", "The capital is Paris.")]
    assert [m.holds for m in messages if m.step == "objections"].count(True) == 1


class RecordingEngine(ScriptedEngine):
    """A scripted engine that notes what every branch could read."""

    def __init__(self, script):
        super().__init__(script)
        self.read = []

    def decode(self, trunk, branches, on_token=None, **how):
        self.read.append((trunk.text, [branch.instruction for branch in branches]))
        return super().decode(trunk, branches, on_token)


def test_drafts_are_blind_and_objections_anonymous():
    engine = RecordingEngine(with_objection_to("proposer"))
    deliberate(engine, "Capital?")
    trunks = [text for text, _ in engine.read]
    assert "Lyon" not in trunks[0] + "".join(engine.read[0][1])
    for before, after in pairwise(trunks):
        assert after.startswith(before)
    names = [voice.name for voice in default_council(Registry())]
    assert not any(name in trunks[-1] for name in names)
    assert "drafts A, B, C" not in trunks[-1]
    for needed in ("Lyon is wrong", "Revised drafts", "Before the objections"):
        assert needed in trunks[-1]


def test_the_first_vote_and_its_minority_are_kept():
    result = deliberate(ScriptedEngine(DISAGREE), "Capital?")
    finished = result.events[-1].data
    assert finished["agreed"] == ["logician", "objector"]
    assert finished["minority"] == ["proposer"]


def test_usage_is_the_sum_over_trunk_extensions_and_branches():
    result = deliberate(ScriptedEngine(with_objection_to("proposer")), "Why so?")
    engine = RecordingEngine(with_objection_to("proposer"))
    deliberate(engine, "Why so?")
    last_trunk = len(engine.read[-1][0].split())
    suffixes = sum(len(text.split()) for _, texts in engine.read for text in texts)
    assert result.usage.prefilled_tokens == last_trunk + suffixes
    assert result.usage.reused_tokens == sum(
        len(text.split()) * len(texts) for text, texts in engine.read
    )
    said = [m.text for m in readout.messages_of(result.events)]
    assert result.usage.decoded_tokens == sum(len(text.split()) for text in said)
    drafts = [e.data for e in result.events if e.data.get("step") == "drafts" and e.voice]
    costs = [d["prefilled_tokens"] + d["decoded_tokens"] for d in drafts if "text" in d]
    spent = result.usage.prefilled_tokens + result.usage.decoded_tokens - result.bill.trunk_tokens
    assert result.bill.self_consistency_samples == int(spent / (sum(costs) / 3))


def test_the_json_has_the_documented_keys_and_comes_from_the_transcript(tmp_path):
    path = tmp_path / "transcript.jsonl"
    result = deliberate(ScriptedEngine(DISAGREE), "Capital?", transcript=path)
    told = json.loads(json.dumps(result.as_dict()))
    assert list(told)[:4] == ["answer", "voices", "usage", "stopped_early"]
    assert list(told["usage"]) == ["prefilled_tokens", "reused_tokens", "decoded_tokens"]
    assert all(list(voice) == ["name", "text"] for voice in told["voices"])
    assert [v["name"] for v in told["voices"]] == [v.name for v in default_council(Registry())]
    events = read_transcript(path)
    assert tuple(events) == result.events
    assert readout.answer_of(events) == result.answer
    assert readout.voices_of(events, "en") == result.voices
    assert readout.usage_of(events) == result.usage


def test_the_observer_only_reports_measurements():
    engine = ScriptedEngine(DISAGREE, entropies={"proposer": 1.5, "logician": 0.25})
    result = deliberate(engine, "Capital?", language="ru")
    first = result.observations[0]
    assert first["token_entropy"] == {"proposer": 1.5, "logician": 0.25, "objector": 0.0}
    assert first["disagreement"] == pytest.approx(2 / 3 * 0.5, abs=0.2)
    said = next(v["text"] for v in result.voices if v["name"] == "recursia")
    assert "энтропия токенов, нат: proposer 1.50" in said
    speakers = {m.voice for m in readout.messages_of(result.events)}
    assert "recursia" not in speakers


def test_a_council_may_sit_without_an_observer():
    voices = [voice for voice in default_council(Registry()) if voice.kind != "observer"]
    result = deliberate(ScriptedEngine(DISAGREE), "Capital?", voices=voices)
    assert result.observations == []
    assert "recursia" not in [v["name"] for v in result.voices]


@pytest.mark.parametrize("question", ["", " \n\t", "a\0b", "\ud800"])
def test_a_question_that_is_no_text_is_refused(question):
    with pytest.raises(InputError, match="the question"):
        deliberate(ScriptedEngine(AGREE), question)


def test_a_question_longer_than_the_context_is_refused(tmp_path):
    path = tmp_path / "t.jsonl"
    with pytest.raises(InputError, match="context"):
        deliberate(ScriptedEngine(AGREE, context_tokens=500), "word " * 600, transcript=path)
    assert [e.kind for e in read_transcript(path)] == ["RUN_STARTED", "RUN_ERROR"]
    with pytest.raises(InputError, match="leaves 0 tokens of the model's context"):
        deliberate(ScriptedEngine(AGREE, context_tokens=600), "word " * 480)


def test_an_engine_that_cannot_fork_is_refused():
    class Linear(ScriptedEngine):
        capabilities = frozenset()

    with pytest.raises(UnsupportedError, match="cannot do: fork"):
        deliberate(Linear(AGREE), "Why?")


@pytest.mark.parametrize("budget", [80, 200])
def test_a_runs_budget_holds_and_the_run_ends(budget):
    script = {name: "word " * 300 + name for name in ("proposer", "logician", "objector")}
    script["objector"] += " wrong word"
    settings = CouncilSettings(max_tokens_per_run=budget, max_tokens_per_voice=100)
    result = deliberate(
        ScriptedEngine({**script, "synthesiser": "x " * 300}), "Why?", settings=settings
    )
    assert result.usage.decoded_tokens <= budget
    assert result.events[-1].kind == "RUN_FINISHED"


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens_per_voice": 1},
        {"max_tokens_per_run": -5},
        {"agreement_threshold": 0},
        {"top_p": 2},
        {"repetition_penalty": 0.5},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        CouncilSettings(**wrong)


def test_a_budget_too_small_for_a_council_says_how_much_it_needs():
    with pytest.raises(InputError, match="10 turns need 80 tokens"):
        deliberate(ScriptedEngine(AGREE), "Why?", settings=CouncilSettings(max_tokens_per_run=20))


def test_a_council_lacking_a_part_is_refused():
    with pytest.raises(InputError, match="needs one objector"):
        deliberate(ScriptedEngine(AGREE), "Why?", voices=default_council(Registry())[:2])


def test_silent_voices_end_in_an_empty_answer_and_a_silent_synthesiser_in_a_draft():
    assert deliberate(ScriptedEngine({}), "Why?").answer == ""
    drafts = {"proposer": "Lyon.", "logician": "Paris here.", "objector": "Paris there."}
    result = deliberate(ScriptedEngine(drafts), "Why?")
    assert result.answer == "Paris here."
    assert result.events[-1].data["reason"] == "silence"


def test_a_full_context_ends_the_run_with_the_best_draft():
    # Words that the layout adds are few; the drafts alone overflow what is left.
    class Growing(ScriptedEngine):
        def count_tokens(self, text):
            return 10_000 if "Draft answers" in text else super().count_tokens(text)

    result = deliberate(Growing(DISAGREE, context_tokens=5000), "Why?")
    assert result.events[-1].data["reason"] == "context"
    assert result.answer == "The capital is Paris."


def test_a_transcript_is_never_overwritten(tmp_path):
    path = tmp_path / "t.jsonl"
    deliberate(ScriptedEngine(AGREE), "Why?", transcript=path)
    with pytest.raises(OutputError):
        deliberate(ScriptedEngine(AGREE), "Why?", transcript=path)


def test_labels_that_a_voice_imitates_are_not_part_of_its_text():
    result = deliberate(ScriptedEngine({"synthesiser": "Draft A: Paris."}), "Why?")
    assert result.answer == "Paris."


def test_control_characters_of_a_model_reach_neither_the_answer_nor_the_terminal():
    shown = []
    result = deliberate(
        ScriptedEngine({"synthesiser": "Pa\x1b[2Jris\x00.\n\tYes."}),
        "Why?",
        on_token=lambda voice, piece: shown.append(piece),
    )
    assert result.answer == "".join(shown) == "Pa[2Jris.\n\tYes."
