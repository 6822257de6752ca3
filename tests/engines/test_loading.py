"""What can't be loaded is refused with a reason."""

import json
import shutil

import pytest
import torch
from tests import tiny_models

from veche.core.errors import (
    CheckpointError,
    ConfigError,
    InputError,
    MissingExtraError,
    UnsupportedError,
)
from veche.engines import transformers as factory
from veche.engines.protocol import Branch, Sampling
from veche.engines.transformers import create


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture
def copy(moe_folder, tmp_path):
    return shutil.copytree(moe_folder, tmp_path / "copy")


def test_the_checkpoints_own_dtype_is_the_default(tmp_path):
    folder = tiny_models.tiny_mixtral(tmp_path, dtype=torch.bfloat16)
    edit_config(folder, dtype="bfloat16")
    assert create(folder)._model.dtype == torch.bfloat16
    assert create(folder, dtype="float32")._model.dtype == torch.float32


@pytest.mark.parametrize("make", [tiny_models.tiny_mixtral, tiny_models.tiny_qwen3_moe])
def test_top_k_changes_how_many_experts_answer(tmp_path, make):
    folder = make(tmp_path)
    tokens = {}
    for top_k in (None, 1, 8):
        engine = create(folder, dtype="float32", top_k=top_k)
        trunk = engine.open_trunk(system="a", user="b")
        branch = Branch(voice="v", instruction="c", sampling=Sampling(max_new_tokens=4))
        result = engine.decode(trunk, [branch])[0]
        assert result.routing.expert_ids.shape == (3, 3, top_k or 3)
        tokens[top_k] = result.entropies
    assert len(set(tokens.values())) == 3


def test_the_fast_experts_implementation_is_the_default(moe_engine):
    assert moe_engine._model.config._experts_implementation == "veche_at_once"


@pytest.mark.parametrize("top_k", [0, 9])
def test_an_impossible_top_k_names_the_range(moe_folder, top_k):
    with pytest.raises(InputError, match=r"not in 1\.\.8"):
        create(moe_folder, top_k=top_k)


def test_top_k_of_a_dense_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="llama has no experts"):
        create(tiny_models.tiny_llama(tmp_path), top_k=2)


def test_an_unknown_dtype_or_device_is_refused(moe_folder):
    with pytest.raises(InputError, match="dtype 'int3' is unknown"):
        create(moe_folder, dtype="int3")
    with pytest.raises(InputError, match="device 'abacus' can't be used"):
        create(moe_folder, device="abacus")


def test_a_missing_folder_or_config_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        create(tmp_path / "nothing")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigError, match="not valid JSON"):
        create(tmp_path)


def test_pickled_weights_are_not_read(copy):
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(CheckpointError, match="pickle files"):
        create(copy)


def test_truncated_weights_are_refused(copy):
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="is truncated"):
        create(copy)


def test_weights_that_are_not_there_are_not_made_up(copy):
    edit_config(copy, num_hidden_layers=4)
    with pytest.raises(CheckpointError, match=r"\d+ missing keys"):
        create(copy)


def test_weights_of_another_shape_are_refused(copy):
    edit_config(copy, num_key_value_heads=4)
    with pytest.raises(CheckpointError, match="can't be loaded"):
        create(copy)


def test_an_unknown_architecture_is_refused(copy):
    edit_config(copy, model_type="nonesuch")
    with pytest.raises(CheckpointError, match="can't be loaded"):
        create(copy)


def test_windowed_attention_is_refused(tmp_path):
    folder = tiny_models.tiny_mixtral(tmp_path, sliding_window=64)
    with pytest.raises(UnsupportedError, match="sliding_attention"):
        create(folder)


def test_a_missing_package_names_its_install_line(moe_folder, monkeypatch):
    monkeypatch.setattr(factory, "find_spec", lambda name: None if name == "torch" else object())
    with pytest.raises(MissingExtraError, match="'torch'") as caught:
        create(moe_folder)
    assert caught.value.hint == "pip install 'veche[model]'"
