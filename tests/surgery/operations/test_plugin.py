"""An operation of another package: the one of docs/how-to/extend.md, installed and carried out."""

import re
from pathlib import Path

import pytest
import torch
from tiny_models import tiny_mixtral
from transformers import AutoModelForCausalLM

from veche.core.errors import RecipeError, UnsupportedError
from veche.planning.planner import make_plan
from veche.planning.recipe import Recipe
from veche.surgery.build import build

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "extend.md"


@pytest.fixture
def double_up(tmp_path, monkeypatch):
    """Install a package of the page's code."""
    (code,) = [
        block
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
        if "DOUBLE_UP" in block
    ]
    site = tmp_path / "site"
    info = site / "my_package-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "my_package.py").write_text(code)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[veche.operations]\ndouble_up = my_package:DOUBLE_UP\n")
    monkeypatch.syspath_prepend(site)


def logits_of(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        return model(input_ids=torch.arange(3, 83)[None]).logits


def test_an_operation_of_another_package_is_carried_out(double_up, tmp_path):
    source = tiny_mixtral(tmp_path / "source")
    recipe = Recipe(
        name="t", base=str(source), fields={"moe_intermediate_size": 32}, operations=("double_up",)
    )
    plan = make_plan(recipe)
    assert plan.operations == ("expert_width", "double_up")
    build(plan, source, tmp_path / "out")
    before, after = logits_of(source), logits_of(tmp_path / "out")
    assert (after - before).abs().max() <= 1e-5 * before.abs().max()
    import safetensors.numpy

    name = "model.layers.0.block_sparse_moe.experts.0.w3.weight"
    old, new = (
        safetensors.numpy.load_file(folder / "model.safetensors")[name]
        for folder in (source, tmp_path / "out")
    )
    assert (new[:24] == 2 * old).all()


def test_an_operation_that_nobody_brings_is_refused(tmp_path):
    source = tiny_mixtral(tmp_path / "source")
    with pytest.raises(UnsupportedError, match="no operation 'expert_widht'"):
        make_plan(Recipe(name="t", base=str(source), operations=("expert_widht",)))
    with pytest.raises(RecipeError, match="follows from the fields"):
        make_plan(Recipe(name="t", base=str(source), operations=("depth",)))
