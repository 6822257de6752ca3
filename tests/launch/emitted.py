"""Every kind of command line that veche emits for an engine's version."""

from functools import cache

from tests.launch.models import DENSE, MIXTRAL, STOCK, WANTED

from veche.launch.profiles import profiles_for

CARDS = ("rtx-pro-6000", "h100", "l40s", "b200", "a100-80gb", "mi300x")
LAYOUTS = ((1, 1), (2, 1), (4, 1), (6, 1), (8, 1), (2, 2), (6, 2))
"""Cards in a machine, machines."""
FEATURES = ((), ("routing",), ("lora",), ("routing", "lora"))
QUANTIZATIONS = {
    "vllm": ("bf16", "fp8-block", "fp8-tensor", "int8", "awq", "gptq", "nvfp4", "mxfp4"),
    "sglang": ("bf16", "fp8-block", "fp8-tensor", "int8", "awq", "gptq", "nvfp4", "mxfp4"),
    "llama.cpp": ("Q8_0", "Q4_K_M"),
}
NUM_PROGRAM_WORDS = {"vllm": 2, "sglang": 3, "llama.cpp": 1}


@cache
def argument_lists(engine, version):
    """Return the arguments behind the program's words, each list once."""
    return sorted(
        {
            profile.command[NUM_PROGRAM_WORDS[engine] :]
            for spec in (STOCK, WANTED, MIXTRAL, DENSE)
            for gpu in CARDS
            for cards, machines in LAYOUTS
            for features in FEATURES
            for profile in profiles_for(
                spec, gpu=gpu, num_gpus=cards, num_nodes=machines, engines=[engine],
                features=features, quantizations=QUANTIZATIONS[engine],
                engine_versions={engine: version} if version else None,
            )
        }
    )  # fmt: skip


def value(words, flag):
    return words[words.index(flag) + 1]
