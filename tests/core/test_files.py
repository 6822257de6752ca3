"""Files: a crash leaves the old one or the new one; everything else is an error with a path."""

import errno
import hashlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veche.core import files
from veche.core.errors import CheckpointError, DiskError, InputError, OutputError
from veche.core.files import (
    PARTIAL_SUFFIX,
    atomic_writer,
    disk_error,
    open_regular,
    read_json_object,
    read_text,
    remove_partials,
    require_apart,
    require_empty,
    sha256_of,
    sole_writer,
    write_json,
    write_text,
    write_together,
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
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

    @pytest.mark.parametrize("make", ["file", "symlink"])
    def test_what_has_a_name_like_a_partial_file_is_left_alone(self, tmp_path, make):
        mine, path = tmp_path / "mine", tmp_path / "file"
        mine.write_bytes(b"mine")
        other = path.with_name("file" + PARTIAL_SUFFIX)
        other.write_bytes(b"mine too") if make == "file" else other.symlink_to(mine)
        before = other.read_bytes()
        write_text(path, "new")
        assert path.read_bytes() == b"new"
        assert other.read_bytes() == before
        assert mine.read_bytes() == b"mine"
        assert set(names(tmp_path)) == {"file", "mine", other.name}

    def test_the_temporary_name_cannot_be_taken_by_another(self, tmp_path, monkeypatch):
        """Were the random part guessed, the file there would still be nobody's to write to."""
        monkeypatch.setattr(files, "token_hex", lambda size: "guessed")
        (tmp_path / "mine").write_bytes(b"mine")
        (tmp_path / ".file.guessed.partial").symlink_to(tmp_path / "mine")
        with pytest.raises(DiskError, match="File exists"):
            write_text(tmp_path / "file", "new")
        assert (tmp_path / "mine").read_bytes() == b"mine"
        assert not (tmp_path / "file").exists()

    def test_a_symlink_of_that_name_is_replaced_and_not_followed(self, tmp_path):
        (tmp_path / "mine").write_bytes(b"mine")
        (tmp_path / "file").symlink_to(tmp_path / "mine")
        write_text(tmp_path / "file", "new")
        assert (tmp_path / "file").read_bytes() == b"new"
        assert (tmp_path / "mine").read_bytes() == b"mine"

    @pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
    def test_the_umask_decides_who_may_read(self, tmp_path, mask):
        old = os.umask(mask)
        try:
            write_text(tmp_path / "file", "x")
        finally:
            os.umask(old)
        assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~mask

    @pytest.mark.parametrize("letter", ["a", "ж", "\N{CJK UNIFIED IDEOGRAPH-4E00}"])
    def test_the_longest_names_can_be_written(self, tmp_path, letter):
        name = letter * (255 // len(letter.encode()))
        write_text(tmp_path / name, "x")
        assert names(tmp_path) == [name]

    def test_many_writers_of_one_file_leave_one_whole_file(self, tmp_path):
        children = []
        for number in range(8):
            if (child := os.fork()) == 0:
                write_text(tmp_path / "file", str(number) * 100_000)
                os._exit(0)
            children.append(child)
        assert {os.waitpid(child, 0)[1] for child in children} == {0}
        content = (tmp_path / "file").read_text()
        assert content == content[0] * 100_000
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
        remove_partials(tmp_path)
        assert names(tmp_path) == ["file"]

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


class TestOpenRegular:
    @pytest.fixture
    def strange(self, tmp_path):
        """A folder, a pipe that nobody writes to, a device, and a symlink to each."""
        (tmp_path / "folder").mkdir()
        os.mkfifo(tmp_path / "pipe")
        places = [tmp_path / "folder", tmp_path / "pipe", Path("/dev/zero")]
        for number, place in enumerate(places):
            (tmp_path / f"link{number}").symlink_to(place)
        return [*places, *(tmp_path / f"link{number}" for number in range(3))]

    @pytest.mark.timeout(60)
    def test_what_would_block_or_never_end_is_refused(self, strange):
        for path in strange:
            with pytest.raises(OSError, match="not a file"), open_regular(path):
                pass
            with pytest.raises(CheckpointError, match="not a file"):
                read_json_object(path)

    @pytest.mark.timeout(60)
    @pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
    def test_a_device_is_no_text(self, device):
        with pytest.raises(InputError, match="is a device"):
            read_text(Path(device))

    def test_a_symlink_to_a_file_is_followed(self, tmp_path):
        (tmp_path / "file").write_bytes(b"{}")
        (tmp_path / "link").symlink_to("file")
        assert read_json_object(tmp_path / "link") == {}

    def test_no_descriptor_is_lost(self, strange, tmp_path):
        (tmp_path / "file").write_bytes(b"{}")
        lowest = os.open(tmp_path / "file", os.O_RDONLY)
        os.close(lowest)
        for path in strange:
            with pytest.raises(CheckpointError):
                read_json_object(path)
        read_json_object(tmp_path / "file")
        again = os.open(tmp_path / "file", os.O_RDONLY)
        os.close(again)
        assert again == lowest


def test_a_long_file_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "file.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(CheckpointError, match="longer than 32 MiB"):
        read_json_object(tmp_path / "file.json")


def test_of_many_processes_that_add_one_none_is_lost(tmp_path):
    path = tmp_path / "new" / "count.json"
    children = []
    for _ in range(12):
        if (child := os.fork()) == 0:
            for _ in range(5):
                with sole_writer(path):
                    count = read_json_object(path)["count"] if path.exists() else 0
                    write_json(path, {"count": count + 1})
            os._exit(0)
        children.append(child)
    assert {os.waitpid(child, 0)[1] for child in children} == {0}
    assert read_json_object(path) == {"count": 60}


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


def test_what_is_read_is_never_written_over(tmp_path):
    model, text = tmp_path / "модель", tmp_path / "text.txt"
    model.mkdir()
    text.write_text("слово")
    (tmp_path / "link").symlink_to(text)
    for out in (model, model / "config.json", model / "new" / "file", text, tmp_path / "link"):
        with pytest.raises(OutputError, match="only read"):
            require_apart(out, model, text)
    for out in (tmp_path, tmp_path / "модель-2", tmp_path / "text.txt.out", tmp_path / "new" / "x"):
        require_apart(out, model, text)


def test_pages_and_pictures_are_written_together_or_not_at_all(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(DiskError):
        write_together({tmp_path / "page": "страница", tmp_path / "folder": b"picture"})
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    write_together({tmp_path / "page": "страница", tmp_path / "picture": b"\x89PNG"})
    assert (tmp_path / "picture").read_bytes() == b"\x89PNG"
    assert (tmp_path / "page").read_text(encoding="utf-8") == "страница"


def test_a_symlink_that_leads_to_itself_is_no_place_and_no_crash(tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    require_apart(tmp_path / "out", loop)
    with pytest.raises(OutputError, match="only read"):
        require_apart(loop, loop)
    with pytest.raises(OutputError, match="symlink"):
        require_empty(loop, advice="")
