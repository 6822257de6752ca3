"""Hostile checkpoints: one clear error each, or a model; and nothing written anywhere else.

Every way of damaging one (hostile_damages.py) is tried on checkpoints of three families, fused and
not, in one file and in shards (hostile_drafts.py), by `open_checkpoint`, `veche plan` and
`veche build`. A growth of every expert's width is planned and built.
"""

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import safetensors.numpy
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.checkpoint.hostile_damages import DAMAGES, Damage
from tests.checkpoint.hostile_drafts import INDEX, LAYOUTS, WIDTH, Draft, draft, snapshot

from veche.checkpoint.header import read_header
from veche.checkpoint.reader import open_checkpoint
from veche.cli.main import main
from veche.core.errors import CheckpointError, VecheError

CASES_EACH = 8
LEAST_CASES = 300
_RECIPE = {"name": "wider", "base": "nowhere", "fields": {"moe_intermediate_size": WIDTH + 2}}
_CONTROLS = {chr(code) for code in (*range(32), *range(0x7F, 0xA0))} - {"\n"}
_WORST_BYTES = 700 << 20
counted: dict[str, int] = {}


def run(*arguments: object) -> tuple[int, str, str]:
    """Run a command in this process: exit code, stdout, stderr."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return code, out.getvalue(), err.getvalue()


def told(code: int, out: str, err: str) -> str:
    """Check that a command ended well or in one clear error; return the error's message."""
    assert "Traceback" not in out + err
    assert not _CONTROLS & set(out + err)
    value = json.loads(out, parse_constant=pytest.fail)
    if code == 0:
        assert "error" not in value
        return ""
    assert code == 2, (code, out)
    assert set(value) == {"error"}
    error = value["error"]
    assert error["message"]
    assert error["hint"], error
    assert len(error["message"]) < 1000
    assert "\n" not in error["message"]
    return str(error["message"])


def refused(source: Path) -> str:
    """Open a checkpoint; return the message with which it was refused."""
    try:
        open_checkpoint(source)
    except VecheError as error:
        return error.message if error.hint else pytest.fail(f"no hint: {error}")
    return ""


def attempt(place: Path, damaged: Draft) -> str:
    """Open, plan and build a checkpoint; return the message with which building was refused."""
    source, target = place / "hub" / "model", place / "hub" / "out"
    damaged.write(source)
    recipe = place / "wider.json.yaml"
    recipe.write_text(json.dumps(_RECIPE))
    before = snapshot(place)

    refusal = refused(source)
    planned = told(*run("plan", recipe, "--base", source, "--json"))
    built = told(*run("build", recipe, "--source", source, "--out", target, "--json"))
    if planned or refusal:
        assert built
    if built:
        assert any(word in built for word in (str(source), "model_", "moe_", "wider", "NaN")), built
        assert not target.exists()
        partial = target.with_name("out.partial")
        assert not (partial / "config.json").exists()
        assert not list(partial.glob("*.safetensors")) or not refusal
        shutil.rmtree(partial, ignore_errors=True)
    else:
        assert len(open_checkpoint(target).shards) == len(damaged.shards)
        for file in target.glob("*.safetensors"):
            safetensors.numpy.load_file(file)
        assert not list(target.glob(".*"))
        shutil.rmtree(target)
    assert snapshot(place) == before
    return built


def case(how: Damage, data: st.DataObject) -> None:
    layouts = [layout for layout in LAYOUTS if layout[2] or not how.needs_index]
    family, is_fused, is_sharded = data.draw(st.sampled_from(layouts))
    damaged = draft(family, is_fused=is_fused, is_sharded=is_sharded)
    how.do(damaged, data.draw)
    with tempfile.TemporaryDirectory() as folder:
        message = attempt(Path(folder), damaged)
    if how.outcome != "either":
        assert bool(message) == (how.outcome == "refused"), message
    counted[how.name] = counted.get(how.name, 0) + 1


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", DAMAGES.values(), ids=DAMAGES)
@settings(
    max_examples=CASES_EACH,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=[*HealthCheck],
)
@given(data=st.data())
def test_a_hostile_checkpoint(how, data):
    case(how, data)


def test_there_were_enough_of_them(request):
    """Counts what the test above has done; alone, it has nothing to count."""
    if len(counted) < len(DAMAGES):
        pytest.skip("only some of the damages were chosen")
    assert sum(counted.values()) >= LEAST_CASES, counted


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_the_same_checkpoints_undamaged_are_built(tmp_path, layout):
    family, is_fused, is_sharded = layout
    whole = draft(family, is_fused=is_fused, is_sharded=is_sharded)
    assert attempt(tmp_path, whole) == ""


_MEASURED = """
import re, sys
from pathlib import Path
from veche.checkpoint.reader import open_checkpoint
from veche.core.errors import VecheError
try:
    print(len(open_checkpoint(Path(sys.argv[1])).tensors))
except VecheError as error:
    print(error.message)
print(re.search("VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


def opened(folder: Path) -> tuple[str, int]:
    """Open a checkpoint in a process of its own: what it says, and its largest memory.

    Not by ru_maxrss, which begins with that of the process that forked.
    """
    if sys.platform != "linux":
        pytest.skip("/proc is Linux's")
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED, str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    *said, peak = done.stdout.splitlines()
    return "\n".join(said), int(peak) << 10


def filled(pattern: str, size: int) -> bytes:
    """Return a JSON object of at least nearly `size` bytes: `pattern` again and again."""
    parts = (pattern.format(number) for number in range(size // (len(pattern.format(10**6)) + 1)))
    return ("{" + ",".join(parts) + "}").encode()


_EMPTY = '{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
_TEXTS = {
    "empty objects": lambda size: filled('"{0}":{{}}', size),
    "empty lists": lambda size: b'{"a":[' + b"[]," * (size // 3 - 9) + b"[]]}",
    "small numbers": lambda size: b'{"a":[' + b"1," * (size // 2 - 9) + b"1]}",
    "short texts": lambda size: filled('"{0}":"ab"', size),
    "one wide text": lambda size: ('{"a":"\N{GRINNING FACE}' + "b" * (size - 99) + '"}').encode(),
    "spaces": lambda size: b"{" + b" " * (size - 9) + b"}",
    "tensors": lambda size: filled(f'"t{{0}}":{_EMPTY}', size),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("text", _TEXTS)
@pytest.mark.parametrize("place", ["header", "index", "config"])
def test_the_longest_texts_that_are_read_take_bounded_memory(tmp_path, place, text):
    damaged = draft("qwen3_moe", is_fused=False, is_sharded=place == "index")
    size = {"header": 16 << 20, "index": 32 << 20, "config": 8 << 20}[place] - 16
    content = _TEXTS[text](size)
    assert 0.7 * size < len(content) <= size
    if place == "header":
        damaged.shards["model.safetensors"].raw_header = content
    else:
        damaged.raw["config.json" if place == "config" else INDEX] = content
    damaged.write(tmp_path / "model")
    said, peak = opened(tmp_path / "model")
    assert str(tmp_path) in said or "model_type" in said
    assert peak <= _WORST_BYTES, f"{peak >> 20} MiB"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("size", [100_000_000, 1 << 32])
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", INDEX])
def test_a_file_that_is_longer_is_not_read(tmp_path, name, size):
    damaged = draft("mixtral", is_fused=False, is_sharded=name == INDEX)
    if name == "model.safetensors":
        damaged.shards[name].length = size
    damaged.write(tmp_path / "model")
    os.truncate(tmp_path / "model" / name, size + 8)
    said, peak = opened(tmp_path / "model")
    assert str(tmp_path / "model" / name) in said
    assert peak <= 200 << 20, f"{peak >> 20} MiB"


@pytest.mark.timeout(300)
def test_100_000_tensors_in_one_file_are_read(tmp_path):
    """48 layers of 693 experts, by name as long as those of Qwen3-MoE, without a value."""
    names = [
        f"model.layers.{layer}.mlp.experts.{expert}.{part}_proj.weight"
        for layer in range(48) for expert in range(695) for part in ("gate", "up", "down")
    ]  # fmt: skip
    entry = {"dtype": "BF16", "shape": [0, 2048], "data_offsets": [10_000_000_000] * 2}
    text = json.dumps(dict.fromkeys(names, entry), separators=(",", ":")).encode()
    assert len(names) > 100_000
    file = tmp_path / "x.safetensors"
    file.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(file, 8 + len(text) + 10_000_000_000)
    with pytest.raises(CheckpointError, match="10000000000 bytes before tensor"):
        read_header(file)
    text = text.replace(b"10000000000", b"0")
    file.write_bytes(len(text).to_bytes(8, "little") + text)
    assert len(read_header(file)) == len(names)
