"""Arrays in a file: what was written is read, and what numpy can't read is one clear error."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from veche.core.errors import CheckpointError
from veche.roles.array_file import array_bytes, read_arrays


def read(path):
    return read_arrays(path, format="test-1", hint="make it again")


def test_what_was_written_is_read_whatever_its_layout(tmp_path):
    path = tmp_path / "a.safetensors"
    turned = np.arange(6.0).reshape(2, 3).T
    path.write_bytes(array_bytes({"turned": turned}, format="test-1"))
    np.testing.assert_array_equal(read(path)["turned"], turned)


def test_a_type_that_numpy_lacks_is_one_clear_error(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.zeros(2).to(torch.float8_e4m3fn)}, path, metadata={"format": "test-1"})
    with pytest.raises(CheckpointError, match=r"a\.safetensors is damaged"):
        read(path)


def test_another_format_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(array_bytes({}, format="other-1"))
    with pytest.raises(CheckpointError, match="is no test-1 of veche"):
        read(path)
