"""A steering on disk: what comes back, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from veche.core.errors import CheckpointError, InputError
from veche.experts.recording import Source
from veche.experts.steering.basis import Finding, SteeringBasis
from veche.experts.steering.file import load_steering, save_steering


def a_steering(values=None, layers=(1, 3)):
    basis = np.array([[1, 0, -0.5], [0, 0, 0.25]], np.float32) if values is None else values
    return SteeringBasis(
        basis=basis,
        source=Source(model="модель", identity="ab" * 32, layers=layers, has_equal_weights=True),
        finding=Finding(
            towards="за",
            away_from="против",
            num_for=9,
            num_against=8,
            num_significant=4,
            seed=7,
            used_texts=("cd" * 32,),
        ),
    )


def test_what_was_saved_comes_back(tmp_path):
    path = tmp_path / "папка" / "steering.safetensors"
    save_steering(path, a_steering())
    loaded = load_steering(path)
    assert np.array_equal(loaded.basis, a_steering().basis)
    assert loaded.finding == a_steering().finding
    assert loaded.source == a_steering().source
    assert loaded.layers == (1, 3)


@settings(max_examples=40, deadline=None)
@given(at=st.integers(0, 400), byte=st.integers(0, 255))
def test_a_damaged_byte_is_an_error_of_ours_or_no_harm(tmp_path_factory, at, byte):
    path = tmp_path_factory.mktemp("steering") / "s.safetensors"
    save_steering(path, a_steering())
    raw = bytearray(path.read_bytes())
    raw[at % len(raw)] = byte
    path.write_bytes(bytes(raw))
    try:
        loaded = load_steering(path)
    except CheckpointError:
        return
    assert loaded.basis.shape == (2, 3)
    assert np.abs(loaded.basis).max() <= 1


def test_missing_foreign_and_truncated_files_are_told_apart(tmp_path):
    from safetensors.numpy import save_file

    with pytest.raises(CheckpointError, match="does not exist"):
        load_steering(tmp_path / "нет.safetensors")
    save_file({"basis": np.ones((1, 1), np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="is not a steering"):
        load_steering(tmp_path / "other.safetensors")
    save_steering(tmp_path / "cut.safetensors", a_steering())
    raw = (tmp_path / "cut.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(raw[:-4])
    with pytest.raises(CheckpointError, match="is damaged"):
        load_steering(tmp_path / "cut.safetensors")


def test_a_note_that_lacks_something_is_named(tmp_path):
    from safetensors.numpy import save_file

    metadata = {"format": "veche-steering-1", "note": '{"layers": [0]}'}
    path = tmp_path / "s.safetensors"
    save_file({"basis": np.ones((1, 1), np.float32)}, path, metadata=metadata)
    with pytest.raises(CheckpointError, match="is damaged: model: Field required"):
        load_steering(path)


@pytest.mark.parametrize(
    ("basis", "layers", "message"),
    [
        (np.ones((2, 3), np.float32), (1,), "has the shape"),
        (np.ones((2, 3), np.float32), (3, 1), "out of order"),
        (np.zeros((2, 3), np.float32), (1, 3), "not all be 0"),
        (np.full((2, 3), 1.5, np.float32), (1, 3), "within ±1"),
        (np.full((2, 3), np.nan, np.float32), (1, 3), "within ±1"),
    ],
)
def test_a_steering_that_contradicts_itself_is_refused(basis, layers, message):
    with pytest.raises(InputError, match=message):
        a_steering(basis, layers)


def test_strength_is_linear_and_layers_are_the_models(tmp_path):
    steering = a_steering()
    assert np.array_equal(steering.at(2.0).bias, 2 * steering.basis)
    assert np.array_equal(steering.at(-2.0).bias, -steering.at(2.0).bias)
    only = steering.at(1.0, range(3, 5)).bias
    assert not only[0].any()
    assert np.array_equal(only[1], steering.basis[1])
    with pytest.raises(InputError, match="no steered expert is in the layers 4-9"):
        steering.at(1.0, range(4, 10))


def test_another_models_shape_is_refused_with_both_shapes():
    steering = a_steering()
    steering.require_fit((1, 3), 3, "same")
    for layers, experts in (((0, 1), 3), ((1, 3), 4), ((1, 3, 5), 3)):
        with pytest.raises(InputError, match=f"found with модель.*{experts} experts"):
            steering.require_fit(layers, experts, "other")
    elsewhere = replace(steering, source=replace(steering.source, layers=(0, 1)))
    assert elsewhere.steered_layers() == [0, 1]
