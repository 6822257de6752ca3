"""What does `veche demo` take? Wall time and peak memory of each stage, then of a second run.

Usage: python benchmarks/demo_stages.py [folder]

The folder (default: a temporary one) gets its own VECHE_HOME, so that nothing is cached. The limits
stated in the project: 8 minutes, 5 GB, and 60 seconds for the second run.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VECHE = str(Path(sys.executable).with_name("veche"))
LIMIT_S, LIMIT_BYTES, LIMIT_AGAIN_S = 480, 5 * 10**9, 60


def run(folder: Path) -> tuple[float, list[dict[str, float]]]:
    """Run the demo in `folder`; return its wall time and its stages."""
    started = time.perf_counter()
    command = [VECHE, "demo", "--json", "--out", str(folder / "demo")]
    environment = {**os.environ, "VECHE_HOME": str(folder / "home")}
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    )
    return time.perf_counter() - started, json.loads(done.stdout)["stages"]


def measure(folder: Path) -> None:
    """Run twice and print."""
    first_s, stages = run(folder)
    for stage in stages:
        print(
            f"{stage['name']:<10}{stage['seconds']:>9.1f} s"
            f"{stage['peak_memory_bytes'] / 1e9:>8.2f} GB up to here"
        )
    peak = max(stage["peak_memory_bytes"] for stage in stages)
    print(f"{'first run':<10}{first_s:>9.1f} s{peak / 1e9:>8.2f} GB")
    print(f"of the limits: {first_s / LIMIT_S:.2f} of the time, {peak / LIMIT_BYTES:.2f} of the GB")
    again_s, stages = run(folder)
    skipped = sum(stage["was_skipped"] for stage in stages)
    print(f"{'second run':<10}{again_s:>9.1f} s, {skipped:.0f} of {len(stages)} stages kept")
    print(f"of the limit: {again_s / LIMIT_AGAIN_S:.2f}")


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", nargs="?", type=Path)
    folder = parser.parse_args().folder
    if folder is not None:
        measure(folder.resolve())
        return
    with tempfile.TemporaryDirectory() as scratch:
        measure(Path(scratch))


if __name__ == "__main__":
    main()
