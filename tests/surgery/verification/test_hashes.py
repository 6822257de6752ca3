"""Hashes: what they notice, and lists that are damaged or lie."""

import hashlib
import json

import pytest
from tiny_families import grown

from veche.core.errors import CheckpointError
from veche.surgery.names import HASHES_NAME
from veche.surgery.verification.card import write_into_card
from veche.surgery.verification.hashes import verify_hashes


@pytest.fixture
def folders(tmp_path):
    """Return a source and what was grown of it."""
    source, target, _ = grown(tmp_path, "mixtral", {"moe_intermediate_size": 32})
    return source, target


def test_a_built_folder_is_as_the_build_left_it(folders):
    source, target = folders
    report = verify_hashes(target, source)
    assert report.passed
    listed = json.loads((target / HASHES_NAME).read_text())
    assert set(report.target.unchanged) == set(listed["files"])
    assert set(report.source.unchanged) == set(listed["source"])
    assert {"model.safetensors", "config.json", "tokenizer.json", "veche_plan.json"} <= set(
        listed["files"]
    )
    assert {"model.safetensors", "config.json"} == set(listed["source"])
    for folder, files in ((target, listed["files"]), (source, listed["source"])):
        for name, digest in files.items():
            assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
    assert verify_hashes(target).source is None


def flip_last_byte(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "veche_plan.json"])
def test_a_changed_file_and_a_missing_one_are_named(folders, name):
    _, target = folders
    flip_last_byte(target / name)
    report = verify_hashes(target)
    assert (report.target.changed, report.target.missing) == ((name,), ())
    assert not report.passed
    (target / name).unlink()
    report = verify_hashes(target)
    assert (report.target.changed, report.target.missing) == ((), (name,))
    assert not report.passed


def test_a_changed_source_is_noticed_if_it_is_given(folders):
    source, target = folders
    flip_last_byte(source / "model.safetensors")
    assert verify_hashes(target).passed
    report = verify_hashes(target, source)
    assert report.target.passed
    assert report.source.changed == ("model.safetensors",)
    assert not report.passed


def test_an_extra_file_is_told_and_fails_only_where_it_may_be_loaded(folders):
    _, target = folders
    (target / "notes.txt").write_text("mine")
    (target / ".gitattributes").write_text("mine")
    report = verify_hashes(target)
    assert report.target.extra == ("notes.txt",)
    assert report.passed
    (target / "adapter.safetensors").write_bytes(b"")
    assert not verify_hashes(target).passed


def test_the_model_card_may_be_edited(folders):
    _, target = folders
    (target / "README.md").write_text("mine")
    assert verify_hashes(target).passed


GOOD = "0" * 64


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"schema": 2, "source": {}, "files": {}}, "schema 2"),
        ({"source": {}, "files": {}}, "schema None"),
        ({"schema": 1, "files": {}}, "'source' is not a list"),
        ({"schema": 1, "source": {}, "files": []}, "'files' is not a list"),
        ({"schema": 1, "source": {}, "files": {"../x": GOOD}}, "'files' is not a list"),
        ({"schema": 1, "source": {"/etc/passwd": GOOD}, "files": {}}, "'source' is not a list"),
        ({"schema": 1, "source": {}, "files": {"..": GOOD}}, "'files' is not a list"),
        ({"schema": 1, "source": {}, "files": {"a\\b": GOOD}}, "'files' is not a list"),
        ({"schema": 1, "source": {}, "files": {"a\0": GOOD}}, "'files' is not a list"),
        ({"schema": 1, "source": {}, "files": {"": GOOD}}, "'files' is not a list"),
        ({"schema": 1, "source": {}, "files": {"a": "short"}}, "'files' is not a list"),
        ({"schema": 1, "source": {}, "files": {"a": None}}, "'files' is not a list"),
    ],
)
def test_a_damaged_or_hostile_list_is_refused(folders, content, message):
    _, target = folders
    (target / HASHES_NAME).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=message):
        verify_hashes(target)


def test_a_folder_without_hashes_is_refused_with_advice(folders):
    source, target = folders
    with pytest.raises(CheckpointError, match="nothing to compare") as caught:
        verify_hashes(source, target)
    assert "veche verify SOURCE" in caught.value.hint
    with pytest.raises(CheckpointError, match="does not exist"):
        verify_hashes(target / "nowhere")


def test_a_card_without_a_place_for_figures_is_refused(folders):
    _, target = folders
    for prepare in (lambda: (target / "README.md").write_text("mine"),
                    (target / "README.md").unlink):  # fmt: skip
        prepare()
        with pytest.raises(CheckpointError, match="no place for figures"):
            write_into_card(target, None)
