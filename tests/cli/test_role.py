"""`veche role`, as its user meets it."""

import json
import shutil

import pytest
from tests.roles.adapters import an_adapter

SHIPPED = ["logician", "objector", "proposer", "q-intent", "recursia", "synthesiser"]


@pytest.fixture(scope="module")
def adapter(shelf):
    return an_adapter(shelf / "adapters" / "strict", shelf / "moe")


def fill(disk, *, but):
    """Leave so many bytes free."""
    (disk / "ballast").write_bytes(bytes(shutil.disk_usage(disk).free - but))


def refused(veche, *arguments):
    done = veche(*arguments, "--json")
    assert done.code == 2, done
    return done.error


class TestList:
    def test_every_role_with_what_it_has(self, veche):
        rows = veche("role", "list", "--json").json["roles"]
        assert [row["name"] for row in rows] == SHIPPED
        assert rows[0] == {
            "name": "logician", "kind": "drafter", "title": {"en": "Logician", "ru": "Логик"},
            "version": 0, "num_versions": 1, "artefacts": [], "license": "Apache-2.0",
        }  # fmt: skip
        assert "Логик" in veche("role", "list", "--lang", "ru").out

    def test_a_damaged_role_is_a_line_with_its_reason(self, veche, tmp_path):
        veche("role", "new", "strict", "--prompt", "P.")
        (tmp_path / "veche-home/roles/own/strict/1.yaml").write_text("?")
        rows = veche("role", "list", "--json").json["roles"]
        broken = next(row for row in rows if row["name"] == "strict")
        assert set(broken) == {"name", "error"}
        assert "is damaged" in broken["error"]
        done = veche("role", "list")
        assert done.code == 0
        assert "broken:" in done.out


class TestVersions:
    def test_new_use_show_remove(self, veche):
        made = veche("role", "new", "strict", "--prompt", "Be strict.", "--json").json
        assert (made["version"], made["role"]["prompt"]["ru"]) == (1, "Be strict.")
        again = ("role", "new", "strict", "--from", "strict", "--temperature", "0.3")
        assert veche(*again, "--note", "warmer", "--json").json["version"] == 2
        assert veche("role", "use", "strict", "1", "--json").json == {
            "name": "strict",
            "version": 1,
        }
        shown = veche("role", "show", "strict", "--json").json
        assert shown["role"]["sampling"] == {}
        assert [(v["number"], v["is_in_use"]) for v in shown["versions"]] == [(1, True), (2, False)]
        second = veche("role", "show", "strict", "--version", "2", "--json").json["role"]
        assert second["sampling"] == {"temperature": 0.3}
        assert second["parents"] == [shown["versions"][0]["content_hash"]]
        assert "warmer" in veche("role", "show", "strict").out
        gone = veche("role", "remove", "strict", "--version", "2", "--json").json
        assert gone == {"name": "strict", "version": 2, "freed": []}
        assert veche("role", "remove", "strict").code == 0
        assert "no role 'strict'" in refused(veche, "role", "show", "strict")["message"]

    def test_mistakes_have_a_hint(self, veche):
        error = refused(veche, "role", "show", "logicain")
        assert error["type"] == "RoleError"
        assert "'logician'" in error["hint"]
        assert "--from" in refused(veche, "role", "new", "logician", "--prompt", "x")["hint"]
        assert "it has: 0" in refused(veche, "role", "use", "logician", "3")["hint"]
        assert "of the package" in refused(veche, "role", "remove", "logician")["message"]
        error = refused(veche, "role", "new", "x", "--prompt", "p", "--kind", "clown")
        assert "drafter, objector" in error["hint"]


class TestExchange:
    def test_an_adapter_comes_in_speaks_and_goes_out(self, veche, shelf, adapter, tmp_path):
        done = veche("role", "import", adapter, "--base", shelf / "moe", "--json").json
        assert done["role"]["name"] == "strict"
        assert len(done["statements"]) == 1  # nobody said its licence
        shown = veche("role", "show", "strict", "--json").json
        assert shown["problems"] == []
        said = veche(
            "ask", shelf / "moe", "What is four?", "--role", "strict", "--max-tokens", 8,
            "--out", tmp_path / "run", "--json",
        )  # fmt: skip
        assert said.code == 0, said
        assert "strict" in [voice["name"] for voice in said.json["voices"]]
        started = json.loads((tmp_path / "run/transcript.jsonl").read_text().splitlines()[0])
        told = next(v for v in started["data"]["voices"] if v["name"] == "strict")
        assert told["adapter"] == shown["role"]["adapter"]["content_hash"]
        out = veche("role", "export", "strict", "--out", tmp_path / "out", "--json").json
        assert "adapter_model.safetensors" in out["files"]
        assert veche("role", "import", tmp_path / "out").code == 0

    def test_an_adapter_of_another_model_is_one_clear_error(self, veche, shelf, grown, adapter):
        veche("role", "import", adapter, "--base", shelf / "moe", "--json")
        error = refused(veche, "role", "import", adapter, "--base", grown)
        assert "is not of" in error["message"]
        error = refused(veche, "ask", grown, "What?", "--role", "strict")
        assert "was made with the model" in error["message"]
        assert "veche role import" in error["hint"]

    def test_of_which_model_an_unproven_adapter_is_nobody_can_tell(self, veche, shelf, adapter):
        assert "nobody says" in veche("role", "import", adapter).err
        done = veche("ask", shelf / "moe", "What?", "--role", "strict", "--max-tokens", 8)
        assert done.code == 0, done
        assert "nobody can tell" in done.err

    def test_an_engine_without_adapters_names_the_role(self, veche, adapter, tmp_path):
        veche("role", "import", adapter)
        (tmp_path / "script.json").write_text('{"proposer": "Four."}')
        error = refused(
            veche, "ask", tmp_path / "script.json", "?", "--engine", "scripted", "--role", "strict"
        )
        assert "role 'strict' needs its adapter" in error["message"]

    def test_a_role_whose_object_is_missing_is_one_clear_error(
        self, veche, shelf, adapter, tmp_path
    ):
        veche("role", "import", adapter)
        shutil.rmtree(tmp_path / "veche-home/roles/objects")
        error = refused(veche, "ask", shelf / "moe", "?", "--role", "strict")
        assert "is not in the registry" in error["message"]
        assert "veche role import" in error["hint"]
        shown = veche("role", "show", "strict", "--json").json
        assert "is not in the registry" in shown["problems"][0]

    def test_a_full_disk_leaves_the_registry_as_it_was(
        self, veche, adapter, disk, monkeypatch, tmp_path
    ):
        monkeypatch.setenv("VECHE_HOME", str(disk / "home"))
        assert veche("role", "new", "calm", "--prompt", "Be calm.").code == 0
        fill(disk, but=8192)
        done = veche("role", "import", adapter, "--json")
        assert done.code == 1
        assert done.error["type"] == "DiskError"
        assert "the disk is full" in done.error["message"]
        assert veche("role", "show", "calm", "--json").code == 0
        assert not list((disk / "home/roles/objects").rglob("*"))
        (disk / "ballast").unlink()
        assert veche("role", "import", adapter).code == 0
        fill(disk, but=8192)
        done = veche("role", "export", "strict", "--out", disk / "out", "--json")
        assert done.error["type"] == "DiskError"
        assert not (disk / "out").exists()
