"""Shards made by Ray tasks, on a real cluster of two worker processes on this machine."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tiny_models import tiny_mixtral

from veche.checkpoint.reader import open_checkpoint
from veche.core.errors import CheckpointError, ClusterError, DiskError, InputError
from veche.core.files import write_json
from veche.planning.planner import make_plan
from veche.planning.recipe import Recipe
from veche.surgery.build import build
from veche.surgery.executor import EXECUTORS, executor_named
from veche.surgery.ray_executor import RayExecutor
from veche.surgery.shard_order import ShardOrder, carry_out
from veche.surgery.workshop import JOURNAL_NAME

ray = pytest.importorskip("ray")

FIELDS = {"moe_intermediate_size": 1152, "num_attention_heads": 6, "num_key_value_heads": 6}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A model of 100 MB in four shards: long enough in the making to be killed in the middle."""
    from transformers import AutoModelForCausalLM

    sizes = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 2}
    whole = tiny_mixtral(tmp_path_factory.mktemp("whole") / "m", **sizes)
    folder = tmp_path_factory.mktemp("sharded") / "m"
    AutoModelForCausalLM.from_pretrained(whole).save_pretrained(folder, max_shard_size="30MB")
    assert len(open_checkpoint(folder).shards) > 2
    return folder


@pytest.fixture(scope="module")
def plan(source):
    return make_plan(Recipe(name="t", base=str(source), fields=FIELDS, mode="split"))


@pytest.fixture(scope="module")
def expected(source, plan, tmp_path_factory):
    """What this process's own threads make."""
    target = tmp_path_factory.mktemp("local") / "out"
    build(plan, source, target)
    return contents(target)


@pytest.fixture(scope="module")
def cluster():
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    context = ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=80 << 20,
    )
    yield context.address_info["gcs_address"]
    ray.shutdown()


def contents(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def workers_at(folder):
    """Return the processes that have a partial file in `folder` open, except this one."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            paths = [str(link.readlink()) for link in (process / "fd").iterdir()]
        except OSError:
            continue  # it ended, or is not ours
        mine = [path for path in paths if path.startswith(f"{folder}/") and "partial" in path[-8:]]
        if mine and int(process.name) != os.getpid():
            found[int(process.name)] = mine[0]
    return found


class Killer(threading.Thread):
    """Kills workers in the middle of their shards."""

    def __init__(self, folder, num_kills):
        super().__init__()
        self.folder, self.num_kills, self.killed = folder, num_kills, {}
        self.is_over = threading.Event()

    def run(self):
        while not self.is_over.wait(0.002) and len(self.killed) < self.num_kills:
            if not any(self.folder.glob(".*.safetensors.*.partial")):
                continue
            for pid, path in workers_at(self.folder).items():
                if pid not in self.killed and len(self.killed) < self.num_kills:
                    os.kill(pid, signal.SIGKILL)
                    self.killed[pid] = path


class StopAtOnce:
    """Progress whose watcher interrupts as soon as something is done."""

    def say(self, text):
        raise AssertionError(text)

    def task(self, label, total=None):
        from contextlib import nullcontext

        return nullcontext(self._advance)

    def _advance(self, amount):
        raise KeyboardInterrupt


def test_ray_leaves_the_bytes_that_threads_leave(source, plan, expected, cluster, tmp_path):
    report = build(plan, source, tmp_path / "out", executor=RayExecutor(), num_workers=2)
    assert contents(tmp_path / "out") == expected
    assert report.num_resumed_shards == 0
    assert ray.is_initialized(), "a connection that was there before stays"


def test_workers_that_are_killed_in_mid_task_lose_nothing(
    source, plan, expected, cluster, tmp_path
):
    killer = Killer(tmp_path / "out.partial", num_kills=3)
    killer.start()
    try:
        build(plan, source, tmp_path / "out", executor=RayExecutor(), num_workers=2)
    finally:
        killer.is_over.set()
        killer.join()
    assert len(killer.killed) == 3, "three workers had half a shard, and were killed"
    assert contents(tmp_path / "out") == expected


def test_an_interrupted_build_stops_its_tasks_and_resumes_anywhere(
    source, plan, expected, cluster, tmp_path
):
    target, half = tmp_path / "out", tmp_path / "out.partial"
    with pytest.raises(KeyboardInterrupt):
        build(plan, source, target, executor=RayExecutor(), progress=StopAtOnce(), num_workers=2)
    assert not target.exists()
    assert workers_at(half) == {}
    assert not list(half.glob(".*.partial"))
    report = build(plan, source, target, resume=True)
    assert 0 < report.num_resumed_shards < len(report.shards)
    assert contents(target) == expected


def test_an_error_in_a_task_is_word_for_word_that_of_a_build_here(source, cluster, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(source, damaged)
    info = open_checkpoint(damaged).tensors["model.layers.1.self_attn.q_proj.weight"]
    with info.file.open("r+b") as file:
        file.seek(info.start)
        file.write(np.full(info.num_elements, np.nan, np.float32).tobytes())
    plan = make_plan(Recipe(name="t", base=str(damaged), fields=FIELDS, mode="zero"))
    errors = []
    for name in EXECUTORS:
        with pytest.raises(CheckpointError, match=r"q_proj.*NaN") as caught:
            build(plan, damaged, tmp_path / name, executor=executor_named(name), num_workers=2)
        assert type(caught.value) is CheckpointError
        errors.append((caught.value.message, caught.value.hint))
        assert not (tmp_path / name).exists()
        assert workers_at(tmp_path / f"{name}.partial") == {}
        assert not list((tmp_path / f"{name}.partial").glob(".*.partial"))
    assert errors[0] == errors[1]


def test_a_disk_that_refuses_a_worker_is_a_disk_error(source, plan, cluster, tmp_path):
    class Obstructed(RayExecutor):
        def write(self, work, **rest):
            work.jobs[0].path.mkdir()
            return RayExecutor.write(self, work, **rest)

    with pytest.raises(DiskError, match=r"safetensors could not be written: Is a directory"):
        build(plan, source, tmp_path / "out", executor=Obstructed(), num_workers=2)


@pytest.fixture
def order(source, tmp_path):
    """An order for the first shard, in a workshop that this order's worker sees."""
    shard = open_checkpoint(source).shards[0]
    write_json(tmp_path / JOURNAL_NAME, {"key": "k"})
    return ShardOrder(
        source=source,
        folder=tmp_path,
        key="k",
        shard=shard.name,
        source_bytes=shard.stat().st_size,
    )


def test_a_worker_refuses_what_is_not_shared_and_another_version(order, plan, expected):
    made = carry_out(plan.as_dict(), order)
    assert (order.folder / order.shard).read_bytes() == expected[order.shard]
    assert carry_out(plan.as_dict(), order) == made
    for other in (
        replace(order, source=order.folder),
        replace(order, source_bytes=1),
        replace(order, folder=order.folder / "elsewhere"),
        replace(order, key="another build's"),
    ):
        with pytest.raises(ClusterError, match="does not see"):
            carry_out(plan.as_dict(), other)
    with pytest.raises(ClusterError, match=r"9\.9\.9"):
        carry_out(plan.as_dict(), replace(order, version="9.9.9"))


def test_the_command_finds_a_running_cluster(source, plan, expected, cluster, tmp_path):
    write_json(tmp_path / "plan.json", plan.as_dict())
    done = subprocess.run(
        [
            sys.executable, "-c", "from veche.cli.main import run; run()",
            "build", tmp_path / "plan.json",
            "--source", source, "--out", tmp_path / "out", "--json",
            "--executor", "ray", "--ray-address", cluster,
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["shards"]
    assert contents(tmp_path / "out") == expected


def test_executors_are_named():
    with pytest.raises(InputError, match="no executor 'slurm'") as caught:
        executor_named("slurm")
    assert "local, ray" in caught.value.hint
    with pytest.raises(InputError, match=r"127\.0\.0\.1 does not answer at port 1") as caught:
        executor_named("ray", ray_address="127.0.0.1:1")
    assert "ray status" in caught.value.hint
    with pytest.raises(InputError, match="not --executor ray"):
        executor_named("local", ray_address="auto")
