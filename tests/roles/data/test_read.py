"""Every file format becomes examples, or one clear error that names the line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veche.core.errors import InputError
from veche.core.transcript import Transcript
from veche.roles.data.example import Example, Message
from veche.roles.data.labelled import line_of, write_examples
from veche.roles.data.lines import MAX_LINE_BYTES
from veche.roles.data.read import read_examples

QUESTION = Message(role="user", content="What is 2 + 2?")
ANSWER = Message(role="assistant", content="2 + 2 = 4\nAnswer: 4")


def written(tmp_path, text, name="set.jsonl"):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def line(**value):
    return json.dumps(value, ensure_ascii=False) + "\n"


def turn(role, content):
    return {"role": role, "content": content}


CHAT = [turn("user", "What is 2 + 2?"), turn("assistant", "2 + 2 = 4\nAnswer: 4")]
GOOD = line(messages=CHAT)


def test_chat_jsonl_has_its_files_name_for_a_task_and_its_question_for_a_group(tmp_path):
    text = GOOD + line(messages=[turn("system", "Be brief."), *CHAT], id=7)
    first, second = read_examples(written(tmp_path, text, "sums.jsonl"))
    assert first.messages == (QUESTION, ANSWER)
    assert (first.task, first.group) == ("sums", second.group)
    assert second.messages[0].role == "system"


def test_sharegpt_conversations_are_read(tmp_path):
    said = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    (found,) = read_examples(written(tmp_path, line(conversations=said, system="Be kind.")))
    assert [m.role for m in found.messages] == ["system", "user", "assistant"]


names = st.text(min_size=1, max_size=8).filter(lambda text: text.strip())
texts = st.lists(names.filter(lambda text: "\n" not in text), min_size=1, max_size=4)


@st.composite
def labelled(draw):
    steps = tuple(draw(texts))
    has_bad = draw(st.booleans())
    return Example(
        messages=(
            Message(role="user", content=draw(names)),
            Message(role="assistant", content="\n".join(steps)),
        ),
        group=draw(names),
        task=draw(names),
        language=draw(st.sampled_from([None, "en", "ru"])),
        steps=steps if has_bad or draw(st.booleans()) else (),
        is_right=draw(st.sampled_from([None, True, False])),
        first_bad_step=draw(st.integers(0, len(steps) - 1)) if has_bad else None,
        intent=draw(st.none() | names),
        final_answer=draw(st.none() | names),
        author=draw(st.none() | names),
        signals=draw(
            st.dictionaries(names, st.floats(allow_nan=False, allow_infinity=False), max_size=2)
        ),
    )


@given(examples=st.lists(labelled(), min_size=1, max_size=5))
def test_what_is_written_reads_back_as_it_was(tmp_path_factory, examples):
    path = tmp_path_factory.mktemp("labelled") / "set.jsonl"
    assert write_examples(path, examples) == len(examples)
    assert read_examples(path) == examples


def test_a_transcript_gives_each_voices_answers_but_not_its_objections(tmp_path):
    path = tmp_path / "transcript.jsonl"
    with Transcript(path) as log:
        log.append("RUN_STARTED", question="Why?", language="ru")
        log.append("TEXT_MESSAGE_CONTENT", "logician", step="drafts", text="Because.")
        log.append("TEXT_MESSAGE_CONTENT", "objector", step="objections", text="No fault.")
        log.append("TEXT_MESSAGE_CONTENT", "proposer", step="drafts", text="")
        log.append("TEXT_MESSAGE_CONTENT", "synthesiser", step="synthesis", text="So it is.")
    found = read_examples(path)
    assert [(e.author, e.messages[-1].content) for e in found] == [
        ("logician", "Because."),
        ("synthesiser", "So it is."),
    ]
    assert {(e.group, e.language) for e in found} == {(found[0].group, "ru")}


def test_plain_text_is_cut_at_empty_lines(tmp_path):
    found = read_examples(written(tmp_path, "One\ntwo.\n\n\nThree.\n", "book.txt"))
    assert [e.messages[0].content for e in found] == ["One\ntwo.", "Three."]
    assert {(e.messages[0].role, e.task) for e in found} == {("assistant", "book")}


def test_each_model_solution_of_gsm8k_is_an_example_without_calculator_marks(tmp_path):
    text = line(
        question="How many?",
        ground_truth="It is <<1+1=2>>2.\nA: 2",
        small={"is_correct": False, "solution": "It is 1 + 1 = <<1+1=2>>2.\n\nSo 2 + 1.\nA: 3"},
        large={"is_correct": True, "solution": "A: 2"},
    )
    first, second = read_examples(written(tmp_path, text))
    assert first.steps == ("It is 1 + 1 = 2.", "So 2 + 1.", "A: 3")
    assert first.messages[-1].content == "\n".join(first.steps)
    assert (first.author, first.is_right, first.final_answer) == ("small", False, "2")
    assert (second.author, second.is_right) == ("large", True)
    assert first.group == second.group


def test_a_trace_of_big_bench_mistake_keeps_its_first_wrong_step_when_empty_ones_go(tmp_path):
    text = line(input="[ (", steps=["a", " ", "b"], target=") ]", answer=") )", mistake_index=2)
    text += line(input="[", steps=["a"], target="]", answer="]", mistake_index=None)
    wrong, right = read_examples(written(tmp_path, text, "dyck.jsonl"))
    assert (wrong.steps, wrong.first_bad_step, wrong.is_right) == (("a", "b"), 1, False)
    assert (right.first_bad_step, right.is_right, right.task) == (None, True, "dyck")


def test_clinc_keeps_its_authors_splits_and_its_out_of_scope_class(tmp_path):
    parts = {"train": [["a b", "x"]], "test": [["c", "y"]], "oos_test": [["d", "oos"]]}
    path = written(tmp_path, json.dumps(parts, indent=1), "clinc.json")
    assert [e.intent for e in read_examples(path, split="test")] == ["y", "oos"]
    assert len(read_examples(path)) == 3


def test_a_folder_is_read_file_by_file(tmp_path):
    written(tmp_path, GOOD, "b.jsonl")
    written(tmp_path, GOOD, "a.jsonl")
    written(tmp_path, "no data", "LICENSE")
    assert [e.task for e in read_examples(tmp_path)] == ["a", "b"]


def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path):
    plain = read_examples(written(tmp_path, GOOD))
    dressed = b"\xef\xbb\xbf" + GOOD.encode().replace(b"}\n", b"}\r\n")
    assert read_examples(written(tmp_path, dressed)) == plain


def test_unicode_line_separators_inside_a_text_end_no_line(tmp_path):
    text = "a\u2028b\u0085c"
    (found,) = read_examples(written(tmp_path, line(messages=[turn("user", text)])))
    assert found.messages[0].content == text


def labelled_line(**labels):
    return line(messages=CHAT, group="g", task="t", **labels)


BROKEN = {
    "cut short": (GOOD + '{"messages": [', "line 2 is no JSON"),
    "NaN": (GOOD + '{"messages": [], "signals": {"a": NaN}}\n', "line 2 is no JSON: NaN"),
    "a list": (GOOD + "[1]\n", "line 2 is a JSON list"),
    "no messages": (GOOD + line(text="x"), "line 2 has no messages"),
    "empty messages": (line(messages=[]), "line 1: there are no messages"),
    "assistant first": (line(messages=[CHAT[1], CHAT[0]]), "should be user's"),
    "user twice": (line(messages=[CHAT[0], CHAT[0]]), "number 2 should be assistant's"),
    "late system": (line(messages=[*CHAT, turn("system", "x")]), "number 3 should be user's"),
    "system alone": (line(messages=[turn("system", "x")]), "nobody speaks but the system"),
    "a tool": (line(messages=[turn("tool", "x")]), "messages.0.role"),
    "no text": (line(messages=[turn("user", "  ")]), "message 1, of user, is empty"),
    "a number for text": (line(messages=[turn("user", 4)]), "messages.0.content"),
    "label of a wrong type": (labelled_line(is_right="yes"), "is_right: input should be a valid"),
    "a number for a truth": (labelled_line(is_right=1), "is_right"),
    "a truth for a number": (
        labelled_line(steps=["2 + 2 = 4", "Answer: 4"], first_bad_step=True),
        "first_bad_step",
    ),
    "infinite signal": (labelled_line(signals={"a": "x"}), "signals.a"),
    "unknown label": (labelled_line(colour="red"), "there is no label 'colour'"),
    "misspelt label": (line(messages=CHAT, is_rigth=True), "there is no label 'is_rigth'"),
    "steps of another text": (labelled_line(steps=["a"]), "is not its steps"),
    "bad step beyond": (
        labelled_line(steps=["2 + 2 = 4", "Answer: 4"], first_bad_step=2),
        "first_bad_step is 2, but there are 2 steps",
    ),
    "judged question": (
        line(messages=CHAT[:1], is_right=True),
        "is_right are of the assistant's last message",
    ),
    "unknown keys": (line(prompt="x"), "line 1 has keys that veche knows no examples in: prompt"),
    "nothing": ("", "is empty"),
    "blank lines": (" \n\n", "is empty"),
    "not UTF-8": (GOOD.encode() + "{ответ}\n".encode("cp1251"), "line 2 is not UTF-8"),
    "UTF-16": (GOOD.encode("utf-16"), "line 1 is not UTF-8"),
    "half a surrogate": (line(messages=CHAT) + '{"messages": "\\ud800"}', "line 2 is no JSON"),
    "huge line": (b'{"messages": "' + b"x" * MAX_LINE_BYTES, "line 1 is longer than 16 MiB"),
    "mistake index": (
        line(input="a", steps=["b"], target="c", answer="c", mistake_index=1),
        "mistake_index is 1",
    ),
    "not a truth": (
        line(question="a", ground_truth="b", m={"is_correct": "no", "solution": "x"}),
        "m.is_correct",
    ),
    "no speaker": (line(conversations=[{"from": "bot", "value": "x"}]), "turn 1 is not as it must"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_refused_with_file_and_line(tmp_path, case):
    content, message = BROKEN[case]
    path = written(tmp_path, content)
    with pytest.raises(InputError) as caught:
        read_examples(path)
    assert message in caught.value.message
    assert str(path) in caught.value.message
    assert caught.value.hint or "nobody" in message or "JSON" in message


@pytest.mark.parametrize("content", ["{}", '{"train": [["a"]]}', '{"train": []}', "{"])
def test_json_that_is_no_clinc_is_refused(tmp_path, content):
    with pytest.raises(InputError, match=r"set\.json"):
        read_examples(written(tmp_path, content, "set.json"))


def test_a_missing_file_a_pipe_and_an_empty_folder_are_refused(tmp_path):
    import os

    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()
    for name in ("none.jsonl", "pipe", "empty"):
        with pytest.raises(InputError, match=name):
            read_examples(tmp_path / name)


def test_a_part_is_refused_where_the_authors_made_none(tmp_path):
    with pytest.raises(InputError, match="was not split by its authors"):
        read_examples(written(tmp_path, GOOD), split="test")


def test_numbers_that_are_not_finite_cannot_be_written():
    example = Example(messages=(QUESTION,), group="g", task="t", signals={"a": float("nan")})
    with pytest.raises(ValueError, match="JSON compliant"):
        line_of(example)
