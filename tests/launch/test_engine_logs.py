"""The arithmetic against numbers from real engine logs, with their sources."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def held():
    path = ROOT / "benchmarks/launch_calibration.py"
    spec = importlib.util.spec_from_file_location("launch_calibration", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.report(module.read_rows(ROOT / "tests/launch/data/engine_logs.csv"))


@pytest.mark.parametrize(
    ("kind", "share"),
    [
        ("gguf bytes", 1.0),
        ("gguf size", 1.0),
        ("weights", 1.0),
        ("kv interval", 0.95),
        ("decode band", 0.8),
        ("kv tokens", 0.9),
    ],
)
def test_real_logs_agree(held, kind, share):
    good, total = held[kind]
    assert total
    assert good / total >= share
