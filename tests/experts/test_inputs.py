"""What a file holds is what is recorded: prompts, texts, dialogues, labels."""

import json

import pytest

from veche.core.errors import InputError
from veche.experts.inputs import read_items
from veche.experts.token_classes import CLASSES, class_numbers, token_class


def written(tmp_path, text):
    path = tmp_path / "input"
    path.write_text(text, encoding="utf-8")
    return path


def lines(tmp_path, *values):
    return written(tmp_path, "\n".join(json.dumps(v, ensure_ascii=False) for v in values))


def test_a_plain_file_is_a_prompt_a_line_or_a_text_between_empty_lines(tmp_path):
    path = written(tmp_path, "Что такое вече?\n\n2 + 2\nещё строка\n")
    prompts = read_items(path)
    assert [item.messages[0].text for item in prompts] == ["Что такое вече?", "2 + 2", "ещё строка"]
    assert all(item.text is None for item in prompts)
    assert [item.text for item in read_items(path, kind="texts")] == [
        "Что такое вече?",
        "2 + 2\nещё строка",
    ]


def test_a_json_line_is_what_its_keys_say_and_the_other_keys_are_labels(tmp_path):
    long = "l" * 200
    path = lines(
        tmp_path,
        {"text": "текст", "language": "ru", "year": 1136, "id": "x", "note": long, "f": 0.5},
        {"prompt": "Why?", "domain": "why"},
        {"messages": [{"role": "user", "content": "Да?"}], "domain": "да"},
    )
    text, prompt, dialogue = read_items(path)
    (body,) = read_items(lines(tmp_path, {"body": "тело"}), text_field="body")
    assert (text.text, text.labels) == ("текст", {"language": "ru", "year": "1136"})
    assert (prompt.messages[0].text, prompt.labels) == ("Why?", {"domain": "why"})
    assert dialogue.messages[0].text == "Да?"
    assert body.text == "тело"


def test_documents_are_named_by_their_content_wherever_they_stand(tmp_path):
    first = read_items(written(tmp_path, "a\nб\nb\n"))
    again = read_items(written(tmp_path, "new\nb\na\nб\na\n"))
    names = {item.messages[0].text: item.name for item in first}
    assert [item.name for item in again][1:4] == [names["b"], names["a"], names["б"]]
    assert again[4].name == f"{names['a']}-2"
    assert len({item.name for item in again}) == 5


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"text": 1', "line 1 is no JSON"),
        ('{"text": ""}', "no messages, no prompt and no text"),
        ('{"messages": []}', "no list, or an empty one"),
        ('{"messages": [{"role": "assistant", "content": "x"}]}', "in turn"),
        ('{"messages": [{"role": "tool", "content": "x"}]}', "not as it must be"),
        ('{"messages": [{"role": "user", "content": ["x"]}]}', "not as it must be"),
        ('{"messages": [{"role": "system", "content": "x"}]}', "in turn"),
        (
            '{"messages": [{"role": "user", "content": "x"}, {"role": "system", "content": "y"}]}',
            "one system message at most, at its beginning",
        ),
        ('{"text": "x"}\n[1]', "line 2 is no JSON object"),
    ],
)
def test_a_line_that_is_none_of_these_is_named(tmp_path, line, told):
    with pytest.raises(InputError, match=told):
        read_items(written(tmp_path, line))


def test_an_empty_file_is_refused(tmp_path):
    for kind in ("prompts", "texts"):
        with pytest.raises(InputError, match="empty"):
            read_items(written(tmp_path, " \n\n"), kind=kind)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (" the", "latin"), ("Größe", "latin"), (" совет", "cyrillic"), ("ё", "cyrillic"),
        ("和", "other letters"), ("λ", "other letters"), ("12", "digits"), ("½", "digits"),
        (" 1a2", "digits"), ("...", "punctuation"), ("—", "punctuation"), ("+=", "symbols"),
        ("😀", "symbols"), ("€", "symbols"), (" ", "space"), ("\n\n\t", "space"), ("\xa0", "space"),
        ("", "control"), ("\x00", "control"), ("b.", "latin"), (".b", "punctuation"),
    ],
)  # fmt: skip
def test_the_class_of_a_token_is_that_of_most_of_its_letters(text, kind):
    assert token_class(text) == kind
    assert class_numbers([text], [False]) == [CLASSES.index(kind)]


def test_the_chat_formats_own_tokens_are_control_whatever_they_say():
    assert token_class("assistant", is_control=True) == "control"
