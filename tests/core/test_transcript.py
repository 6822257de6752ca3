"""Events are appended, flushed, and read back or refused with a reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veche.core.errors import InputError, OutputError
from veche.core.transcript import Transcript, read_transcript


def written(path, *texts):
    with Transcript(path) as log:
        for text in texts:
            log.append("TEXT_MESSAGE_CONTENT", "логик", step="drafts", text=text)
        return log.events


@given(texts=st.lists(st.text(st.characters(codec="utf-8")), min_size=1, max_size=4))
def test_any_text_comes_back(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("t") / "t.jsonl"
    events = written(path, *texts, "a\u2028b\x85c\nd")
    assert read_transcript(path) == events


def test_each_event_is_on_disk_before_anyone_is_told(tmp_path):
    path = tmp_path / "t.jsonl"
    told = []
    with Transcript(path, on_event=lambda e: told.append((e, read_transcript(path)[-1]))) as log:
        log.append("RUN_STARTED", question="?")
        log.append("RUN_FINISHED", answer="!")
    assert len(told) == 2
    assert all(event == on_disk for event, on_disk in told)


def test_an_existing_file_is_not_overwritten(tmp_path):
    (tmp_path / "t.jsonl").write_text("mine")
    with pytest.raises(OutputError, match="overwrites nothing"):
        Transcript(tmp_path / "t.jsonl")
    assert (tmp_path / "t.jsonl").read_text() == "mine"


LINE = '{"seq": 0, "kind": "RUN_STARTED", "voice": null, "data": {}}\n'


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (LINE[:30].encode(), "line 1 is cut short"),
        ((LINE + LINE[:20]).encode(), "line 2 is cut short"),
        ((LINE + LINE).encode(), "events are missing"),
        (b"{}\n", "not an event"),
        (b"[]\n", "not an event"),
        (b"hello\n", "line 1 is damaged"),
        (LINE.replace("RUN_STARTED", "NONESUCH").encode(), "line 1 is damaged"),
        (LINE.replace("null", "7").encode(), "line 1 is damaged"),
        (b"\xff\xfe\n", "not UTF-8"),
    ],
)
def test_damage_is_named(tmp_path, content, reason):
    path = tmp_path / "t.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=reason):
        read_transcript(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_transcript(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="cannot be read"):
        read_transcript(tmp_path)
