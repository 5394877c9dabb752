"""Examining this installation: versions, processor, memory, caches and extras, and their faults."""

import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

from packaging.requirements import Requirement

from crowdcount.core.device import SHARED_MEMORY, free_memory, resolve_device, usable_cpus
from crowdcount.errors import CrowdCountError
from crowdcount.version import __version__

DISTRIBUTION = "crowdcount-ebc"

EXTRAS: Mapping[str, str] = MappingProxyType(
    {
        "heif": "reads HEIF photographs, as telephones write them",
        "mat73": "reads annotations in MATLAB files of version 7.3",
        "siglip": "makes the text features of SigLIP's models",
        "tensorboard": "writes the curves of a training run for TensorBoard",
    }
)
"""Optional parts of the installation and what each adds."""

INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")
"""Flags of Linux for instructions that make a network fast on x86-64 and on ARM."""

SMALLEST_FREE_MEMORY = 2 * 2**30
"""``crowdcount predict docs/street.jpg`` takes 1.1 GiB, and a training run more."""

SMALLEST_SHARED_MEMORY = 256 * 2**20
"""Batches of the default size that four workers prepare ahead."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One fact of the installation."""

    name: str
    value: str
    problem: str | None = None
    """What is wrong; None: nothing."""

    next_step: str | None = None
    """How to mend it."""


def examine() -> list[Finding]:
    """Return the facts of this installation, each with what is wrong with it."""
    return [
        Finding(name="crowdcount", value=__version__),
        Finding(name="python", value=platform.python_version()),
        Finding(name="system", value=f"{platform.system()} {platform.machine()}"),
        *_packages(),
        _opencv(),
        *_processor(),
        _device(),
        *_memory(),
        *_caches(),
        *_extras(),
    ]


def _packages() -> Iterator[Finding]:
    """Yield each package that crowdcount needs, by the requirements of its own metadata."""
    for requirement in _requirements():
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = _version(requirement.name)
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            yield Finding(
                name=requirement.name,
                value=found or "missing",
                problem=f"{requirement} is needed",
                next_step=f"python -m pip install '{requirement}'",
            )
        else:
            yield Finding(name=requirement.name, value=found)


def _requirements() -> list[Requirement]:
    try:
        return list(map(Requirement, metadata.requires(DISTRIBUTION) or []))
    except metadata.PackageNotFoundError:  # it runs from its source, without an installation
        return []


def _version(distribution: str) -> str | None:
    # A headless OpenCV is as good.
    for name in (distribution, f"{distribution}-headless"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _opencv() -> Finding:
    try:
        from crowdcount.opencv import cv2
    except CrowdCountError as error:
        return Finding(
            name="OpenCV", value="broken", problem=error.message, next_step=error.next_step
        )
    return Finding(name="OpenCV", value=f"{cv2.__version__} loads")


def _processor() -> Iterator[Finding]:
    cpus = usable_cpus()
    yield Finding(name="processors", value=f"{cpus} of {os.cpu_count()}")
    yield Finding(name="instructions", value=" ".join(_instructions()) or "unknown")
    import torch

    threads = torch.get_num_threads()
    too_many = threads > cpus
    yield Finding(
        name="threads",
        value=str(threads),
        problem=f"more threads than the {cpus} processors slow each other" if too_many else None,
        next_step=f"export OMP_NUM_THREADS={cpus}" if too_many else None,
    )


def _instructions() -> list[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        import torch

        return [torch.backends.cpu.get_cpu_capability().lower()]
    flags = {
        flag
        for line in lines
        if line.startswith(("flags", "Features"))
        for flag in line.partition(":")[2].split()
    }
    return [name for name in INSTRUCTIONS if name in flags]


def _device() -> Finding:
    device = resolve_device("auto")
    driver = Path("/proc/driver/nvidia/version").exists() and device.type != "cuda"
    return Finding(
        name="device",
        value=str(device),
        problem="this PyTorch cannot use the NVIDIA GPU of this machine" if driver else None,
        next_step="install the PyTorch that fits the driver: https://pytorch.org/get-started"
        if driver
        else None,
    )


def _memory() -> Iterator[Finding]:
    free = free_memory()
    little = free < SMALLEST_FREE_MEMORY
    yield Finding(
        name="free memory",
        value=_gib(free),
        problem="the system may end a large count or a training run" if little else None,
        next_step="end other programs; crowdcount predict --scale 0.5 takes a quarter"
        if little
        else None,
    )
    if SHARED_MEMORY.is_dir():
        size = shutil.disk_usage(SHARED_MEMORY).total
        small = size < SMALLEST_SHARED_MEMORY
        yield Finding(
            name="shared memory",
            value=_gib(size),
            problem="training's workers hand their batches over in /dev/shm" if small else None,
            next_step="docker run --shm-size 1g, or --set train.workers=0" if small else None,
        )


def _caches() -> Iterator[Finding]:
    from huggingface_hub import constants
    from torch import hub

    caches = {"cache of the model hub": constants.HF_HUB_CACHE, "cache of weights": hub.get_dir()}
    for name, folder in caches.items():
        # What makes the folder is the nearest folder that exists.
        existing = next(path for path in (Path(folder), *Path(folder).parents) if path.exists())
        closed = not os.access(existing, os.W_OK | os.X_OK)
        variable = "HF_HOME" if "hub" in name else "TORCH_HOME"
        yield Finding(
            name=name,
            value=str(folder),
            problem=f"{existing} cannot be written to" if closed else None,
            next_step=f"export {variable}=FOLDER" if closed else None,
        )


def _extras() -> Iterator[Finding]:
    for extra, gain in EXTRAS.items():
        needed = [
            requirement
            for requirement in _requirements()
            if requirement.marker is not None
            and requirement.marker.evaluate({"extra": extra})
            and not requirement.marker.evaluate({"extra": ""})
        ]
        installed = needed and all(_version(requirement.name) for requirement in needed)
        state = "installed" if installed else "not installed"
        yield Finding(name=f"extra {extra}", value=f"{state}: {gain}")


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
