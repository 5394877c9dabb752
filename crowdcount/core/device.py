"""Processors: the device to compute on, how many CPUs may be used."""

import os

import torch

from crowdcount.errors import ConfigError


def resolve_device(name: str) -> torch.device:
    """The device called ``name``; ``auto`` is the best there is: CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: If there is no such device here.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"device: cannot use {name!r}: {str(error).splitlines()[0]}",
            next_step="use auto, cpu, cuda, cuda:0 or mps, as this machine has it",
        ) from error
    return device


def usable_cpus() -> int:
    """Return the number of processors that this process may use."""
    # macOS and Windows have no such call.
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
