"""A report is JSON held to a schema, and its training dialogues follow from labels."""

import json

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from veche.core.errors import InputError
from veche.roles.data.example import Example, Message
from veche.roles.data.problems.generate import generate
from veche.roles.data.problems.puzzle import KINDS
from veche.roles.data.split import split_by_group
from veche.roles.reporter.report import (
    CONFIDENCE_HEAD,
    CONFIDENCE_TAIL,
    InvalidReport,
    Report,
    parse_report,
    report_schema,
)
from veche.roles.reporter.training_data import intent_of, report_examples, right_report

NUM_STEPS = 5
steps = st.integers(0, NUM_STEPS - 1)
reports = st.builds(
    Report,
    intent=st.from_regex(r"[a-z][a-z0-9_ ]{0,39}", fullmatch=True),
    contradictions=st.lists(steps, max_size=4).map(tuple),
    first_bad_step=st.none() | steps,
    confidence=st.integers(0, 9),
    next_focus=st.sampled_from(["question", "step", "answer"]),
)


@given(report=reports)
def test_a_report_reads_back_as_it_was_and_fits_its_schema(report):
    text = report.as_json()
    assert parse_report(text, NUM_STEPS) == report
    jsonschema.validate(json.loads(text), report_schema(NUM_STEPS))
    assert f"{CONFIDENCE_HEAD}{report.confidence}{CONFIDENCE_TAIL}" in text


GOOD = Report(
    intent="list", contradictions=(1,), first_bad_step=1, confidence=3, next_focus="step"
).as_json()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no JSON"),
        (GOOD[:-1], "no JSON"),
        ("[]", "Input should be"),
        (GOOD.replace("3", "NaN"), "no JSON"),
        (GOOD.replace("3", "10"), "confidence"),
        (GOOD.replace("3", '"3"'), "confidence"),
        (GOOD.replace("3", "true"), "confidence"),
        (GOOD.replace('"first_bad_step": 2', '"first_bad_step": 0'), "first_bad_step"),
        (GOOD.replace('"first_bad_step": 2', '"first_bad_step": 9'), "step 9 of 5 is named"),
        (GOOD.replace("[2]", "[7]"), "step 7 of 5 is named"),
        (GOOD.replace('"step"}', '"else"}'), "next_focus"),
        (GOOD.replace('"list"', '"List!"'), "intent"),
        (GOOD.replace("}", ', "more": 1}'), "more"),
        (GOOD.replace('"intent": "list", ', ""), "intent"),
        ("\ud800", "no JSON"),
    ],
)
def test_what_is_no_report_is_invalid_with_a_reason(text, reason):
    found = parse_report(text, NUM_STEPS)
    assert isinstance(found, InvalidReport)
    assert reason in found.reason


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("language", ["en", "ru"])
def test_targets_say_what_the_labels_say(kind, language):
    examples = generate(kind, language=language, difficulty=5, count=10, seed=3)
    for example, dialogue in zip(examples, report_examples(examples), strict=True):
        shown, target = (message.content for message in dialogue.messages)
        assert example.messages[0].content in shown
        lines = shown.splitlines()
        for number, step in enumerate(example.steps, start=1):
            assert f"{number}. {step}" in lines
        report = parse_report(target, len(example.steps))
        assert report == right_report(example)
        assert report.first_bad_step == example.first_bad_step
        assert report.confidence == (9 if example.is_right else 0)
        assert report.intent == example.intent
        if example.first_bad_step is not None:
            named = int(json.loads(target)["first_bad_step"])
            assert lines[lines.index(f"{named}. {example.steps[named - 1]}")]
            assert report.next_focus == "step"


def test_dialogues_are_split_as_their_examples_are():
    examples = generate("units", language="en", difficulty=3, count=30, seed=0)
    one = [e.group for e in split_by_group(examples, [0.7, 0.3], seed=1)[1]]
    other = [e.group for e in split_by_group(report_examples(examples), [0.7, 0.3], seed=1)[1]]
    assert one == other


def answered(**labels):
    messages = (Message(role="user", content="Q"), Message(role="assistant", content="a\nb"))
    return Example(messages=messages, group="g", task="t", **labels)


def test_a_wrong_answer_whose_step_nobody_knows_names_none():
    report = right_report(answered(is_right=False))
    assert (report.first_bad_step, report.confidence, report.next_focus) == (None, 0, "question")


def test_a_right_answer_in_spite_of_a_wrong_step_keeps_both():
    report = right_report(answered(is_right=True, first_bad_step=0, steps=("a", "b")))
    assert (report.first_bad_step, report.confidence, report.next_focus) == (0, 9, "step")


@pytest.mark.parametrize("example", [answered(), answered(is_right=None, intent="x")])
def test_what_nobody_judged_teaches_nothing(example):
    with pytest.raises(InputError, match="no answer that somebody called right or wrong"):
        report_examples([example])


@given(intent=st.text(max_size=60))
def test_any_label_becomes_an_intent_that_the_schema_takes(intent):
    spelt = intent_of(answered(intent=intent))
    jsonschema.validate(spelt, report_schema(1)["properties"]["intent"])
