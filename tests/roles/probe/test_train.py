"""Training from examples to a folder, with a model."""

from dataclasses import replace

import pytest
from tests.tiny_models import tiny_mixtral

from veche.core.errors import InputError, OutputError
from veche.engines.transformers import create
from veche.roles.data.problems.generate import generate
from veche.roles.probe.fitting import FitSettings
from veche.roles.probe.probe_file import load_probes
from veche.roles.probe.train import train_probe
from veche.roles.role import Role

FAST = FitSettings(strengths=(0.01,), folds=2, components=16)


def role(name="recursia", kind="observer"):
    return Role(name=name, kind=kind, title={"en": name, "ru": name}, prompt={"en": "", "ru": ""})


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return create(tiny_mixtral(tmp_path_factory.mktemp("mixtral")), dtype="float32")


@pytest.fixture(scope="module")
def examples():
    return generate("arithmetic", language="en", difficulty=1, count=12, seed=0)


def test_an_observer_learns_from_answers_and_steps_and_says_how_good_it_is(
    engine, examples, tmp_path
):
    out = tmp_path / "probe"
    train_probe(engine, role(), examples, out, settings=FAST)
    read = load_probes(out)
    assert set(read.stacks) == {"answer", "step"}
    assert read.base_hash == engine.base_hash
    assert read.layers == (2,)  # six tenths of three layers
    measured = read.record["measured"]["step"]
    assert {"stack", "surface", "tf-idf", "max-prob", "entropy", "router"} <= set(measured["auroc"])
    assert 0 <= measured["auroc"]["stack"]["mean"] <= 1
    assert measured["problems"] == 12


def test_what_cannot_be_learnt_from_is_one_clear_error(engine, examples, tmp_path):
    with pytest.raises(InputError, match="is a drafter"):
        train_probe(engine, role(kind="drafter"), examples, tmp_path / "a")
    blind = [replace(one, is_right=None, first_bad_step=None) for one in examples]
    with pytest.raises(InputError, match="too few labels for 'recursia'"):
        train_probe(engine, role(), blind, tmp_path / "b")
    with pytest.raises(InputError, match="layer 9"):
        train_probe(engine, role(), examples, tmp_path / "c", layers=(9,))
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "mine").touch()
    with pytest.raises(OutputError):
        train_probe(engine, role(), examples, tmp_path / "d")
