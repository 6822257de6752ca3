"""Every vLLM command line that veche emits goes through vLLM's own argument parser.

Opt-in: VECHE_VLLM_PYTHON names a Python with vLLM installed (`make contract` makes one).
"""

import json
import os
import subprocess

import pytest
from tests.launch.models import DENSE, MIXTRAL, STOCK, WANTED

from veche.launch.profiles import profiles_for

PYTHON = os.environ.get("VECHE_VLLM_PYTHON")
PARSE = """
import json, sys
try:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
except ImportError:
    from vllm.entrypoints.openai.cli_args import make_arg_parser, validate_parsed_serve_args
try:
    from vllm.utils.argparse_utils import FlexibleArgumentParser
except ImportError:
    from vllm.utils import FlexibleArgumentParser
for line in sys.stdin:
    words = json.loads(line)
    parsed = make_arg_parser(FlexibleArgumentParser()).parse_args(words)
    validate_parsed_serve_args(parsed)
    print("PARSED", json.dumps([parsed.model_tag, parsed.max_model_len, parsed.hf_overrides]))
"""


@pytest.mark.skipif(not PYTHON, reason="VECHE_VLLM_PYTHON names no Python with vLLM")
def test_vllm_parses_every_command():
    commands = [
        profile.command
        for spec in (STOCK, WANTED, MIXTRAL, DENSE)
        for gpu, cards, nodes in (("rtx-pro-6000", 1, 1), ("h100", 4, 1), ("l40s", 6, 2))
        for features in ((), ("routing", "lora"))
        for profile in profiles_for(
            spec, gpu=gpu, num_gpus=cards, num_nodes=nodes, engines=["vllm"],
            features=features,
            quantizations=["bf16", "fp8", "fp8-tensor", "int8", "awq", "gptq", "nvfp4", "mxfp4"],
        )
    ]  # fmt: skip
    lines = "".join(json.dumps(list(command[2:])) + "\n" for command in commands)
    done = subprocess.run(
        [PYTHON, "-c", PARSE], input=lines, text=True, capture_output=True, check=False
    )
    parsed = [line for line in done.stdout.splitlines() if line.startswith("PARSED")]
    assert len(parsed) == len(commands), done.stderr[-3000:]
    for line, command in zip(parsed, commands, strict=True):
        model, length, _ = json.loads(line.removeprefix("PARSED "))
        assert model == command[2]
        assert str(length) == command[command.index("--max-model-len") + 1]
