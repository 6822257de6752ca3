"""The chain's laws, on stages that only count how often they ran."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from veche.core.errors import CheckpointError, OutputError
from veche.demo.chain import RECORD_NAME, Chain, Stage, code_hash

NAMES = ("first", "second", "third", "fourth")


class Works:
    """Four stages that each write a file, and a list of those that ran."""

    def __init__(self, folder):
        self.folder = folder
        self.settings = dict.fromkeys(NAMES, 0)
        self.failing = None
        self.ran = []

    def output(self, name):
        return self.folder / f"{name}.txt"

    def run(self):
        """Run the whole chain as a new process would; return what ran."""
        self.ran = []
        chain = Chain(self.folder)
        self.results = [
            chain.run(
                Stage(
                    name=name,
                    outputs=(self.output(name),),
                    settings=self.settings[name],
                    run=lambda name=name: self._work(name),
                )
            )
            for name in NAMES
        ]
        return self.ran

    def _work(self, name):
        if self.failing == name:
            raise KeyboardInterrupt
        self.output(name).write_text(str(self.settings[name]))
        self.ran.append(name)


@pytest.fixture
def works(tmp_path):
    return Works(tmp_path / "demo")


def test_a_new_chain_runs_everything_in_order(works):
    assert works.run() == list(NAMES)
    assert [result.name for result in works.results] == list(NAMES)
    assert not any(result.was_skipped for result in works.results)
    assert all(result.seconds >= 0 for result in works.results)
    assert all(result.peak_memory_bytes > 10 << 20 for result in works.results)


def test_an_unchanged_chain_runs_nothing_and_remembers_what_it_took(works):
    works.run()
    first = works.results
    assert works.run() == []
    assert all(result.was_skipped for result in works.results)
    for before, now in zip(first, works.results, strict=True):
        assert (now.seconds, now.peak_memory_bytes) == (before.seconds, before.peak_memory_bytes)


@pytest.mark.parametrize("index", range(4))
def test_a_changed_setting_runs_its_stage_and_all_after_it(works, index):
    works.run()
    works.settings[NAMES[index]] = 1
    assert works.run() == list(NAMES[index:])
    assert works.run() == []


@pytest.mark.parametrize("index", range(4))
def test_a_missing_output_runs_its_stage_again(works, index):
    works.run()
    works.output(NAMES[index]).unlink()
    assert NAMES[index] in works.run()
    assert works.output(NAMES[index]).exists()
    assert works.run() == []


@pytest.mark.parametrize("index", range(4))
def test_an_error_keeps_what_was_done_before_it(works, index):
    works.failing = NAMES[index]
    with pytest.raises(KeyboardInterrupt):
        works.run()
    assert works.ran == list(NAMES[:index])
    works.failing = None
    assert works.run() == list(NAMES[index:])


@given(history=st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 2)), max_size=6))
def test_whatever_was_changed_every_output_is_that_of_the_settings_now(tmp_path_factory, history):
    works = Works(tmp_path_factory.mktemp("chain") / "demo")
    for name, value in history:
        works.settings[name] = value
        works.run()
    works.run()
    for name in NAMES:
        assert works.output(name).read_text() == str(works.settings[name])


def test_a_renamed_stage_is_another_stage(works):
    works.run()
    chain = Chain(works.folder)
    stage = Stage(name="1st", outputs=(works.output("first"),), settings=0, run=lambda: None)
    assert chain.run(stage).was_skipped is False


class TestItsFolder:
    def test_a_folder_of_others_is_refused_and_left_alone(self, tmp_path):
        (tmp_path / "diary.txt").write_text("mine")
        with pytest.raises(OutputError, match="did not make") as caught:
            Chain(tmp_path)
        assert "--out" in caught.value.hint
        assert [file.name for file in tmp_path.iterdir()] == ["diary.txt"]

    def test_a_file_is_refused(self, tmp_path):
        (tmp_path / "demo").write_text("mine")
        with pytest.raises(OutputError):
            Chain(tmp_path / "demo")
        assert (tmp_path / "demo").read_text() == "mine"

    def test_an_empty_one_is_taken(self, tmp_path):
        Chain(tmp_path)
        assert json.loads((tmp_path / RECORD_NAME).read_text()) == {}

    def test_its_own_is_known_again_whatever_else_lies_there(self, works):
        works.run()
        (works.folder / "notes.txt").write_text("mine")
        assert works.run() == []

    def test_a_damaged_record_is_an_error_and_not_a_new_start(self, works):
        works.run()
        (works.folder / RECORD_NAME).write_text("{")
        with pytest.raises(CheckpointError, match="not valid JSON"):
            works.run()


class TestCodeHash:
    @pytest.fixture
    def package(self, tmp_path, monkeypatch):
        """A package that can be imported and changed; its name is new each time."""
        name = f"coded_{abs(hash(tmp_path))}"
        folder = tmp_path / name
        (folder / "inner").mkdir(parents=True)
        (folder / "__init__.py").write_text("")
        (folder / "inner" / "data.yaml").write_text("a: 1")
        monkeypatch.syspath_prepend(tmp_path)
        yield folder
        sys.modules.pop(name, None)

    def _hash(self, package):
        code_hash.cache_clear()
        try:
            return code_hash(package.name)
        finally:
            code_hash.cache_clear()

    def test_it_changes_with_any_file_of_the_package(self, package):
        before = self._hash(package)
        assert self._hash(package) == before
        (package / "inner" / "data.yaml").write_text("a: 2")
        assert self._hash(package) != before

    def test_it_does_not_change_with_what_python_compiles(self, package):
        before = self._hash(package)
        (package / "inner" / "__pycache__").mkdir()
        (package / "inner" / "__pycache__" / "x.pyc").write_bytes(b"x")
        assert self._hash(package) == before

    def test_veche_has_one(self):
        assert len(code_hash("veche")) == 64
