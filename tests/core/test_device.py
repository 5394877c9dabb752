"""Devices that this machine lacks, and memory that stays with the process if it was asked to."""

import os
import subprocess
import sys

import pytest
import torch

from crowdcount.core.device import resolve_device
from crowdcount.errors import ConfigError

ROUNDS = """
import ctypes, resource, sys
from crowdcount.core.device import keep_freed_memory
if sys.argv[1] == "kept":
    assert keep_freed_memory()
heap = ctypes.CDLL(None)
heap.malloc.restype = heap.memset.restype = ctypes.c_void_p
def once(size=64 << 20):
    block = ctypes.c_void_p(heap.malloc(ctypes.c_size_t(size)))
    heap.memset(block, 1, ctypes.c_size_t(size))
    heap.free(block)
once()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    once()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_fetched(how: str) -> int:
    """Pages that the kernel hands out for five blocks of one size, after a first one."""
    # Variables that tune the allocator would do what is tested here.
    tuned = ("MALLOC_", "GLIBC_TUNABLES")
    untuned = {key: value for key, value in os.environ.items() if not key.startswith(tuned)}
    command = [sys.executable, "-c", ROUNDS, how]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=untuned)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_a_freed_block_is_not_fetched_again():
    assert pages_fetched("left") > 100 * max(pages_fetched("kept"), 1)


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine has MPS")
def test_a_device_that_is_not_there_is_refused_in_one_line():
    with pytest.raises(ConfigError, match="device: cannot use 'mps': ") as caught:
        resolve_device("mps")
    assert len(caught.value.message) < 200
    assert "\n" not in caught.value.message
