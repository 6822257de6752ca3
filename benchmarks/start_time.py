"""How long does a command take that needs no model? Wall time against Python's own start.

Usage: python benchmarks/start_time.py [--runs 9]

Peers, in the same run: `python -c pass` (the limit) and `python -c "import torch"` (what a command
that loads torch could never beat). Every command runs in its own process, in turn.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

VECHE = str(Path(sys.executable).with_name("veche"))
COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "python -c 'import torch'": [sys.executable, "-c", "import torch"],
    "veche --help": [VECHE, "--help"],
    "veche plan agi --json": [VECHE, "plan", "agi", "--json"],
    "veche launch agi --engine all --json": [VECHE, "launch", "agi", "--engine", "all", "--json"],
}


def seconds_of(command: list[str]) -> float:
    """Run a command once and return its wall time."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Run all commands in turn and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=9)
    runs = parser.parse_args().runs
    times: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(runs + 1):
        for name, command in COMMANDS.items():
            times[name].append(seconds_of(command))
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    limit = medians["python -c pass"]
    print(f"{'command':<40}{'median s':>10}{'min':>8}{'max':>8}{'x python':>10}")
    for name, median in medians.items():
        low, high = min(times[name][1:]), max(times[name][1:])
        print(f"{name:<40}{median:>10.3f}{low:>8.3f}{high:>8.3f}{median / limit:>10.1f}")


if __name__ == "__main__":
    main()
