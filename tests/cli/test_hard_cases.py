"""Cases that once ended in a traceback, in silence or in a wrong verdict."""

import copy as copying
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests import tiny_models
from tests.cli.interrupting import interrupt
from tests.cli.test_errors import _every_use, refused
from tests.cli.test_full_disk import fill
from tests.cli.test_interruption import has_shards
from tests.demo.test_chain import Works


@pytest.mark.parametrize("as_json", [False, True])
def test_an_interrupted_build_says_so_and_how_to_go_on(large, tmp_path, as_json):
    source, recipe = large
    arguments = ["build", recipe, "--source", source, "--out", tmp_path / "out"]
    stopped = interrupt(
        [*arguments, *(["--json"] * as_json)], has_shards(tmp_path / "out.partial", 2)
    )
    said = stopped.out if as_json else stopped.err
    assert stopped.code == 130
    assert "interrupted" in said
    assert "--resume" in said
    if as_json:
        assert set(json.loads(said)["error"]) == {"type", "message", "hint"}


def test_a_stage_that_was_interrupted_half_way_is_run_again_even_with_its_old_settings(tmp_path):
    works = Works(tmp_path / "demo")
    works.run()

    class Half(Works):
        def _work(self, name):
            self.output(name).write_text("half of something else")
            raise KeyboardInterrupt

    half = Half(works.folder)
    half.settings["fourth"] = 1
    with pytest.raises(KeyboardInterrupt):
        half.run()
    assert works.run() == ["fourth"]
    assert works.output("fourth").read_text() == "0"


def test_verifying_leaves_the_plan_as_it_is(tmp_path):
    from veche.planning.planner import make_plan
    from veche.planning.recipe import Recipe
    from veche.surgery.build import build
    from veche.surgery.verification.verify import VerifySettings, verify

    source = tiny_models.tiny_mixtral(tmp_path / "m")
    yarn = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 512}
    fields = {"moe_intermediate_size": 32, "rope_scaling": {"value": yarn, "apply": False}}
    plan = make_plan(Recipe(name="t", base=str(source), fields=fields))
    build(plan, source, tmp_path / "g")
    before = copying.deepcopy(plan.as_dict())
    small = VerifySettings(num_windows=1, window_tokens=32, fp32_tokens=32)
    figures = verify(source, tmp_path / "g", plan, "the council hears " * 40, settings=small)
    assert plan.as_dict() == before
    assert figures.dials[0].value == yarn


@pytest.mark.parametrize("command", ["verify"])
@pytest.mark.parametrize("text", ["{", "", "[1]", "{}", "\x00"])
def test_a_config_that_is_none(veche, shelf, grown, copy, tmp_path, command, text):
    model = copy("moe")
    (model / "config.json").write_text(text)
    error = refused(veche, *_every_use(model, shelf, tmp_path)[command])
    assert error["type"] in ("ConfigError", "UnsupportedError")


def test_a_config_without_sizes_does_not_become_the_47_billion_parameters_of_the_default(
    shelf, copy
):
    """In a process that may not take more than 8 GB of addresses: it may take all there is."""
    model = copy("moe")
    (model / "config.json").write_text('{"model_type": "mixtral"}')
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30));"
        "from veche.cli.main import run; run()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "ask", model, "Why?", "--json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr[-300:]
    assert json.loads(done.stdout)["error"]["type"] in ("ConfigError", "CheckpointError")
    assert "hidden_size" in done.stdout


@pytest.mark.parametrize("arguments", [("plan", "a" * 300), ("launch", "a" * 300)])
def test_a_name_that_is_too_long_for_a_file(veche, arguments):
    refused(veche, *arguments)


def test_a_base_that_is_too_long_for_a_file(veche):
    refused(veche, "plan", "agi", "--base", "a" * 300)


def test_a_path_through_a_file(veche, tmp_path):
    (tmp_path / "file").write_text("mine")
    refused(veche, "plan", "agi", "--out", tmp_path / "file" / "plan.json", code=1)


@pytest.mark.parametrize("seed", [10**30])
def test_a_seed_beyond_64_bits(veche, shelf, tmp_path, seed):
    refused(veche, "ask", shelf / "moe", "Why?", "--seed", seed)
    refused(
        veche, "carve", shelf / "dense", "--out", tmp_path / "o", "--experts", 8, "--tokens", 256,
        "--text", shelf / "text.txt", "--seed", seed,
    )  # fmt: skip


def test_a_factor_with_an_enormous_exponent_is_refused_at_once():
    program = [sys.executable, "-c", "from veche.cli.main import run; run()"]
    done = subprocess.run(
        [*program, "plan", "agi", "--set", "num_experts_per_tok=x1e99999999"],
        capture_output=True, timeout=10, check=False,
    )  # fmt: skip
    assert done.returncode == 2


def test_a_question_from_stdin_that_is_not_text(shelf):
    program = [sys.executable, "-c", "from veche.cli.main import run; run()"]
    done = subprocess.run(
        [*program, "ask", shelf / "moe", "-", "--json"],
        input=b"a\xff", capture_output=True, check=False,
        env={"PYTHONIOENCODING": "utf-8:strict", "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr[-200:]


@pytest.mark.parametrize("arguments", [["plan", "agi", "--json"], ["plan", "agi"], ["doctor"]])
def test_a_full_device_behind_stdout(arguments):
    program = [sys.executable, "-c", "from veche.cli.main import run; run()"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*program, *arguments], stdout=full, stderr=-1, check=False)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr


def test_the_scripted_engine_answers(veche, tmp_path):
    script = tmp_path / "s.json"
    script.write_text(json.dumps({"proposer": "four", "logician": "four", "objector": "four"}))
    done = veche("ask", script, "2 + 2?", "--engine", "scripted", "--json")
    assert done.json["answer"] == "four"


def test_a_run_without_routing_is_told_and_not_a_traceback(veche, tmp_path):
    dense = tiny_models.tiny_llama(tmp_path / "m", max_position_embeddings=4096)
    run = tmp_path / "run"
    assert veche("ask", dense, "Why?", "--max-tokens", 8, "--out", run, "--json").code == 0
    for command in ("show", "report"):
        assert veche("experts", command, run).code in (0, 2)


def test_a_build_on_a_disk_that_is_full_to_the_last_byte_goes_on_later(veche, shelf, grown, disk):
    fill(disk, 0)
    arguments = ("build", shelf / "tiny.yaml", "--source", shelf / "moe", "--out", disk / "out")
    assert veche(*arguments, "--json").code == 1
    (disk / "filler").unlink()
    assert veche(*arguments, "--resume", "--json").code == 0


def test_a_council_says_so(veche, shelf, disk):
    fill(disk, 0)
    done = veche("ask", shelf / "moe", "Why?", "--max-tokens", 8, "--out", disk / "run", "--json")
    assert (done.code, done.error["type"]) == (1, "DiskError")
