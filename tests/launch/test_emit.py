"""Emitted files: what a shell, Compose and systemd make of them is the profile's own command."""

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.launch.models import STOCK, WANTED

from veche.core.errors import OutputError
from veche.launch.compose_file import compose_file
from veche.launch.emit import files_for, write_files
from veche.launch.profiles import profiles_for
from veche.launch.recommend import recommended
from veche.launch.shell_script import shell_script
from veche.launch.systemd_unit import systemd_unit

ENGINES = ["vllm", "sglang", "llama.cpp", "transformers"]
COMPOSE_SCHEMA = json.loads((Path(__file__).parent / "data/compose-spec.json").read_text())
FEATURES = {"vllm": ("routing", "lora"), "sglang": ("routing", "lora")}
NASTY = 'owner/it\'s a "model" $HOME `id` %i $(id) \\ #'


def profile_for(engine, model="owner/model", **more):
    profiles = profiles_for(
        WANTED, gpu="rtx-pro-6000", engines=[engine], model_path=model, context_tokens=32768, **more
    )
    return recommended(profiles)


def argv_that_bash_sees(script, tmp_path):
    """Run a script with a stand-in for the engine that prints its arguments as JSON."""
    program = script.rstrip().splitlines()[-1].split()[1]
    stand_in = tmp_path / program
    stand_in.write_text(
        '#!/bin/sh\nprintf "%s\\0" "$@" > "$ARGUMENTS"\n'
        'printf "%s" "$VLLM_USE_DEEP_GEMM" > "$ENV"\n'
    )
    stand_in.chmod(0o755)
    path = tmp_path / "start.sh"
    path.write_text(script)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "ARGUMENTS": str(tmp_path / "arguments"),
        "ENV": str(tmp_path / "env"),
    }
    subprocess.run(["bash", str(path)], env=environment, check=True, timeout=20)
    words = (tmp_path / "arguments").read_text().split("\0")[:-1]
    return (program, *words), (tmp_path / "env").read_text()


@pytest.mark.parametrize("engine", ENGINES)
def test_bash_sees_the_profiles_own_words(engine, tmp_path):
    profile = profile_for(engine, NASTY)
    assert argv_that_bash_sees(shell_script(profile), tmp_path)[0] == profile.command


def test_the_environment_is_exported_and_explained(tmp_path):
    (profile,) = profiles_for(
        STOCK, gpu="rtx-pro-6000", engines=["vllm"], quantizations=["fp8"], kv_dtypes=["bf16"]
    )
    script = shell_script(profile)
    assert argv_that_bash_sees(script, tmp_path)[1] == "0"
    assert "DeepGEMM" in script


@settings(max_examples=25)
@given(model=st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n"), min_size=1))
def test_compose_reads_back_the_profiles_own_words(model):
    profile = profile_for("vllm", "owner/" + model)
    service = yaml.safe_load(compose_file(profile))["services"]["model"]
    words = [word.replace("$$", "$") for word in service["command"]]
    assert (*service["entrypoint"], *words[:-2]) == profile.command
    assert service["ports"] == ["127.0.0.1:8000:8000"]


@pytest.mark.parametrize("engine", ["vllm", "sglang", "llama.cpp"])
def test_a_local_model_is_mounted_read_only(engine, tmp_path):
    model = tmp_path / "my model"
    model.write_text("")
    service = yaml.safe_load(compose_file(profile_for(engine, str(model))))["services"]["model"]
    (volume,) = service["volumes"]
    assert volume.endswith(":ro")
    assert "/models/my model" in service["command"]
    devices = service["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]


@pytest.mark.parametrize("engine", ["vllm", "sglang", "llama.cpp"])
@pytest.mark.parametrize("num_gpus", [1, 2])
@pytest.mark.parametrize("version", [None, "0.28.0"])
def test_compose_keeps_to_its_schema(engine, num_gpus, version):
    validate = pytest.importorskip("jsonschema").Draft7Validator(COMPOSE_SCHEMA).validate
    profile = profile_for(engine, NASTY, num_gpus=num_gpus, engine_version=version)
    document = yaml.safe_load(files_for(profile)["compose.yaml"])
    validate(document)
    document["services"]["model"]["imagee"] = "x"
    with pytest.raises(pytest.importorskip("jsonschema").ValidationError):
        validate(document)


def test_a_compose_file_reserves_every_card():
    service = yaml.safe_load(compose_file(profile_for("vllm", num_gpus=2)))["services"]["model"]
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device["count"] == 2
    assert service["image"] == "vllm/vllm-openai:latest"
    pinned = yaml.safe_load(compose_file(profile_for("vllm", engine_version="0.28.0")))
    assert pinned["services"]["model"]["image"] == "vllm/vllm-openai:v0.28.0"


def test_machines_that_are_started_one_by_one_are_told_what_to_add():
    asked = {"gpu": "l40s", "num_gpus": 2, "num_nodes": 2, "context_tokens": 8192}
    (profile, *_) = profiles_for(WANTED, engines=["sglang"], quantizations=["fp8"], **asked)
    assert any("--node-rank 0 … 1" in note for note in profile.notes)
    assert "--node-rank" in files_for(profile)["sglang.sh"]
    assert "compose.yaml" not in files_for(profile)
    (alone, *_) = profiles_for(WANTED, engines=["llama.cpp"], **asked)
    assert not alone.fits
    assert "one machine" in alone.reason


def test_layers_over_cards_of_one_machine_are_one_machine():
    profile = profile_for("llama.cpp", num_gpus=2)
    assert (profile.num_gpus, profile.num_nodes) == (2, 1)
    assert "compose.yaml" in files_for(profile)


def test_systemd_reads_back_the_profiles_own_words():
    profile = profile_for("vllm", NASTY)
    (line,) = [s for s in systemd_unit(profile).splitlines() if s.startswith("ExecStart=")]
    words = _systemd_words(line.removeprefix("ExecStart=/usr/bin/env "))
    assert tuple(words) == profile.command


def test_several_machines_get_ray(tmp_path):
    profile = recommended(
        profiles_for(WANTED, gpu="l40s", num_gpus=2, num_nodes=2, engines=["vllm"])
    )
    files = files_for(profile)
    assert set(files) == {"ray-head.sh", "ray-worker.sh"}
    assert "--pipeline-parallel-size 2" in files["ray-head.sh"]
    assert "--num-gpus=2" in files["ray-worker.sh"]
    for text in files.values():
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)


@pytest.mark.parametrize("engine", ENGINES)
def test_files_are_written_once_and_never_over_others(engine, tmp_path):
    profile = profile_for(engine)
    written = write_files(profile, tmp_path / "out")
    assert all(path.exists() for path in written)
    scripts = [path for path in written if path.suffix == ".sh"]
    assert all(os.access(path, os.X_OK) for path in scripts)
    assert json.loads((tmp_path / "out/profile.json").read_text())["engine"] == engine
    with pytest.raises(OutputError):
        write_files(profile, tmp_path / "out")


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
@pytest.mark.parametrize(
    ("engine", "machines"), [*((engine, 1) for engine in ENGINES), ("vllm", 2)], ids=str
)
def test_shellcheck_finds_nothing(engine, machines):
    asked = {
        "engines": [engine],
        "num_gpus": 2,
        "num_nodes": machines,
        "features": FEATURES.get(engine, ()),
    }
    plain, nasty = (
        files_for(recommended(profiles_for(WANTED, gpu="b200", model_path=name, **asked)))
        for name in ("./out", NASTY)
    )
    scripts = [name for name in plain if name.endswith(".sh")]
    assert len(scripts) == machines  # with Ray: for the first machine, and for the others
    for name in scripts:
        subprocess.run(["shellcheck", "-"], input=plain[name], text=True, check=True)
        command = ["shellcheck", "--severity=warning", "-"]  # its info: "$ in single quotes"
        subprocess.run(command, input=nasty[name], text=True, check=True)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd is not installed")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("model", ["./out", NASTY])
def test_systemd_finds_nothing(engine, model, tmp_path):
    unit = tmp_path / "model.service"
    unit.write_text(systemd_unit(profile_for(engine, model)))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--generators=no", unit],
        text=True, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert not [line for line in done.stderr.splitlines() if unit.name in line]


def test_a_line_break_in_a_note_cannot_become_a_command():
    profile = replace(profile_for("vllm"), notes=("first\nrm -rf /",))
    assert "\n# rm -rf /" in shell_script(profile)
    assert "\nrm -rf /" not in shell_script(profile)


def _systemd_words(line):
    """A small reading of systemd.syntax: double quotes, backslashes, %% and $$."""
    words, word, is_quoted, index = [], "", False, 0
    while index < len(line):
        char = line[index]
        if char == "\\":
            word, index = word + line[index + 1], index + 1
        elif char == '"':
            is_quoted = not is_quoted
        elif char == " " and not is_quoted:
            words, word = [*words, word], ""
        else:
            word += char
        index += 1
    return [w.replace("%%", "%").replace("$$", "$") for w in [*words, word]]


def test_several_machines_with_sglang_get_no_unit_and_are_told_where_the_model_is():
    files = files_for(profile_for("sglang", "/models/mine", num_gpus=2, num_nodes=2))
    assert set(files) == {"sglang.sh"}
    assert "/models/mine must be at the same path" in files["sglang.sh"]


def test_ray_is_started_once(tmp_path):
    files = files_for(profile_for("vllm", "/models/mine", num_gpus=2, num_nodes=2))
    assert "ray status >/dev/null 2>&1 || ray start --head" in files["ray-head.sh"]
    assert "/models/mine must be at the same path on every machine" in files["ray-head.sh"]


@pytest.mark.parametrize("language", ["en", "ru"])
def test_a_placeholder_is_told_where_a_folder_goes(language):
    text = compose_file(profile_for("vllm", "MODEL"), language)
    assert "# - /path/to/folder:/models:ro" in text
    assert "--engine-version" in text
    assert len(yaml.safe_load(text)["services"]["model"]["volumes"]) == 1
    pinned = compose_file(profile_for("vllm", engine_version="0.28"), language)
    assert '"vllm/vllm-openai:v0.28.0"' in pinned
    assert "--engine-version" not in pinned
    assert "/path/to" not in pinned
