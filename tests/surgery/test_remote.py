"""Builds from and into remote folders: an S3-compatible server on this machine, and memory://."""

import json
import os
import subprocess
import sys
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from tiny_models import tiny_mixtral

from veche.core.errors import (
    CheckpointError,
    InputError,
    MissingExtraError,
    OutputError,
    RecipeError,
    TransferError,
)
from veche.core.paths import home
from veche.core.progress import Silent
from veche.planning.planner import make_plan
from veche.planning.recipe import Recipe
from veche.surgery.build import build
from veche.surgery.names import PLAN_NAME
from veche.surgery.remote.build import build_at
from veche.surgery.remote.folder import RemoteFolder

moto_server = pytest.importorskip("moto.server")

FIELDS = {"moe_intermediate_size": 32, "num_attention_heads": 6, "num_key_value_heads": 6}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model in several shards, with a file that must come along and one that must not."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    whole = tiny_mixtral(tmp_path_factory.mktemp("whole") / "m")
    folder = tmp_path_factory.mktemp("sharded") / "m"
    AutoModelForCausalLM.from_pretrained(whole).save_pretrained(folder, max_shard_size="60KB")
    AutoTokenizer.from_pretrained(whole).save_pretrained(folder)
    (folder / "LICENSE").write_text("free")
    (folder / "consolidated.safetensors").write_bytes(b"another spelling, in nobody's index")
    return folder


@pytest.fixture(scope="module")
def plan(model):
    return make_plan(Recipe(name="t", base=str(model), fields=FIELDS, mode="split"))


@pytest.fixture(scope="module")
def expected(model, plan, tmp_path_factory):
    """What a build between folders of this machine makes."""
    target = tmp_path_factory.mktemp("local") / "out"
    build(plan, model, target)
    return {file.name: file.read_bytes() for file in target.iterdir()}


@pytest.fixture(scope="module")
def server():
    server = moto_server.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(server, model, monkeypatch):
    """The server's file system, with the model in s3://models/m, and two empty buckets."""
    environment = {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": server,
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    system = fsspec.filesystem("s3", skip_instance_cache=True)
    for bucket in ("models", "grown"):
        if system.exists(bucket):
            system.rm(bucket, recursive=True)
        system.mkdir(bucket)
    system.put(f"{model}/", "models/m/", recursive=True)
    system.pipe("models/m/subfolder/notes.txt", b"left out")
    return system


@pytest.fixture
def memory(model):
    system = fsspec.filesystem("memory")
    system.put(f"{model}/", "/models/m/", recursive=True)
    system.mkdir("/grown")
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def contents(system, folder):
    system.invalidate_cache()
    return {path.rpartition("/")[2]: system.cat_file(path) for path in system.ls(folder, False)}


def staged_files():
    return [path for path in (home() / "staging").rglob("*") if path.is_file()]


class StopDuring(Silent):
    """Progress whose watcher interrupts one kind of work after some bytes."""

    def __init__(self, label, num_bytes):
        self.label, self.left, self.totals = label, num_bytes, {}

    def task(self, label, total=None):
        from contextlib import nullcontext

        self.totals[label] = total

        def advance(amount):
            if label == self.label:
                self.left -= amount
                if self.left < 0:
                    raise KeyboardInterrupt

        return nullcontext(advance)


class FlakyFileSystem(MemoryFileSystem):
    """memory:// whose every answer fails for the first time."""

    protocol = "flaky"
    failed: ClassVar[set[str]] = set()

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("flaky://"))

    def _fail_once(self, what):
        if what not in self.failed:
            self.failed.add(what)
            raise ConnectionResetError(f"no answer to {what}")

    def ls(self, path, detail=True, **options):
        self._fail_once(f"ls {path}")
        return super().ls(path, detail, **options)

    def put_file(self, lpath, rpath, **options):
        self._fail_once(f"put {rpath}")
        return super().put_file(lpath, rpath, **options)


@pytest.fixture
def without_pauses(monkeypatch):
    monkeypatch.setattr("veche.surgery.remote.folder._FIRST_PAUSE_S", 0.0)


def test_s3_to_s3_is_byte_for_byte_a_local_build(s3, plan, expected):
    report = build_at(lambda _: plan, "s3://models/m", "s3://grown/out/")
    assert contents(s3, "grown/out") == expected
    assert report.target == "s3://grown/out"
    assert not (home() / "staging").exists()


def test_each_side_may_be_remote_alone(s3, model, plan, expected, tmp_path):
    build_at(lambda _: plan, "s3://models/m", f"file://{tmp_path}/out")
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == expected
    build_at(lambda _: plan, str(model), "s3://grown/out", keep_staged=True)
    assert contents(s3, "grown/out") == expected
    assert {path.parent.name for path in staged_files()} >= {"grown"}


def test_every_interruption_of_an_upload_resumes_to_the_same_bytes(s3, plan, expected):
    total = sum(map(len, expected.values()))
    for part in range(5):
        stop, target = StopDuring("upload", total * part // 5), f"s3://grown/out{part}"
        with pytest.raises(KeyboardInterrupt):
            build_at(lambda _: plan, "s3://models/m", target, progress=stop)
        left = contents(s3, target) if s3.exists(target) else {}
        assert "config.json" not in left, "half a folder is no model"
        assert len(left) < len(expected)
        with pytest.raises(OutputError, match="interrupted or kept build"):
            build_at(lambda _: plan, "s3://models/m", target)
        resumed = StopDuring("", 0)
        build_at(lambda _: plan, "s3://models/m", target, resume=True, progress=resumed)
        assert contents(s3, target) == expected
        assert resumed.totals["fetch"] == 0, "the source is here already"
        sizes = [len(data) for data in left.values()]
        once_more = max(sizes, default=0)  # the file that was on its way
        assert resumed.totals["upload"] <= total - sum(sizes) + once_more
        assert staged_files() == []


def test_an_upload_that_stops_in_mid_file_leaves_no_parts_behind(s3, tmp_path):
    with (tmp_path / "large.safetensors").open("wb") as file:
        file.truncate(192 << 20)

    def stop(amount):
        if amount:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RemoteFolder("s3://grown/out").store(tmp_path / "large.safetensors", stop)
    assert not s3.call_s3("list_multipart_uploads", Bucket="grown").get("Uploads")
    assert contents(s3, "grown") == {}


def test_an_interrupted_fetch_goes_on_behind_the_last_whole_file(s3, plan, expected):
    first = StopDuring("fetch", 300_000)
    with pytest.raises(KeyboardInterrupt):
        build_at(lambda _: plan, "s3://models/m", "s3://grown/out", progress=first)
    here = [path for path in staged_files() if path.parent.name == "source"]
    assert any(path.suffix == ".safetensors" for path in here)
    assert not [path for path in here if path.name.endswith(".partial")]
    second = StopDuring("", 0)
    build_at(lambda _: plan, "s3://models/m", "s3://grown/out", progress=second)
    assert 0 < second.totals["fetch"] < first.totals["fetch"]
    assert contents(s3, "grown/out") == expected


def test_a_taken_target_is_refused_before_anything_is_fetched(s3, plan):
    s3.pipe("grown/out/diary.txt", b"mine")
    for resume in (False, True):
        with pytest.raises(OutputError, match=r"not empty .*diary\.txt"):
            build_at(lambda _: plan, "s3://models/m", "s3://grown/out", resume=resume)
    assert contents(s3, "grown/out") == {"diary.txt": b"mine"}
    assert staged_files() == []


def test_a_stranger_who_comes_during_the_upload_is_not_overwritten(s3, plan, expected):
    total = sum(map(len, expected.values()))
    stop = StopDuring("upload", total // 2)
    with pytest.raises(KeyboardInterrupt):
        build_at(lambda _: plan, "s3://models/m", "s3://grown/out", progress=stop)
    s3.pipe("grown/out/config.json", b"mine")
    with pytest.raises(OutputError, match=r"config\.json"):
        build_at(lambda _: plan, "s3://models/m", "s3://grown/out", resume=True)
    assert s3.cat_file("grown/out/config.json") == b"mine"


def test_a_source_that_changed_is_not_mixed_with_what_was_built(s3, plan, model):
    stop = StopDuring("upload", 1000)
    with pytest.raises(KeyboardInterrupt):
        build_at(lambda _: plan, "s3://models/m", "s3://grown/out", progress=stop)
    s3.pipe("models/m/LICENSE", b"paid")
    with pytest.raises(CheckpointError, match="is not what it was"):
        build_at(lambda _: plan, "s3://models/m", "s3://grown/out", resume=True)


def test_what_is_not_there_is_said_in_one_sentence(s3, model, plan):
    for source in ("s3://models/nothing", "s3://no-such-bucket/m"):
        with pytest.raises(CheckpointError, match=r"holds no config\.json"):
            build_at(lambda _: plan, source, "s3://grown/out")
    with pytest.raises(InputError, match="no-such-bucket/out cannot be made"):
        build_at(lambda _: plan, str(model), "s3://no-such-bucket/out")
    assert not s3.exists("no-such-bucket"), "veche makes no bucket"


def test_a_server_that_is_gone_is_a_transfer_error(s3, model, plan, monkeypatch, without_pauses):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    type(s3).clear_instance_cache()  # fsspec keeps connections, and this one is to nowhere
    with pytest.raises(TransferError, match="could not be listed") as caught:
        build_at(lambda _: plan, str(model), "s3://grown/elsewhere")
    assert "--resume" in caught.value.hint
    type(s3).clear_instance_cache()


def test_a_plan_for_another_model_is_refused_before_shards_are_fetched(s3):
    other = make_plan(Recipe(name="t", base="mixtral-8x7b", fields={}))
    with pytest.raises(RecipeError, match="hidden_size"):
        build_at(lambda _: other, "s3://models/m", "s3://grown/out")
    assert not [path for path in staged_files() if path.suffix == ".safetensors"]


def test_the_command_takes_urls_and_a_recipe(s3, expected, tmp_path):
    (tmp_path / "r.yaml").write_text(
        "name: t\nbase: x\nmode: split\nfields:\n"
        + "".join(f"  {name}: {value}\n" for name, value in FIELDS.items())
    )
    done = subprocess.run(
        [
            sys.executable, "-c", "from veche.cli.main import run; run()",
            "build", tmp_path / "r.yaml", "--source", "s3://models/m", "--out", "s3://grown/out",
            "--staging", tmp_path / "stage", "--json",
        ],
        capture_output=True, text=True, check=False, env=os.environ,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["target"] == "s3://grown/out"
    made = contents(s3, "grown/out")
    weights = {name: data for name, data in made.items() if name.endswith(".safetensors")}
    assert weights == {name: expected[name] for name in weights}
    assert made.keys() == expected.keys()
    assert json.loads(made[PLAN_NAME])["base"] == "s3://models/m", "not the staging folder"
    assert not (tmp_path / "stage").exists()


def test_any_file_system_of_fsspec_will_do(memory, plan, expected):
    build_at(lambda _: plan, "memory://models/m", "memory://grown/out")
    assert contents(memory, "/grown/out") == expected


def test_what_fails_once_is_tried_again(memory, plan, expected, without_pauses):
    fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
    FlakyFileSystem.failed.clear()
    build_at(lambda _: plan, "flaky://models/m", "flaky://grown/out")
    assert contents(memory, "/grown/out") == expected
    assert len(FlakyFileSystem.failed) > len(expected)


@pytest.mark.parametrize("name", ["..", "a\\..\\b", "a\nb", "x" * 300])
def test_a_hostile_listing_is_refused(name, memory, plan):
    memory.store[f"/models/m/{name}"] = memory.store["/models/m/LICENSE"]
    with pytest.raises(CheckpointError, match="cannot be a file of a model"):
        build_at(lambda _: plan, "memory://models/m", "memory://grown/out")
    assert staged_files() == []


def test_an_index_that_leads_out_fetches_nothing_from_there(memory, plan):
    memory.pipe_file("/models/secret.safetensors", b"secret")
    path = "/models/m/model.safetensors.index.json"
    index = json.loads(memory.cat_file(path))
    index["weight_map"]["x"] = "../secret.safetensors"
    memory.pipe_file(path, json.dumps(index).encode())
    with pytest.raises(CheckpointError, match="names the file"):
        build_at(lambda _: plan, "memory://models/m", "memory://grown/out")
    assert not [path for path in staged_files() if path.name == "secret.safetensors"]


def test_unknown_and_uninstalled_file_systems_are_named(plan, monkeypatch):
    with pytest.raises(InputError, match="nonsense://x"):
        RemoteFolder("nonsense://x")
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(
        fsspec.registry.target if hasattr(fsspec.registry, "target") else {}, "s3", raising=False
    )
    loaded = sys.modules["fsspec.registry"]._registry
    monkeypatch.delitem(loaded, "s3", raising=False)
    with pytest.raises(MissingExtraError, match="s3fs") as caught:
        RemoteFolder("s3://b/m")
    assert caught.value.hint == "pip install 'veche[remote]'"


def test_two_builds_of_one_pair_are_refused(memory, plan):
    refused = []

    class Second(Silent):
        def task(self, label, total=None):
            if label == "build":
                with pytest.raises(OutputError, match="another build is at work") as caught:
                    build_at(lambda _: plan, "memory://models/m", "memory://grown/out")
                refused.append(caught.value)
            return super().task(label, total)

    build_at(lambda _: plan, "memory://models/m", "memory://grown/out", progress=Second())
    assert len(refused) == 1
