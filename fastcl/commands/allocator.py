"""The memory of a training step on the CPU, kept for the next step."""

import ctypes
import os
import sys

TRAINING = "pretrain", "finetune", "distill"
# Parameters of glibc's mallopt (mallopt(3)).
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
NEVER, LARGEST = -1, 2**31 - 1  # bytes


def keep_memory() -> bool:
    """Let glibc keep what is freed, in this process.

    By itself it returns large blocks to the system, which clears them page by page when the next
    step asks for them. Whoever has set up malloc by the environment is left alone.

    Returns:
        Whether it was done; there is no such call in other C libraries.
    """
    chosen = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if chosen or sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:
        return False
    return all(mallopt(*pair) for pair in ((TRIM_THRESHOLD, NEVER), (MMAP_THRESHOLD, LARGEST)))
