"""How a process uses the machine it runs on: set before torch is loaded."""

import ctypes
import os
import sys


def settle() -> None:
    """Threads that wait for one another give their cores up soon, and memory that is freed is kept."""
    # As fast on a quiet machine, and on a busy one a step does not take ten times as long. Read when torch is loaded.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    _keep_memory()


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _keep_memory() -> None:
    """Tells glibc to keep what is freed: it would give large blocks back, and fault them in again at every step."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3  # their names in malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
        mallopt(mmap_threshold, 32 << 20)  # the most that it takes
        mallopt(trim_threshold, 1 << 30)
