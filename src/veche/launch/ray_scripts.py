"""Emit the scripts that join several machines with Ray for vLLM."""

from veche.core.language import Language
from veche.launch.phrases import phrase
from veche.launch.profile import Profile
from veche.launch.shell_script import comment_lines, shell_script

RAY_PORT = 6379


def ray_scripts(profile: Profile, language: Language = "en") -> dict[str, str]:
    """Return scripts by file name: for the first machine, and for each of the others."""
    cards = profile.num_gpus // profile.num_nodes
    start = [
        *comment_lines([_place(profile, language)]),
        f"ray status >/dev/null 2>&1 || ray start --head --port={RAY_PORT} --num-gpus={cards}",
        *_wait_for(profile.num_gpus),
    ]
    worker = [
        "#!/usr/bin/env bash",
        *comment_lines([phrase("ray_worker", language)]),
        "set -euo pipefail",
        'head=${1:?"usage: ray-worker.sh HEAD_ADDRESS"}',
        f'exec ray start --address="$head:{RAY_PORT}" --num-gpus={cards} --block',
        "",
    ]
    return {
        "ray-head.sh": shell_script(profile, language, before=start),
        "ray-worker.sh": "\n".join(worker),
    }


def _place(profile: Profile, language: Language) -> str:
    model, nodes = profile.case.model_path, profile.num_nodes
    return phrase("ray_head", language, nodes=nodes, model=model)


def _wait_for(num_gpus: int) -> list[str]:
    """Wait until all machines have joined; vLLM would refuse to start before."""
    count = "import ray; ray.init(address='auto', logging_level='ERROR'); "
    count += "print(int(ray.cluster_resources().get('GPU', 0)))"
    return [
        f'until [ "$(python -c "{count}")" -ge {num_gpus} ]; do',
        "  sleep 5",
        "done",
    ]
