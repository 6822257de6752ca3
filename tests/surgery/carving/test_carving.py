import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_llama, tiny_mixtral, tiny_qwen3_moe

from veche.checkpoint.reader import open_checkpoint, read_tensor
from veche.core.errors import (
    CheckpointError,
    InputError,
    OutputError,
    RecipeError,
    UnsupportedError,
    VerificationError,
)
from veche.surgery.carving import carve as carving
from veche.surgery.carving import check as carving_check
from veche.surgery.carving import files as carving_files
from veche.surgery.carving.calibration import calibration_text, heldout_text
from veche.surgery.carving.carve import CarveSettings, carve
from veche.surgery.loading import load_model

SETTINGS = CarveSettings(num_experts=8, calibration_tokens=512, check_tokens=64)


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    return tiny_llama(tmp_path_factory.mktemp("dense"), intermediate_size=64)


@pytest.fixture(scope="module")
def carved(dense, tmp_path_factory):
    target = tmp_path_factory.mktemp("carved") / "model"
    return target, _carve(dense, target)


@pytest.fixture
def copy(dense, tmp_path):
    return shutil.copytree(dense, tmp_path / "copy")


def _carve(source, target, settings=SETTINGS):
    return carve(source, target, settings, text=calibration_text()[:4000])


def _edit_config(folder, **changes):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _logits(folder, **changes):
    tokens = torch.arange(40)[None] * 7 % 384
    with torch.no_grad():
        return load_model(folder, changes=changes, dtype=torch.float32)(tokens).logits


def test_with_every_expert_the_carved_model_is_the_dense_one(dense, carved):
    expected, got = _logits(dense), _logits(carved[0])
    assert float((expected - got).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_the_report_says_what_was_measured(carved):
    report = carved[1]
    assert report.equality.max_abs_logit_diff <= 1e-5 * report.equality.logit_scale
    assert report.equality.kl < 1e-8
    assert report.calibration_tokens == 512
    assert len(report.kept_energy) == len(report.hit_rate) == 3
    assert all(0.75 < share <= 1 for share in report.kept_energy)
    assert json.loads(json.dumps(report.as_dict()))["settings"]["num_experts"] == 8


def test_every_hidden_unit_is_in_exactly_one_expert(dense, carved):
    before, after = open_checkpoint(dense).tensors, open_checkpoint(carved[0]).tensors
    for layer in range(3):
        block = f"model.layers.{layer}.block_sparse_moe.experts"
        experts = [read_tensor(after[f"{block}.{expert}.w1.weight"]) for expert in range(8)]
        rows = [row.tobytes() for expert in experts for row in expert]
        dense_rows = read_tensor(before[f"model.layers.{layer}.mlp.gate_proj.weight"])
        assert sorted(rows) == sorted(row.tobytes() for row in dense_rows)


def test_an_expert_is_its_units_of_the_dense_layer(dense, carved):
    """Slow reference: kept experts, added up one by one, with equal weights."""
    mlp = load_model(dense, dtype=torch.float32).model.layers[1].mlp
    block = load_model(carved[0], changes={"num_experts_per_tok": 5}, dtype=torch.float32)
    block = block.model.layers[1].mlp
    tensors = open_checkpoint(carved[0]).tensors
    inputs_NH = torch.randn(6, 32, generator=torch.Generator().manual_seed(0))
    prefix = "model.layers.1.block_sparse_moe"
    dense_gate = {row.numpy().tobytes(): i for i, row in enumerate(mlp.gate_proj.weight.detach())}
    with torch.no_grad():
        got_NH = block(inputs_NH[None])[0]
        chosen_NK = block.gate(inputs_NH)[2].tolist()
        for token, input_H in enumerate(inputs_NH):
            expected_H = torch.zeros(32)
            for expert in chosen_NK[token]:
                for row in read_tensor(tensors[f"{prefix}.experts.{expert}.w1.weight"]):
                    unit = dense_gate[row.tobytes()]
                    gate = mlp.gate_proj.weight[unit] @ input_H
                    up = mlp.up_proj.weight[unit] @ input_H
                    down_H = mlp.down_proj.weight[:, unit]
                    expected_H += torch.nn.functional.silu(gate) * up * down_H * 8 / 5
            torch.testing.assert_close(got_NH[token], expected_H, rtol=1e-4, atol=1e-4)


def test_the_config_speaks_mixtral_in_both_spellings_of_rope(carved):
    config = json.loads((carved[0] / "config.json").read_text())
    assert config["architectures"] == ["MixtralForCausalLM"]
    assert config["model_type"] == "mixtral"
    assert (config["num_local_experts"], config["num_experts_per_tok"]) == (8, 8)
    assert (config["intermediate_size"], config["head_dim"]) == (8, 8)
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
    assert config["sliding_window"] is None
    assert config["veche"]["carved"]["equal_routing_weights"] is True
    assert "mlp_bias" not in config
    assert open_checkpoint(carved[0]).spec.has_equal_routing_weights


def test_a_scaled_rope_keeps_its_scaling(copy, tmp_path):
    rope = {"rope_type": "linear", "factor": 2.0, "rope_theta": 5000.0}
    _edit_config(copy, rope_parameters=rope)
    _carve(copy, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["rope_parameters"] == rope
    assert config["rope_scaling"] == {"rope_type": "linear", "factor": 2.0}
    expected, got = _logits(copy), _logits(tmp_path / "out")
    assert float((expected - got).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_companions_come_along(copy, tmp_path):
    (copy / "LICENSE").write_text("free")
    _carve(copy, tmp_path / "out")
    assert (tmp_path / "out" / "LICENSE").read_text() == "free"
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (copy / name).read_bytes()


def test_the_same_seed_gives_the_same_bytes(dense, carved, tmp_path):
    _carve(dense, tmp_path / "again")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (carved[0] / name).read_bytes()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_k_below_all_experts_scales_down_and_still_proves_equality(copy, tmp_path, dtype):
    load_model(copy, dtype=dtype).save_pretrained(copy)
    settings = CarveSettings(
        num_experts=8, num_experts_per_tok=3, calibration_tokens=512, check_tokens=64
    )
    report = _carve(copy, tmp_path / "out", settings)
    assert report.equality.max_abs_logit_diff <= 1e-5 * report.equality.logit_scale
    assert json.loads((tmp_path / "out" / "config.json").read_text())["num_experts_per_tok"] == 3
    before, after = open_checkpoint(copy).tensors, open_checkpoint(tmp_path / "out").tensors
    assert {info.dtype for info in after.values()} == {info.dtype for info in before.values()}


def test_a_large_model_is_cut_into_shards(dense, tmp_path, monkeypatch):
    monkeypatch.setattr(carving_files, "_MAX_SHARD_BYTES", 50_000)
    _carve(dense, tmp_path / "out")
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 1
    expected, got = _logits(dense), _logits(tmp_path / "out")
    assert float((expected - got).abs().max()) <= 1e-5 * float(expected.abs().max())


def test_a_router_of_its_own_beats_a_random_one(dense, carved, tmp_path):
    from safetensors.torch import load_file, save_file

    shutil.copytree(carved[0], tmp_path / "random")
    file = tmp_path / "random" / "model.safetensors"
    tensors = load_file(file)
    random = torch.Generator().manual_seed(0)
    for name in tensors:
        if name.endswith("gate.weight"):
            tensors[name] = torch.randn(tensors[name].shape, generator=random) * 1e-6
    save_file(tensors, file, metadata={"format": "pt"})
    exact = _logits(dense)

    def distance(folder):
        got = _logits(folder, num_experts_per_tok=7)
        return float((exact - got).square().mean())

    assert distance(carved[0]) < distance(tmp_path / "random")


def test_calibration_and_heldout_texts_share_nothing():
    assert len(calibration_text()) > 100_000 < len(heldout_text())
    assert heldout_text()[:200] not in calibration_text()


class TestRefusals:
    def test_a_missing_source(self, tmp_path):
        with pytest.raises(CheckpointError, match="not a folder"):
            carve(tmp_path / "none", tmp_path / "out", SETTINGS)

    def test_a_pickle_checkpoint(self, copy, tmp_path):
        (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
        with pytest.raises(CheckpointError, match="pickle"):
            _carve(copy, tmp_path / "out")

    @pytest.mark.parametrize("make", [tiny_mixtral, tiny_qwen3_moe])
    def test_a_model_that_is_not_a_dense_llama(self, tmp_path, make):
        source = make(tmp_path / "moe")
        with pytest.raises(UnsupportedError, match=r"mixtral|qwen3_moe") as caught:
            carve(source, tmp_path / "out", SETTINGS)
        assert "llama" in caught.value.hint

    @pytest.mark.parametrize("bias", ["attention_bias", "mlp_bias"])
    def test_biases(self, copy, tmp_path, bias):
        _edit_config(copy, **{bias: True})
        with pytest.raises(InputError, match="bias"):
            _carve(copy, tmp_path / "out")

    def test_float16(self, copy, tmp_path):
        load_model(copy, dtype=torch.float16).save_pretrained(copy)
        with pytest.raises(UnsupportedError, match="float16"):
            _carve(copy, tmp_path / "out")

    @pytest.mark.parametrize("num_experts", [0, 5, 16])
    def test_a_number_of_experts_that_does_not_divide(self, dense, tmp_path, num_experts):
        with pytest.raises(RecipeError, match="64 hidden units") as caught:
            carve(dense, tmp_path / "out", CarveSettings(num_experts=num_experts))
        assert "8" in caught.value.hint or "1" in caught.value.hint

    def test_more_experts_per_token_than_experts(self, dense, tmp_path):
        settings = CarveSettings(num_experts=8, num_experts_per_tok=9)
        with pytest.raises(RecipeError, match="9 experts per token"):
            carve(dense, tmp_path / "out", settings)

    def test_a_short_text(self, dense, tmp_path):
        with pytest.raises(InputError, match="too few"):
            carve(dense, tmp_path / "out", SETTINGS, text="too short")

    def test_a_target_with_something_in_it(self, dense, tmp_path):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(OutputError, match="not empty"):
            carve(dense, tmp_path, SETTINGS)
        assert (tmp_path / "file").read_text() == "mine"


class TestFailures:
    def test_a_wrong_result_is_refused_and_nothing_is_left(self, dense, tmp_path, monkeypatch):
        monkeypatch.setattr(carving_check, "TOLERANCE", -1.0)
        with pytest.raises(VerificationError, match="differ"):
            _carve(dense, tmp_path / "out")
        assert list(tmp_path.iterdir()) == []

    def test_an_interruption_leaves_nothing(self, dense, tmp_path, monkeypatch):
        def interrupt(*args, **kwargs):
            raise KeyboardInterrupt

        monkeypatch.setattr(carving, "check_equality", interrupt)
        with pytest.raises(KeyboardInterrupt):
            _carve(dense, tmp_path / "out")
        assert list(tmp_path.iterdir()) == []


class TestWorkshop:
    """What lies in the way of the work is kept: it may be somebody's."""

    def test_a_folder_of_somebody_elses(self, dense, tmp_path):
        (tmp_path / "out.partial").mkdir()
        (tmp_path / "out.partial" / "thesis.txt").write_text("mine")
        with pytest.raises(OutputError, match=r"thesis\.txt"):
            _carve(dense, tmp_path / "out")
        assert (tmp_path / "out.partial" / "thesis.txt").read_text() == "mine"
        assert not (tmp_path / "out").exists()

    def test_an_interrupted_build_of_something_else(self, dense, tmp_path):
        (tmp_path / "out.partial").mkdir()
        (tmp_path / "out.partial" / ".veche_journal.json").write_text('{"key": "a build"}')
        (tmp_path / "out.partial" / "model-00001-of-00002.safetensors").write_text("work")
        with pytest.raises(OutputError, match="begun with another"):
            _carve(dense, tmp_path / "out")
        assert len(list((tmp_path / "out.partial").glob("model*"))) == 1

    @pytest.mark.parametrize(
        "where",
        [
            "veche.surgery.carving.carve.write_carved",
            "veche.surgery.carving.carve.check_equality",
            "veche.surgery.workshop._clear",
        ],
    )
    def test_a_kill_leaves_no_model_and_the_same_command_ends_as_if_uninterrupted(
        self, dense, carved, tmp_path, where
    ):
        """Killed before the files, after them, and after the last rename."""
        script = (
            "import os, signal, sys\n"
            "from pathlib import Path\n"
            "from unittest import mock\n"
            "import test_carving as t\n"
            "kill = lambda *args, **kwargs: os.kill(os.getpid(), signal.SIGKILL)\n"
            f"with mock.patch({where!r}, kill):\n"
            "    t._carve(Path(sys.argv[1]), Path(sys.argv[2]))\n"
        )
        target = tmp_path / "out"
        paths = [str(Path(__file__).parent), str(Path(__file__).parents[2]), *sys.path]
        killed = subprocess.run(
            [sys.executable, "-c", script, dense, target],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            check=False,
        )
        assert killed.returncode == -signal.SIGKILL
        if where.endswith("_clear"):
            with pytest.raises(OutputError, match="not empty"):
                _carve(dense, target)
        else:
            assert not target.exists()
            _carve(dense, target)
        assert _bytes_in(target) == _bytes_in(carved[0])
        assert [path.name for path in tmp_path.iterdir()] == ["out"]


def _bytes_in(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}
