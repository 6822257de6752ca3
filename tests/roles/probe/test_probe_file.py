"""Probes on disk: what is written is read again, and what is wrong with a file is said."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from veche.core.errors import CheckpointError, UnsupportedError
from veche.engines.scripted import ScriptedEngine
from veche.roles.host import require_trained_on
from veche.roles.probe.fitting import FitSettings
from veche.roles.probe.probe_file import (
    TrainedProbes,
    load_probes,
    save_probes,
)
from veche.roles.probe.stack import Fits

NOTE_NAME, WEIGHTS_NAME = "probe.json", "probe.safetensors"


def trained():
    rng = np.random.default_rng(0)
    blocks = {"surface": rng.normal(size=(60, 4)), "hidden": rng.normal(size=(60, 150))}
    labels = ["right" if value > 0 else "wrong" for value in blocks["surface"][:, 0]]
    groups = [str(row // 2) for row in range(60)]
    settings = FitSettings(strengths=(0.1,))
    fits = Fits(blocks, labels, groups, labels=("wrong", "right"), settings=settings)
    stack = fits.stack(tuple(blocks)).stack
    probes = TrainedProbes(
        base_hash="a" * 64, layers=(2,), stacks={"answer": stack}, record={"note": [1, None]}
    )
    return probes, blocks


def test_what_was_saved_scores_as_it_did(tmp_path):
    probes, blocks = trained()
    save_probes(tmp_path, probes)
    read = load_probes(tmp_path)
    assert (read.base_hash, read.layers, read.record) == ("a" * 64, (2,), {"note": [1, None]})
    assert read.stacks["answer"].labels == ("wrong", "right")
    np.testing.assert_array_equal(
        read.stacks["answer"].scores(blocks), probes.stacks["answer"].scores(blocks)
    )


def test_a_folder_holds_no_other_files_and_nothing_pickled(tmp_path):
    save_probes(tmp_path, trained()[0])
    assert sorted(path.name for path in tmp_path.iterdir()) == [NOTE_NAME, WEIGHTS_NAME]
    assert b"sklearn" not in (tmp_path / WEIGHTS_NAME).read_bytes()


def edited(folder, change):
    note = json.loads((folder / NOTE_NAME).read_text())
    change(note)
    (folder / NOTE_NAME).write_text(json.dumps(note))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda note: note.update(format="other"), "probe.json is damaged: format"),
        (lambda note: note.update(extra=1), "extra: Extra inputs are not permitted"),
        (lambda note: note["layers"].clear(), "layers: List should have at least 1"),
        (lambda note: note["stacks"].clear(), "stacks: Dictionary should have at least 1"),
        (lambda note: note["stacks"]["answer"]["labels"].append("x"), "3 labels need 3 rows"),
        (lambda note: note["stacks"]["answer"]["probes"].append("load"), "it has no answer/load"),
        (
            lambda note: note["stacks"]["answer"]["blocks"].update(hidden=151),
            "'hidden' does not read 151 features",
        ),
        (
            lambda note: note["stacks"]["answer"]["blocks"].update(surface=5),
            "the probe of .surface. does not read 5",
        ),
    ],
)
def test_a_note_that_does_not_fit_is_one_clear_error(tmp_path, change, message):
    save_probes(tmp_path, trained()[0])
    edited(tmp_path, change)
    with pytest.raises(CheckpointError, match=message):
        load_probes(tmp_path)


def test_damaged_weights_are_one_clear_error(tmp_path):
    save_probes(tmp_path, trained()[0])
    path = tmp_path / WEIGHTS_NAME
    tensors = load_file(path)
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match="is no veche-probe-1"):
        load_probes(tmp_path)
    tensors["answer/top/bias"] = np.array([np.nan], np.float32)
    save_file(tensors, path, metadata={"format": "veche-probe-1"})
    with pytest.raises(CheckpointError, match="not finite"):
        load_probes(tmp_path)
    save_file(
        {name: each.astype(np.float16) for name, each in tensors.items()},
        path,
        metadata={"format": "veche-probe-1"},
    )
    with pytest.raises(CheckpointError, match="float16"):
        load_probes(tmp_path)
    path.write_bytes(b"pickle")
    with pytest.raises(CheckpointError, match="damaged"):
        load_probes(tmp_path)
    path.unlink()
    with pytest.raises(CheckpointError, match="does not exist"):
        load_probes(tmp_path)


class _Model(ScriptedEngine):
    """An engine with a model of its own."""

    base_hash = "b" * 64
    identity = "c" * 64


def test_a_probe_of_another_model_is_refused_with_the_command_that_trains_one():
    with pytest.raises(UnsupportedError, match="aaaaaaaaaaaa…, and model is bbbbbbbbbbbb") as error:
        require_trained_on("a" * 64, _Model({}, name="model"))
    assert "veche role train ROLE" in error.value.hint
    require_trained_on("b" * 64, _Model({}))


def test_an_engine_that_does_not_know_its_model_is_refused():
    with pytest.raises(UnsupportedError, match="cannot tell which model it runs"):
        require_trained_on("a" * 64, ScriptedEngine({}))
