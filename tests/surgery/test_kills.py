"""kill -9 at any moment, then --resume: the bytes of a build that nobody killed."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tiny_models import tiny_qwen3_moe

from veche.core.files import write_json
from veche.planning.planner import make_plan
from veche.planning.recipe import Recipe

FIELDS = {"moe_intermediate_size": 512, "num_attention_heads": 6, "num_key_value_heads": 6}


def test_a_killed_build_resumes_to_the_same_bytes(tmp_path):
    from transformers import AutoModelForCausalLM

    whole = tiny_qwen3_moe(
        tmp_path / "whole", hidden_size=256, moe_intermediate_size=256, num_experts=16
    )
    source = tmp_path / "source"
    AutoModelForCausalLM.from_pretrained(whole).save_pretrained(source, max_shard_size="8MB")
    (source / "README.md").write_text("---\nlicense: mit\n---\nA source.\n")
    assert len(list(source.glob("*.safetensors"))) >= 4
    plan = make_plan(Recipe(name="t", base=str(source), fields=FIELDS, mode="split"))
    write_json(tmp_path / "plan.json", plan.as_dict())
    program = Path(__file__).with_name("killing.py")
    # Hundreds of builds flush their files: in memory, where there is such a disk, that is free.
    memory = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else tmp_path) as scratch:
        command = [sys.executable, program, source, tmp_path / "plan.json", scratch, "25"]
        done = subprocess.run(
            list(map(str, command)), capture_output=True, text=True, timeout=600, check=False
        )
    assert done.returncode == 0, done.stderr[-2000:]
    seen = json.loads(done.stdout)
    assert seen["timed"] >= 25
    assert seen["events"] >= 40
