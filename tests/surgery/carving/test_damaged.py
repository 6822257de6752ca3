"""A dense model whose weights or tokenizer are damaged is refused in one sentence."""

import pytest
from safetensors.torch import load_file, save_file
from tiny_models import tiny_llama

from veche.cli.main import main


@pytest.mark.parametrize("what", ["weights", "tokenizer"])
def test_a_damaged_source(tmp_path, capsys, what):
    source = tiny_llama(tmp_path / "source", num_hidden_layers=1)
    if what == "weights":
        (shard,) = source.glob("*.safetensors")
        tensors = load_file(shard)
        tensors["model.layers.0.mlp.up_proj.weight"][0] = float("nan")
        save_file(tensors, shard, {"format": "pt"})
    else:
        (source / "tokenizer.json").write_text("{}")
    out = tmp_path / "out"
    arguments = ["carve", source, "--out", out, "--experts", 3, "--tokens", 256]
    assert main(list(map(str, arguments))) == 2
    assert "error: " in capsys.readouterr().err
    assert not out.exists()
