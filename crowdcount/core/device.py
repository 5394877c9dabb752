"""Device, processors and memory allocator of this machine. Loads without torch."""

import contextlib
import ctypes
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from crowdcount.errors import ConfigError

if TYPE_CHECKING:
    import torch

CONTROL_GROUP = Path("/sys/fs/cgroup")
"""The folder in which Linux states the limits of a container."""

SHARED_MEMORY = Path("/dev/shm")
"""The folder through which processes hand tensors to each other on Linux."""

# Numbers of glibc's parameters: man 3 mallopt.
_TRIM_THRESHOLD = -1
_MMAP_MAX = -4
_NEVER = 2**31 - 1


def resolve_device(name: str) -> "torch.device":
    """Return the device called ``name``; ``auto`` chooses CUDA, else MPS, else the CPU.

    Raises:
        ConfigError: If this machine has no such device.
    """
    import torch

    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        # PyTorch goes on with every device it knows.
        reason = str(error).splitlines()[0].partition(". ")[0]
        raise ConfigError(
            f"device: cannot use {name!r}: {reason}",
            next_step="use auto, cpu, cuda, cuda:0 or mps, as this machine has it",
        ) from error
    return device


def usable_cpus() -> int:
    """Return the number of processors that this process may use."""
    # macOS and Windows have no such call.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_memory() -> int:
    """Return the free bytes of memory of the machine, or of the container if it has fewer."""
    import psutil  # takes a while, and every command imports this module

    left: int = psutil.virtual_memory().available
    # Version 2 of control groups; "max" means no limit, and is not a number.
    with contextlib.suppress(OSError, ValueError):
        limit, used = (
            int((CONTROL_GROUP / f"memory.{name}").read_text()) for name in ("max", "current")
        )
        left = min(left, limit - used)
    return max(left, 0)


def shared_memory() -> str:
    """Describe the shared memory of Linux, which containers often limit to 64 MiB."""
    if not SHARED_MEMORY.is_dir():
        return "no /dev/shm"
    return f"{SHARED_MEMORY} of {shutil.disk_usage(SHARED_MEMORY).total / 2**20:,.0f} MiB"


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory, because the next feature maps are as large as the last ones.

    By default glibc returns large blocks to the kernel after every operation of a network and
    requests them again for the next, page by page, which takes as long as the arithmetic. Now the
    process holds its peak memory until it ends, so only commands call this, never the library.

    Returns:
        Whether the allocator of this platform accepted it.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_MMAP_MAX, 0)) and bool(mallopt(_TRIM_THRESHOLD, _NEVER))
