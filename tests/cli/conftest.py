"""The command line as its user meets it, and models small enough to run it on."""

import io
import json
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests import tiny_models

from veche.cli.main import main

RECIPE = """
name: tiny
base: nowhere
mode: split
allow_lossy: true
fields:
  moe_intermediate_size: 32
  num_attention_heads: 6
  num_key_value_heads: 6
  num_experts_per_tok: 2
  rope_theta: {value: x2, apply: false}
"""
TEXT = "the council hears every voice, and the answer is four. совет слышит каждый голос. " * 60
_WIDE = 6144
_GROW = {"moe_intermediate_size": _WIDE + 8}
_DISK_BYTES = 2 << 20


def _refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


@dataclass(frozen=True)
class Called:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one JSON object that must be all of stdout."""
        value = json.loads(self.out, parse_constant=_refuse_constant)
        assert isinstance(value, dict)
        return value

    @property
    def error(self) -> dict[str, str]:
        """The error of the JSON object, whose form is fixed."""
        assert set(self.json) == {"error"}
        error = self.json["error"]
        assert set(error) == {"type", "message", "hint"}
        assert all(isinstance(text, str) for text in error.values())
        assert error["message"]
        return error


def call(*arguments: object) -> Called:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return Called(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def veche():
    """Run a command: veche("plan", "agi", "--json")."""
    return call


@pytest.fixture(scope="session")
def shelf(tmp_path_factory) -> Path:
    """A folder of inputs that tests read and never change."""
    folder = tmp_path_factory.mktemp("shelf")
    (folder / "tiny.yaml").write_text(RECIPE)
    (folder / "text.txt").write_text(TEXT)
    tiny_models.tiny_mixtral(folder / "moe", max_position_embeddings=4096)
    tiny_models.tiny_llama(folder / "dense", intermediate_size=64)
    return folder


@pytest.fixture(scope="session")
def grown(shelf) -> Path:
    """The folder that `veche build` makes of shelf/moe."""
    target = shelf / "grown"
    done = call("build", shelf / "tiny.yaml", "--source", shelf / "moe", "--out", target, "--json")
    assert done.code == 0, done
    return target


@pytest.fixture(scope="session")
def asked(shelf, grown) -> tuple[Path, Called]:
    """A run's folder, and what `veche ask` said."""
    run = shelf / "run"
    done = call("ask", grown, "What is four?", "--max-tokens", 8, "--out", run, "--json")
    assert done.code == 0, done
    return run, done


@pytest.fixture
def copy(shelf, tmp_path):
    """Copy a model of the shelf, to damage it: copy("moe")."""
    return lambda name: Path(shutil.copytree(shelf / name, tmp_path / f"copy-of-{name}"))


@pytest.fixture(scope="session")
def large(tmp_path_factory):
    """A model of 120 MB in several shards: growing it takes a while."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    whole = tiny_models.tiny_mixtral(tmp_path_factory.mktemp("w") / "m", intermediate_size=_WIDE)
    folder = tmp_path_factory.mktemp("large") / "m"
    AutoModelForCausalLM.from_pretrained(whole).save_pretrained(folder, max_shard_size="10MB")
    AutoTokenizer.from_pretrained(whole).save_pretrained(folder)
    assert len(list(folder.glob("*.safetensors"))) > 4
    recipe = folder.parent / "wider.yaml"
    recipe.write_text(json.dumps({"name": "wider", "base": str(folder), "fields": _GROW}))
    return folder, recipe


@pytest.fixture
def disk(tmp_path):
    """Mount a disk of 2 MiB; it needs root, as in most containers and CI runners."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux":
        pytest.skip("tmpfs is Linux's")
    command = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mounting a tmpfs is not permitted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
