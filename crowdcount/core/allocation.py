"""What the process does with memory that it no longer needs."""

import ctypes
import sys

# Numbers of glibc's parameters: man 3 mallopt.
_TRIM_THRESHOLD = -1
_MMAP_MAX = -4
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed, for the next maps of features are as large as the last ones.

    Left to itself it hands large blocks back to the kernel after every operation of a network and
    asks for them again at the next, page by page, which takes as long as the arithmetic. The
    process then holds until it ends what it once needed, so this is for a process of one's own.

    Returns:
        Whether this platform's allocator could be told.
    """
    if sys.platform != "linux":
        return False
    tell = getattr(ctypes.CDLL(None), "mallopt", None)
    if tell is None:
        return False
    return bool(tell(_MMAP_MAX, 0)) and bool(tell(_TRIM_THRESHOLD, _NEVER))
