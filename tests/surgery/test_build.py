"""A build that is interrupted, resumed, aimed at a taken place, or given another model."""

import json
import shutil
import threading

import pytest
from tiny_models import tiny_mixtral

from veche.checkpoint.reader import INDEX_NAME
from veche.core.errors import CheckpointError, OutputError, RecipeError
from veche.core.progress import Silent
from veche.planning.planner import make_plan
from veche.planning.recipe import Recipe
from veche.surgery.build import build
from veche.surgery.names import PLAN_NAME

FIELDS = {"moe_intermediate_size": 32, "num_attention_heads": 6, "num_key_value_heads": 6}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A model in several shards, with a file that must come along."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    whole = tiny_mixtral(tmp_path_factory.mktemp("whole") / "m")
    folder = tmp_path_factory.mktemp("sharded") / "m"
    AutoModelForCausalLM.from_pretrained(whole).save_pretrained(folder, max_shard_size="60KB")
    AutoTokenizer.from_pretrained(whole).save_pretrained(folder)
    (folder / "LICENSE").write_text("free")
    assert (folder / INDEX_NAME).is_file()
    return folder


@pytest.fixture
def plan(source):
    return make_plan(Recipe(name="t", base=str(source), fields=FIELDS, mode="split"))


def contents(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


class StopAfter(Silent):
    """Progress whose watcher interrupts the work after some bytes."""

    def __init__(self, num_bytes):
        self.left = num_bytes

    def task(self, label, total=None):
        from contextlib import nullcontext

        return nullcontext(self._advance)

    def _advance(self, amount):
        self.left -= amount
        if self.left < 0:
            raise KeyboardInterrupt


def test_a_build_keeps_shards_companions_and_unknown_keys(source, plan, tmp_path):
    report = build(plan, source, tmp_path / "out")
    made = tmp_path / "out"
    assert (made / "LICENSE").read_text() == "free"
    assert (made / "tokenizer.json").is_file()
    assert {f.name for f in made.glob("*.safetensors")} == {
        f.name for f in source.glob("*.safetensors")
    }
    index = json.loads((made / INDEX_NAME).read_text())
    assert index["metadata"]["total_size"] == report.num_bytes
    assert index["weight_map"] == json.loads((source / INDEX_NAME).read_text())["weight_map"]
    assert not [name for name in contents(made) if name.startswith(".")]


def test_every_interruption_resumes_to_the_same_bytes(source, plan, tmp_path):
    total = build(plan, source, tmp_path / "whole").num_bytes
    expected = contents(tmp_path / "whole")
    resumed = set()
    for part in range(1, 10):
        target = tmp_path / f"out{part}"
        with pytest.raises(KeyboardInterrupt):
            build(plan, source, target, progress=StopAfter(total * part // 10))
        assert not target.exists()
        assert not (tmp_path / f"out{part}.partial" / "config.json").exists()
        resumed.add(build(plan, source, target, resume=True).num_resumed_shards)
        assert contents(target) == expected
    assert len(resumed) > 1


def test_an_interrupted_build_is_not_continued_unasked_nor_with_another_plan(
    source, plan, tmp_path
):
    with pytest.raises(KeyboardInterrupt):
        build(plan, source, tmp_path / "out", progress=StopAfter(1))
    with pytest.raises(OutputError, match="interrupted build"):
        build(plan, source, tmp_path / "out")
    other = make_plan(Recipe(name="t", base=str(source), fields=FIELDS, mode="zero"))
    with pytest.raises(OutputError, match="another plan"):
        build(other, source, tmp_path / "out", resume=True)


def test_two_builds_into_one_folder_are_refused(source, plan, tmp_path):
    started, go_on = threading.Event(), threading.Event()

    class Waiting(StopAfter):
        def _advance(self, amount):
            started.set()
            go_on.wait(30)

    first = threading.Thread(
        target=build, args=(plan, source, tmp_path / "out"), kwargs={"progress": Waiting(0)}
    )
    first.start()
    try:
        assert started.wait(30)
        with pytest.raises(OutputError, match="another build is at work"):
            build(plan, source, tmp_path / "out", resume=True)
    finally:
        go_on.set()
        first.join()
    assert (tmp_path / "out" / "config.json").is_file()


def test_a_taken_target_is_left_alone(source, plan, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "diary.txt").write_text("mine")
    with pytest.raises(OutputError, match="not empty"):
        build(plan, source, tmp_path / "out")
    assert contents(tmp_path / "out") == {"diary.txt": b"mine"}


def test_the_source_is_only_read(source, plan, tmp_path):
    before = contents(source)
    build(plan, source, tmp_path / "out")
    assert contents(source) == before


def test_a_plan_for_another_model_is_refused_by_field(source, tmp_path):
    plan = make_plan(Recipe(name="t", base="mixtral-8x7b", fields={}))
    with pytest.raises(RecipeError, match="hidden_size"):
        build(plan, source, tmp_path / "out")


def test_a_tensor_that_config_json_does_not_imply_is_named(source, tmp_path):
    folder = tmp_path / "bad"
    shutil.copytree(source, folder)
    config = json.loads((folder / "config.json").read_text())
    config["vocab_size"] = 999
    (folder / "config.json").write_text(json.dumps(config))
    plan = make_plan(Recipe(name="t", base=str(folder), fields=FIELDS))
    with pytest.raises(CheckpointError, match=r"'(lm_head|model\.embed_tokens)\.weight' has shape"):
        build(plan, folder, tmp_path / "out")


def test_the_plan_stays_with_the_model(source, plan, tmp_path):
    from veche.planning.plan import read_plan

    build(plan, source, tmp_path / "out")
    assert read_plan(tmp_path / "out" / PLAN_NAME) == plan
