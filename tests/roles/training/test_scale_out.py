"""Several processes: what is emitted is understood, and two real ones train as one does."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from tests.roles.training.dialogues import ROLE, sums
from tests.roles.training.divided import SETTINGS
from tiny_families import tiny
from tiny_models import tiny_mixtral

from veche.checkpoint.config import read_config, spec_of
from veche.checkpoint.families import FAMILIES
from veche.core.errors import InputError
from veche.planning.bases import load_base, shipped_bases
from veche.roles.training.adapter import WEIGHTS_FILE
from veche.roles.training.scale_out import (
    Fleet,
    accelerate_command,
    accelerate_config,
    torchrun_command,
)
from veche.roles.training.train import train_adapter

ROOT = Path(__file__).parents[3]
TRAINING = ["veche", "role", "train", "adder", "my model", "--data", "d.jsonl"]


def two_processes(part, *paths):
    """Run a part of `divided.py` in two processes over gloo; return what the first says."""
    done = subprocess.run(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
            "-m", "tests.roles.training.divided", part, *paths,
        ],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=400,
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}:{ROOT / 'tests'}",
            "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "ignore",
        },
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_two_processes_train_what_one_does(tmp_path):
    import safetensors.torch

    model = tiny_mixtral(tmp_path / "model")
    losses = two_processes("copies", model, tmp_path / "two")["loss"]
    trained = train_adapter(model, sums(8), SETTINGS, tmp_path / "one", role=ROLE)
    assert losses == pytest.approx([*trained.record.curve["loss"]], rel=1e-5)
    one, two = (
        safetensors.torch.load_file(tmp_path / name / WEIGHTS_FILE) for name in ("one", "two")
    )
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-3, atol=1e-5)
    record = json.loads((tmp_path / "two" / "training.json").read_text())
    assert record["num_processes"] == 2
    assert not (tmp_path / "two.partial").exists()


def test_layers_divided_between_two_processes_train_what_whole_ones_do(tmp_path):
    folder = tiny(tmp_path / "model", "mixtral")  # in bfloat16, with an adapter in float32
    assert two_processes("parts", folder, tmp_path)["difference"] < 1e-5


@pytest.mark.parametrize("base", shipped_bases())
@pytest.mark.parametrize(
    "fleet", [Fleet(num_gpus=8), Fleet(num_gpus=4, num_nodes=2, main_address="n0")]
)
def test_accelerate_reads_the_config_and_finds_the_layers(base, fleet, tmp_path):
    from accelerate.commands.config.config_args import load_config_from_file

    config = accelerate_config(spec_of(load_base(base)), fleet)
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(config))
    read = load_config_from_file(str(tmp_path / "a.yaml"))
    assert read.distributed_type.value == "FSDP"
    assert (read.num_processes, read.num_machines) == (fleet.num_processes, fleet.num_nodes)
    assert read.fsdp_config["fsdp_version"] == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_are_called_as_transformers_calls_them(family, tmp_path):
    from accelerate.utils.dataclasses import get_module_class_from_name

    from veche.surgery.loading import empty_model

    folder = tiny(tmp_path / "model", family)
    spec = spec_of(read_config(folder))
    name = accelerate_config(spec, Fleet(num_gpus=2))["fsdp_config"]
    found = get_module_class_from_name(
        empty_model(folder), name["fsdp_transformer_layer_cls_to_wrap"]
    )
    assert found is not None


def test_commands_are_understood_by_those_who_run_them():
    from accelerate.commands.launch import launch_command_parser
    from torch.distributed.run import get_args_parser

    for fleet in (Fleet(num_gpus=4), Fleet(num_gpus=4, num_nodes=2, main_address="n0")):
        words = [
            word.replace("$RANK", "1") for word in shlex.split(torchrun_command(TRAINING, fleet))
        ]
        read = get_args_parser().parse_args(words[1:])
        assert (read.nproc_per_node, read.no_python) == ("4", True)
        assert [read.training_script, *read.training_script_args] == TRAINING
        words = shlex.split(accelerate_command("a.yaml", TRAINING, fleet))
        words = [word.replace("$RANK", "1") for word in words]
        asked = launch_command_parser().parse_args(words[2:])
        assert asked.no_python
        assert asked.config_file == "a.yaml"
        assert [asked.training_script, *asked.training_script_args] == TRAINING
        assert asked.machine_rank == (1 if fleet.num_nodes > 1 else None)


def test_fleets_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="first one's address"):
        Fleet(num_gpus=1, num_nodes=2)
    with pytest.raises(InputError, match="--gpus 0"):
        Fleet(num_gpus=0)


def test_a_batch_that_processes_cannot_share_is_refused():
    from veche.roles.training.settings import TrainingSettings, chosen

    spec = spec_of(load_base("mixtral-8x7b"))
    with pytest.raises(InputError, match="cannot be shared by 3 processes") as caught:
        chosen(TrainingSettings(batch=8), spec, num_examples=10, num_processes=3)
    assert caught.value.hint == "--batch 9"
