"""What all tests share."""

import os

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Machines are shared: how long an example takes says nothing about the code.
settings.register_profile("veche", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("veche")


@pytest.fixture(autouse=True)
def _own_home(tmp_path, monkeypatch):
    """Keep every test's files out of the user's own VECHE_HOME."""
    monkeypatch.setenv("VECHE_HOME", str(tmp_path / "veche-home"))
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
