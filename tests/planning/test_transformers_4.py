"""The config.json that a plan writes loads in transformers 4 as well, and says the same there.

Opt-in: VECHE_TRANSFORMERS_4 names Pythons with transformers 4 (`make contract` makes them).
"""

import json
import os
import subprocess

import pytest

from veche.checkpoint.config import spec_of
from veche.planning.plan_files import write_plan
from veche.planning.planner import make_plan
from veche.planning.recipe import Recipe, load_recipe, with_choices

PYTHONS = [path for path in os.environ.get("VECHE_TRANSFORMERS_4", "").split(":") if path]
LOAD = """
import json, sys
from transformers import AutoConfig, __version__
loaded = AutoConfig.from_pretrained(sys.argv[1])
assert __version__.startswith("4."), __version__
print(json.dumps({**loaded.to_dict(), "head_dim": loaded.head_dim}))
"""
YARN = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32768}
GROWN = {"num_attention_heads": 48, "rope_scaling": YARN}
PLANS = {
    "agi": with_choices(load_recipe("agi"), {"rope_length": "extend"}),
    "agi-fits": load_recipe("agi-fits"),
    "mixtral": Recipe(
        name="m", base="mixtral-8x7b", allow_lossy=True, rope_length="extend", fields=GROWN
    ),
}


@pytest.mark.skipif(not PYTHONS, reason="VECHE_TRANSFORMERS_4 names no Python")
@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("name", PLANS)
def test_the_written_config_says_the_same_to_transformers_4(name, python, tmp_path):
    plan = make_plan(PLANS[name])
    write_plan(plan, tmp_path / "made", "en")
    done = subprocess.run(
        [python, "-c", LOAD, tmp_path / "made"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert spec_of(json.loads(done.stdout.splitlines()[-1])) == plan.target_spec
