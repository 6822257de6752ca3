"""Files: a crash leaves the old one or the new one; everything else is an error with a path."""

import errno
import hashlib
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veche.core import files
from veche.core.errors import CheckpointError, DiskError, InputError, OutputError
from veche.core.files import (
    PARTIAL_SUFFIX,
    atomic_writer,
    disk_error,
    read_json_object,
    read_text,
    require_empty,
    sha256_of,
    write_json,
    write_text,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def names(folder):
    return [file.name for file in folder.iterdir()]


class TestAtomicWriter:
    def test_the_file_appears_with_all_of_its_content(self, tmp_path):
        path = tmp_path / "new" / "folder" / "file"
        with atomic_writer(path) as file:
            file.write(b"one")
            file.write(b" two")
            assert not path.exists()
        assert path.read_bytes() == b"one two"
        assert names(path.parent) == ["file"]

    @pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
    def test_an_error_in_the_block_leaves_the_old_content(self, tmp_path, error):
        path = tmp_path / "file"
        path.write_bytes(b"old")

        def write():
            with atomic_writer(path) as file:
                file.write(b"half of the new")
                raise error

        with pytest.raises(error):
            write()
        assert path.read_bytes() == b"old"
        assert names(tmp_path) == ["file"]

    def test_an_error_without_old_content_leaves_nothing(self, tmp_path):
        def write():
            with atomic_writer(tmp_path / "file") as file:
                file.write(b"half")
                raise RuntimeError

        with pytest.raises(RuntimeError):
            write()
        assert names(tmp_path) == []

    def test_what_the_system_refuses_is_a_disk_error_and_leaves_the_old_content(self, tmp_path):
        path = tmp_path / "file"
        path.write_bytes(b"old")

        def write():
            with atomic_writer(path) as file:
                file.write(b"new")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with pytest.raises(DiskError, match="the disk is full") as caught:
            write()
        assert str(path) in caught.value.message
        assert path.read_bytes() == b"old"
        assert names(tmp_path) == ["file"]

    def test_a_partial_file_of_an_earlier_crash_is_written_over(self, tmp_path):
        path = tmp_path / "file"
        path.with_name("file" + PARTIAL_SUFFIX).write_bytes(b"left over, and longer")
        write_text(path, "new")
        assert path.read_bytes() == b"new"
        assert names(tmp_path) == ["file"]

    def test_a_killed_process_leaves_the_old_content(self, tmp_path):
        path = tmp_path / "file"
        path.write_bytes(b"old")
        child = os.fork()
        if child == 0:
            with atomic_writer(path) as file:
                file.write(b"new")
                file.flush()
                os._exit(9)
        os.waitpid(child, 0)
        assert path.read_bytes() == b"old"

    def test_a_name_that_is_a_folder_is_a_disk_error(self, tmp_path):
        (tmp_path / "file").mkdir()
        with pytest.raises(DiskError, match="could not be written"):
            write_text(tmp_path / "file", "x")
        assert names(tmp_path) == ["file"]


@given(content=st.dictionaries(st.text(), JSON))
def test_what_was_written_as_json_is_read_back(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("json") / "file.json"
    write_json(path, content)
    assert read_json_object(path) == content
    assert path.read_bytes().endswith(b"}\n")


class TestReading:
    @pytest.mark.parametrize(
        "content", [b"", b"{", b"\xff\xfe", b"{'a': 1}", b"[" * 100_000, b'{"a": 1} {"b": 2}']
    )
    def test_what_is_not_json_is_named(self, tmp_path, content):
        (tmp_path / "file.json").write_bytes(content)
        with pytest.raises(CheckpointError, match="is not valid JSON") as caught:
            read_json_object(tmp_path / "file.json")
        assert str(tmp_path / "file.json") in caught.value.message
        assert caught.value.hint

    @pytest.mark.parametrize("value", [[], 1, "a", None, True])
    def test_json_that_is_no_object_is_named(self, tmp_path, value):
        (tmp_path / "file.json").write_text(json.dumps(value))
        with pytest.raises(CheckpointError, match=f"a JSON {type(value).__name__}, not an object"):
            read_json_object(tmp_path / "file.json")

    @pytest.mark.parametrize(
        ("read", "error"), [(read_json_object, CheckpointError), (read_text, InputError)]
    )
    def test_what_is_not_there_or_is_a_folder(self, tmp_path, read, error):
        with pytest.raises(error, match="does not exist"):
            read(tmp_path / "none")
        with pytest.raises(error, match="cannot be read"):
            read(tmp_path)

    def test_text_is_utf8(self, tmp_path):
        (tmp_path / "t").write_bytes("совет".encode())
        assert read_text(tmp_path / "t") == "совет"
        (tmp_path / "t").write_bytes("совет".encode("cp1251"))
        with pytest.raises(InputError, match="not UTF-8"):
            read_text(tmp_path / "t")


class TestRequireEmpty:
    def test_what_is_not_there_or_empty_is_free(self, tmp_path):
        require_empty(tmp_path / "none", advice="")
        require_empty(tmp_path, advice="")

    @pytest.mark.parametrize("name", ["file", ".hidden", "folder/"])
    def test_anything_inside_is_respected(self, tmp_path, name):
        path = tmp_path / name
        path.mkdir() if name.endswith("/") else path.write_text("mine")
        with pytest.raises(OutputError, match="is not empty") as caught:
            require_empty(tmp_path, advice="go elsewhere")
        assert caught.value.hint == "go elsewhere"

    def test_a_file_is_no_folder(self, tmp_path):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(OutputError, match="is a file"):
            require_empty(tmp_path / "file", advice="")


@pytest.mark.parametrize("size", [0, 1, 8, 9, 16, 17])
def test_sha256_is_that_of_hashlib_at_every_edge_of_a_chunk(tmp_path, monkeypatch, size):
    monkeypatch.setattr(files, "_CHUNK_BYTES", 8)
    content = bytes(range(size))
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_a_disk_error_says_what_the_system_said(tmp_path):
    full = disk_error(OSError(errno.ENOSPC, "x"), tmp_path)
    assert "full" in full.message
    assert full.hint
    denied = disk_error(PermissionError(errno.EACCES, "Permission denied"), tmp_path)
    assert denied.message == f"{tmp_path} could not be written: Permission denied"
    assert "some words" in disk_error(OSError("some words"), tmp_path).message
