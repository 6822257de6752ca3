"""How much memory this process has needed at most."""

import resource
import sys


def peak_memory_bytes() -> int:
    """Return the highest resident memory of this process (macOS counts in bytes, Linux in KiB)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
