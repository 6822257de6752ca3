"""A build that is interrupted, resumed, aimed at a taken place, or given another model."""

import json
import shutil
import subprocess
import sys
import threading

import pytest
from tiny_models import tiny_mixtral

from veche.checkpoint.reader import INDEX_NAME
from veche.core.errors import CheckpointError, OutputError, RecipeError
from veche.core.files import write_json
from veche.core.progress import Silent
from veche.planning.planner import make_plan
from veche.planning.recipe import Recipe
from veche.surgery.build import build
from veche.surgery.names import CARD_NAME, GROWTH_NAME, HASHES_NAME, PLAN_NAME

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


def test_a_strangers_folder_of_that_name_is_left_alone(source, plan, tmp_path):
    stranger = tmp_path / "out.partial"
    stranger.mkdir()
    (stranger / "diary.txt").write_text("mine")
    for resume in (False, True):
        with pytest.raises(OutputError, match="in the way"):
            build(plan, source, tmp_path / "out", resume=resume, discard_stale=True)
    assert contents(stranger)["diary.txt"] == b"mine"


def test_resuming_what_is_done_does_nothing(source, plan, tmp_path):
    build(plan, source, tmp_path / "out")
    before = contents(tmp_path / "out")
    report = build(plan, source, tmp_path / "out", resume=True)
    assert report.num_resumed_shards == len(report.shards)
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("num_workers", [1, 3, 8])
def test_the_bytes_do_not_depend_on_the_workers(source, plan, tmp_path, num_workers):
    build(plan, source, tmp_path / "one", num_workers=2)
    build(plan, source, tmp_path / "other", num_workers=num_workers)
    assert contents(tmp_path / "one") == contents(tmp_path / "other")


def test_hashes_are_those_of_the_files(source, plan, tmp_path):
    import hashlib

    build(plan, source, tmp_path / "out")
    stored = json.loads((tmp_path / "out" / HASHES_NAME).read_text())
    made = contents(tmp_path / "out")
    assert stored["files"].keys() == made.keys() - {HASHES_NAME, CARD_NAME}
    for name, digest in stored["files"].items():
        assert digest == hashlib.sha256(made[name]).hexdigest()
    for name, digest in stored["source"].items():
        assert digest == hashlib.sha256((source / name).read_bytes()).hexdigest()
    assert {"config.json", *(f.name for f in source.glob("*.safetensors"))} == set(stored["source"])


def test_the_card_keeps_the_licence_and_says_what_changed(source, plan, tmp_path):
    from huggingface_hub import ModelCard

    folder = tmp_path / "licensed"
    shutil.copytree(source, folder)
    (folder / "README.md").write_text(
        "---\nlicense: apache-2.0\nlanguage: [en, ru]\nbase_model: org/model\n---\nThe source.\n"
    )
    build(plan, folder, tmp_path / "out")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.license == "apache-2.0"
    assert card.data.language == ["en", "ru"]
    assert card.data.base_model == "org/model"
    assert "moe" in card.data.tags
    for said in ("moe_intermediate_size", "attention_heads", "zero columns", "expert_width"):
        assert said in card.text
    assert "The source." in (tmp_path / "out" / "README.source.md").read_text()


def test_the_card_names_a_base_from_the_hub_s_cache_and_no_path(source, tmp_path):
    from huggingface_hub import ModelCard

    folder = tmp_path / "hub" / "models--Org--Some-Model" / "snapshots" / "0f1e"
    shutil.copytree(source, folder)
    (folder / "README.md").write_text("---\nbase_model: Org/Ancestor\n---\nThe source.\n")
    recipe = Recipe(name="wide", base=str(folder), fields=FIELDS)
    build(make_plan(recipe), folder, tmp_path / "out")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.base_model == "Org/Some-Model"
    assert "# Plan wide on Org/Some-Model" in card.text
    assert str(tmp_path) not in card.content


def test_the_card_calls_a_local_base_by_its_folder_s_name(source, plan, tmp_path):
    build(plan, source, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"# Plan {plan.recipe} on {source.name}\n" in card
    assert "base_model" not in card
    assert str(source.parent) not in card


def weights(folder):
    import safetensors.numpy

    files = map(safetensors.numpy.load_file, folder.glob("*.safetensors"))
    return {name: value for tensors in files for name, value in tensors.items()}


def test_what_is_new_is_recorded_for_training(source, plan, tmp_path):
    out = tmp_path / "out"
    build(plan, source, out)
    record = json.loads((tmp_path / "out" / GROWTH_NAME).read_text())
    heads, width = record["operations"]
    assert (heads["operation"], width["operation"]) == ("attention_heads", "expert_width")
    assert width["moe_intermediate_size"] == {"old": 24, "new": 32}
    assert len(heads["query_heads"]["new"]) == 2
    layers = [weights(folder)["model.layers.1.self_attn.q_proj.weight"] for folder in (source, out)]
    old, new = (layer.reshape(-1, 8, 32) for layer in layers)
    for slot, twin in zip(heads["query_heads"]["new"], heads["twins"][1], strict=True):
        assert (new[slot] == old[twin]).all()
    assert record["mode"] == "split"


def test_memory_does_not_grow_with_the_largest_tensor(tmp_path):
    """An embedding of 384 MB is copied within 200 MB."""
    folder = tiny_mixtral(tmp_path / "m", vocab_size=3_000_000, tie_word_embeddings=True)
    fields = {"moe_intermediate_size": 32}
    plan = make_plan(Recipe(name="t", base=str(folder), fields=fields))
    write_json(tmp_path / "plan.json", plan.as_dict())
    program = (
        "import sys\nfrom pathlib import Path\n"
        "from veche.planning.plan import read_plan\nfrom veche.surgery.build import build\n"
        "build(read_plan(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3]))\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print(status.split('VmHWM:')[1].split()[0])\n"
    )
    command = [sys.executable, "-c", program, tmp_path / "plan.json", folder, tmp_path / "out"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    assert (tmp_path / "out" / "model.safetensors").stat().st_size > 380e6
    assert int(done.stdout) * 1024 < 200e6


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
