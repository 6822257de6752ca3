"""Every command line that veche emits goes through the engines' own parsers.

Opt-in: VECHE_CONTRACT names the folder that `make contract` makes.
"""

import json

import pytest
from tests.launch.emitted import argument_lists, value
from tests.launch.engine_parsers import ask, entry_of, installed, stored
from tests.launch.models import STOCK, WANTED

from veche.launch.profiles import profiles_for
from veche.planning.bases import load_base
from veche.planning.planner import make_plan
from veche.planning.recipe import load_recipe

INSTALLED = installed()
pytestmark = pytest.mark.skipif(not INSTALLED, reason="VECHE_CONTRACT names no engines")
LENGTH_FLAG = {"vllm": "--max-model-len", "sglang": "--context-length"}
VLLM = [version for engine, version in INSTALLED if engine == "vllm"]


@pytest.mark.parametrize(("engine", "version"), INSTALLED)
def test_the_engine_parses_every_command(engine, version):
    commands = argument_lists(engine, version)
    _, answers = ask(engine, version, [{"words": words} for words in commands])
    refused = {a["refused"]: w for a, w in zip(answers, commands, strict=True) if "refused" in a}
    assert not refused
    for answer, words in zip(answers, commands, strict=True):
        assert answer["model"] == "MODEL"
        assert str(answer["length"]) == value(words, LENGTH_FLAG[engine])


@pytest.mark.parametrize(("engine", "version"), INSTALLED)
def test_the_stored_flags_are_the_engines_own(engine, version):
    if version not in stored()[engine]:
        pytest.skip(f"no flags of {engine} {version} are stored")
    assert stored()[engine][version] == entry_of(engine, version)


@pytest.mark.parametrize("version", VLLM)
def test_vllm_serves_as_far_as_the_rope_reaches_and_no_further(version, tmp_path):
    """vLLM reads a real config.json and the --hf-overrides, as it does before it loads weights."""
    agi = _folder(tmp_path / "agi", make_plan(load_recipe("agi")).target_config)
    stock = _folder(tmp_path / "stock", load_base("qwen3-30b-a3b"))
    requests, lengths = [], []
    for spec, folder, reach in ((WANTED, agi, 196_608), (STOCK, stock, 40_960)):
        (profile,) = profiles_for(
            spec, gpu="b200", engines=["vllm"], quantizations=["bf16"], kv_dtypes=["bf16"],
            engine_versions={"vllm": version},
        )  # fmt: skip
        words = list(profile.command[2:])
        assert value(words, "--max-model-len") == str(reach)
        further = [str(reach + 1) if word == str(reach) else word for word in words]
        requests += [{"words": words, "folder": folder}, {"words": further, "folder": folder}]
        lengths += [reach, None]
    _, answers = ask("vllm", version, requests)
    assert [answer.get("length") for answer in answers] == lengths
    assert all("max_model_len" in a["refused"] for a in answers if "refused" in a)


def _folder(path, config):
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    return str(path)
