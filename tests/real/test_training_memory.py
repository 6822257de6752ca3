"""The memory plan of a training against a process that trains the demo's model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from veche.launch.overhead import TRANSFORMERS_GIB

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.real_model,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak"),
]


@pytest.mark.parametrize("layers", ["kept", "again"])
def test_a_training_needs_what_was_planned_and_the_libraries(layers, real_model):
    done = subprocess.run(
        [sys.executable, "-m", "tests.roles.training.measured", real_model.grown, layers],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=600,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    libraries = said["needed"] - said["planned"]
    assert 0 < libraries < TRANSFORMERS_GIB[0] * 2**30
