import json
import multiprocessing
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from veche.core.errors import CheckpointError, RoleError, VecheError
from veche.plugins import registry as plugins
from veche.roles.registry import Registry
from veche.roles.role import Role
from veche.roles.role_file import parse_role

SHIPPED = {"proposer", "logician", "objector", "synthesiser", "recursia", "q-intent"}


def a_role(name="strict", **changes) -> Role:
    return replace(
        parse_role(f"{{name: {name}, kind: drafter, title: T, prompt: P}}", where="r"), **changes
    )


def a_probe(folder: Path, value: float = 0.5) -> Path:
    folder.mkdir()
    save_file({"weight": np.full(8, value, np.float32)}, folder / "probe.safetensors")
    (folder / "probe.json").write_text(json.dumps({"layer": 2}))
    return folder


@pytest.fixture
def registry(tmp_path) -> Registry:
    return Registry(tmp_path / "roles")


def files_of(registry: Registry) -> list[str]:
    return sorted(
        path.relative_to(registry.folder_path).as_posix()
        for path in registry.folder_path.rglob("*")
        if path.is_file()
    )


class TestShippedRoles:
    def test_all_six_are_there_and_nothing_is_written_to_read_them(self, registry):
        assert set(registry.names()) >= SHIPPED
        for name in SHIPPED:
            assert registry.get(name).name == name
        assert not registry.folder_path.exists()

    @pytest.mark.parametrize("name", sorted(SHIPPED))
    def test_each_speaks_both_languages(self, registry, name):
        role = registry.get(name)
        assert role.title["en"] != role.title["ru"]
        assert role.prompt["en"] != role.prompt["ru"]

    def test_an_own_version_takes_the_name_and_removing_it_gives_it_back(self, registry):
        shipped = registry.get("logician")
        mine = replace(shipped, prompt={"en": "Think.", "ru": "Думай."})
        assert registry.save(mine, note="shorter").number == 1
        assert registry.get("logician") == mine
        assert registry.get("logician", 0) == shipped
        assert [v.number for v in registry.versions("logician")] == [0, 1]
        registry.use("logician", 0)
        assert registry.get("logician") == shipped
        registry.remove("logician")
        assert [(v.number, v.is_in_use) for v in registry.versions("logician")] == [(0, True)]

    def test_a_shipped_role_cannot_be_removed(self, registry):
        with pytest.raises(RoleError, match="of the package 'veche'"):
            registry.remove("logician")

    def test_a_broken_plugin_is_named_with_its_package(self, registry, monkeypatch, tmp_path):
        point = next(p for p in plugins.entry_points(group="veche.roles") if p.name == "logician")
        broken = type(point)("ghost", "veche.roles.shipped:NOWHERE", "veche.roles")._for(point.dist)
        monkeypatch.setattr(plugins, "entry_points", lambda group: [point, broken])
        assert registry.names() == ("ghost", "logician")
        with pytest.raises(VecheError, match=r"'ghost' of package 'veche' is broken"):
            registry.get("ghost")


class TestVersions:
    def test_numbers_begin_at_one_and_are_never_given_twice(self, registry):
        texts = [a_role(prompt={"en": t, "ru": t}) for t in ("a", "b", "c")]
        assert [registry.save(role).number for role in texts] == [1, 2, 3]
        registry.remove("strict", 3)
        assert registry.get("strict") == texts[1]
        assert registry.save(texts[2]).number == 4

    def test_the_same_content_is_one_version(self, registry):
        first = registry.save(a_role())
        registry.save(a_role(license="MIT"))
        assert registry.save(a_role()) == first
        assert [v.is_in_use for v in registry.versions("strict")] == [True, False]

    def test_parents_tell_the_lineage(self, registry):
        first = registry.save(a_role())
        child = a_role(license="MIT", parents=(first.content_hash,))
        registry.save(child)
        assert registry.get("strict").parents == (first.content_hash,)

    def test_an_unknown_name_or_version_is_an_error_with_the_nearest(self, registry):
        with pytest.raises(RoleError) as caught:
            registry.get("logicain")
        assert "logician" in caught.value.hint
        with pytest.raises(RoleError, match="no version 7"):
            registry.get("logician", 7)

    @pytest.mark.parametrize("name", ["../evil", "a/b", "", ".", "A", "a" * 65, "a\0b", "-a"])
    def test_no_name_is_a_path(self, registry, name):
        for call in (registry.get, registry.versions, registry.remove):
            with pytest.raises(RoleError):
                call(name)
        with pytest.raises(RoleError):
            registry.save(replace(a_role(), name=name))
        assert not [f for f in files_of(registry) if not f.startswith(".registry")]

    def test_a_file_that_was_changed_by_hand_is_one_clear_error(self, registry):
        registry.save(a_role())
        (registry.folder_path / "own/strict/1.yaml").write_text("name: strict\n")
        with pytest.raises(RoleError, match="version 1 of role 'strict' is damaged") as caught:
            registry.get("strict")
        assert caught.value.hint == "remove it: veche role remove strict --version 1"
        registry.remove("strict", 1)
        assert "strict" not in registry.names()

    @pytest.mark.parametrize("text", ["{", "{}", '{"format": "veche-role-9"}', "[]", ""])
    def test_a_damaged_index_is_one_clear_error(self, registry, text):
        registry.save(a_role())
        (registry.folder_path / "own/strict/versions.json").write_text(text)
        with pytest.raises(RoleError, match=r"versions\.json is damaged"):
            registry.get("strict")

    def test_a_version_that_was_written_but_not_named_does_not_count(self, registry):
        registry.save(a_role())
        (registry.folder_path / "own/strict/2.yaml").write_text("half of a fi")
        assert registry.save(a_role(license="MIT")).number == 2
        assert registry.get("strict").license == "MIT"


class TestObjects:
    def test_an_object_is_kept_once_under_the_hash_of_its_content(self, registry, tmp_path):
        first = registry.keep(a_probe(tmp_path / "a"), "probe", base_hash="0" * 64, license="MIT")
        again = registry.keep(a_probe(tmp_path / "elsewhere"), "probe")
        other = registry.keep(a_probe(tmp_path / "b", 0.25), "probe")
        assert first.content_hash == again.content_hash != other.content_hash
        assert (first.base_hash, first.license) == ("0" * 64, "MIT")
        folder = registry.folder(first)
        assert sorted(f.name for f in folder.iterdir()) == ["probe.json", "probe.safetensors"]
        assert len(list(folder.parent.iterdir())) == 2

    def test_the_source_may_go_afterwards(self, registry, tmp_path):
        kept = registry.keep(a_probe(tmp_path / "a"), "probe")
        shutil.rmtree(tmp_path / "a")
        assert (registry.folder(kept) / "probe.safetensors").is_file()

    @pytest.mark.parametrize(
        "name", ["weights.pkl", "weights.bin", "model.pt", "run.py", "notes.txt"]
    )
    def test_pickles_and_strange_files_are_refused(self, registry, tmp_path, name):
        folder = a_probe(tmp_path / "a")
        (folder / name).write_bytes(b"\x80\x04.")
        with pytest.raises(CheckpointError, match="holds"):
            registry.keep(folder, "probe")
        assert list((registry.folder_path / "objects").glob("*")) == []

    def test_a_pickle_that_is_called_safetensors_is_refused(self, registry, tmp_path):
        folder = a_probe(tmp_path / "a")
        (folder / "probe.safetensors").write_bytes(b"\x80\x04\x95" + bytes(40))
        with pytest.raises(CheckpointError, match="safetensors"):
            registry.keep(folder, "probe")

    def test_pipes_are_refused_without_waiting(self, registry, tmp_path):
        folder = a_probe(tmp_path / "a")
        os.mkfifo(folder / "more.json")
        with pytest.raises(CheckpointError, match="cannot be read"):
            registry.keep(folder, "probe")

    def test_a_damaged_object_is_one_clear_error_and_keeping_it_again_mends_it(
        self, registry, tmp_path
    ):
        kept = registry.keep(a_probe(tmp_path / "a"), "probe")
        (registry.folder(kept) / "probe.json").write_text("{}")
        with pytest.raises(RoleError, match="is damaged"):
            registry.folder(kept)
        with pytest.raises(RoleError, match="is damaged"):
            registry.save(a_role(probe=kept))
        registry.keep(tmp_path / "a", "probe")
        assert json.loads((registry.folder(kept) / "probe.json").read_text()) == {"layer": 2}

    def test_a_role_whose_object_is_missing_is_not_saved(self, registry, tmp_path):
        kept = registry.keep(a_probe(tmp_path / "a"), "probe")
        shutil.rmtree(registry.folder(kept))
        with pytest.raises(RoleError, match="is not in the registry"):
            registry.save(a_role(probe=kept))

    def test_a_hash_that_is_a_path_leads_nowhere(self, registry, tmp_path):
        kept = registry.keep(a_probe(tmp_path / "a"), "probe")
        with pytest.raises(RoleError, match="no content hash"):
            registry.folder(replace(kept, content_hash="../../../etc"))


class TestGarbage:
    def test_what_another_version_uses_stays(self, registry, tmp_path):
        kept = registry.keep(a_probe(tmp_path / "a"), "probe")
        registry.save(a_role(probe=kept))
        registry.save(a_role("other", probe=kept))
        assert registry.remove("strict") == []
        assert registry.folder(kept).is_dir()
        assert registry.remove("other") == [kept.content_hash]
        assert not [f for f in files_of(registry) if not f.startswith(".registry")]

    def test_an_object_that_awaits_its_role_stays(self, registry, tmp_path):
        waiting = registry.keep(a_probe(tmp_path / "a"), "probe")
        registry.save(a_role())
        registry.remove("strict")
        assert registry.folder(waiting).is_dir()

    def test_an_object_that_was_forgotten_goes(self, registry, tmp_path):
        forgotten = registry.keep(a_probe(tmp_path / "a"), "probe")
        os.utime(registry.folder(forgotten), (0, 0))
        registry.save(a_role())
        assert registry.remove("strict") == [forgotten.content_hash]

    def test_nothing_goes_while_a_damaged_version_may_use_it(self, registry, tmp_path):
        kept = registry.keep(a_probe(tmp_path / "a"), "probe")
        registry.save(a_role(probe=kept))
        registry.save(a_role("other"))
        (registry.folder_path / "own/other/1.yaml").write_text("?")
        assert registry.remove("strict") == []
        assert registry.folder(kept).is_dir()

    def test_what_a_killed_process_left_goes(self, registry, tmp_path):
        registry.keep(a_probe(tmp_path / "a"), "probe")
        left = registry.folder_path / f"objects/.probe.{'0' * 16}.partial"
        left.mkdir()
        registry.save(a_role())
        registry.remove("strict")
        assert not left.exists()


def _save_many(folder: Path, start: int) -> None:
    registry = Registry(folder)
    for number in range(start, start + 10):
        registry.save(a_role(prompt={"en": str(number), "ru": str(number)}))


def _save_for_ever(folder: Path, probe: Path, ready) -> None:
    registry, number = Registry(folder), 0
    while True:
        number += 1
        kept = registry.keep(probe, "probe")
        registry.save(a_role(prompt={"en": str(number), "ru": "x"}, probe=kept))
        ready.set()


class TestOtherProcesses:
    def test_two_that_save_at_once_lose_nothing(self, registry):
        context = multiprocessing.get_context("fork")
        started = [
            context.Process(target=_save_many, args=(registry.folder_path, start))
            for start in (0, 100)
        ]
        for process in started:
            process.start()
        for process in started:
            process.join()
        assert [p.exitcode for p in started] == [0, 0]
        versions = registry.versions("strict")
        assert [v.number for v in versions] == list(range(1, 21))
        prompts = {registry.get("strict", v.number).prompt["en"] for v in versions}
        assert prompts == {str(n) for start in (0, 100) for n in range(start, start + 10)}

    def test_a_kill_leaves_every_version_whole(self, registry, tmp_path):
        context = multiprocessing.get_context("fork")
        probe = a_probe(tmp_path / "a")
        for _ in range(5):
            ready = context.Event()
            arguments = (registry.folder_path, probe, ready)
            process = context.Process(target=_save_for_ever, args=arguments)
            process.start()
            ready.wait()
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            for version in registry.versions("strict"):
                kept = registry.get("strict", version.number).probe
                assert registry.folder(kept).is_dir()


def test_a_role_that_could_not_be_read_back_is_not_saved(registry, tmp_path):
    registry.save(a_role())
    probe = registry.keep(a_probe(tmp_path / "p"), "probe", license="no\x1blicence")
    for spoilt in (a_role(probe=probe), a_role(invocation="\x00"), a_role(license="")):
        with pytest.raises(RoleError, match="role 'strict'"):
            registry.save(spoilt)
    assert registry.get("strict") == a_role()
