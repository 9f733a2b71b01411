"""Keep freed memory in the process: on a CPU, training asks for the same large blocks at every step."""

import ctypes

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # names of these settings in glibc's malloc.h


def keep_freed_memory() -> bool:
    """Tell glibc not to hand freed blocks back to the system, only to ask for them again.

    Without it a training step on a CPU takes 1.4 times as long (benchmarks/step.py). The
    process keeps its peak memory until it ends. Returns False where the C library is another one.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, 1 << 25) and mallopt(_TRIM_THRESHOLD, (1 << 31) - 1))
