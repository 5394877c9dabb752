"""Devices that this machine lacks, and memory that stays with the process if it was asked to."""

import os
import subprocess
import sys

import psutil
import pytest
import torch

from crowdcount.core import device
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


def test_free_memory_is_some_and_not_more_than_there_is():
    assert 0 < device.free_memory() <= psutil.virtual_memory().total


def test_the_smaller_limit_of_a_container_counts(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    monkeypatch.setattr(device, "CONTROL_GROUP", tmp_path)
    assert device.free_memory() == 600000
    (tmp_path / "memory.max").write_text("max\n")
    assert device.free_memory() > 600000
