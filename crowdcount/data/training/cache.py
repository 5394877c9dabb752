"""Cache of decoded images, shared by all processes that cut crops from them."""

import logging
import mmap
import os
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8

from crowdcount.core.device import free_memory
from crowdcount.core.image import Sample
from crowdcount.data.training.batches import Samples
from crowdcount.errors import MemoryExhaustedError

log = logging.getLogger("crowdcount")

LARGEST_SHARE = 0.5
"""Largest share of the free memory or disk that ``auto`` takes."""

_PLACES = {"memory": "in memory", "disk": "on disk"}
_BYTES_PER_POINT = 16
_ALIGNMENT = 16


@dataclass(frozen=True, kw_only=True)
class Room:
    """Sizes of an image that determine its space in the cache."""

    name: str
    """Name of its sample."""

    width: int
    height: int
    heads: int


class SampleCache:
    """Samples in an unnamed file, which processes share by mapping it.

    The file vanishes with its last process, however that ends. A sample is valid once its mark is
    set, which is written last, so a sample cut short by a killed process is not used.
    """

    def __init__(self, rooms: Sequence[Room], *, directory: Path | None = None) -> None:
        """Allocate the file.

        Args:
            rooms: The images, in the order of their indices.
            directory: A folder on the disk for the file; None: in memory.

        Raises:
            OSError: If the disk has too little space.
        """
        size = size_of_cache(rooms)
        if directory is None:
            descriptor = os.memfd_create("crowdcount")
        else:
            with tempfile.TemporaryFile(dir=directory) as file:
                descriptor = os.dup(file.fileno())
        self._adopt(rooms, descriptor)
        os.ftruncate(descriptor, size)
        if directory is not None and hasattr(os, "posix_fallocate"):
            # A full disk raises an error now; later it would be a signal that ends the process.
            os.posix_fallocate(descriptor, 0, size)
        self._map()

    def __getstate__(self) -> dict[str, Any]:
        return {"rooms": self._rooms, "descriptor": DupFd(self._descriptor)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._adopt(state["rooms"], state["descriptor"].detach())
        self._map()

    def _adopt(self, rooms: Sequence[Room], descriptor: int) -> None:
        self._rooms = rooms
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor)

    def _map(self) -> None:
        """Map the whole file: a mark for each sample, followed by the samples."""
        self._starts = np.cumsum([_aligned(len(self._rooms)), *map(_bytes, self._rooms)])
        mapped = mmap.mmap(self._descriptor, int(self._starts[-1]))
        self._bytes: UInt8[np.ndarray, " bytes"] = np.frombuffer(mapped, dtype=np.uint8)

    def get(self, index: int) -> Sample | None:
        """Return the read-only sample at ``index``; None if it is not cached yet."""
        if not self._bytes[index]:
            return None
        image, points = self._views(index)
        for view in (image, points):
            view.flags.writeable = False
        return Sample(name=self._rooms[index].name, image=image, points=points)

    def put(self, index: int, sample: Sample) -> None:
        """Cache a sample, unless its size differs from the room's."""
        image, points = self._views(index)
        if (image.shape, points.shape) == (sample.image.shape, sample.points.shape):
            image[...] = sample.image
            points[...] = sample.points
            self._bytes[index] = 1

    def _views(
        self, index: int
    ) -> tuple[UInt8[np.ndarray, "height width 3"], Float64[np.ndarray, "heads 2"]]:
        room, start = self._rooms[index], int(self._starts[index])
        pixels = self._bytes[start : start + 3 * room.width * room.height]
        start += _aligned(pixels.size)
        points = self._bytes[start : start + _BYTES_PER_POINT * room.heads]
        return (
            pixels.reshape(room.height, room.width, 3),
            points.view(np.float64).reshape(room.heads, 2),
        )


class CachedSamples:
    """Samples that are read once each, and then taken from the cache."""

    def __init__(self, samples: Samples, cache: SampleCache) -> None:
        self._samples = samples
        self._cache = cache

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        cached = self._cache.get(index)
        if cached is not None:
            return cached
        sample = self._samples[index]
        self._cache.put(index, sample)
        return sample


def size_of_cache(rooms: Sequence[Room]) -> int:
    """Return the bytes of all images, decoded, with their points."""
    return _aligned(len(rooms)) + sum(map(_bytes, rooms))


def make_cache(rooms: Sequence[Room], *, kind: str, directory: Path) -> SampleCache | None:
    """Make the cache that the settings ask for, if any.

    Args:
        rooms: The images, in the order of their indices.
        kind: ``memory``, ``disk``, ``off``, or ``auto``: memory or else disk, if the images take at
            most ``LARGEST_SHARE`` of what is free there.
        directory: A folder on the disk.

    Raises:
        MemoryExhaustedError: If ``memory`` or ``disk`` has too little space.
    """
    if kind == "off":
        return None
    size = size_of_cache(rooms)
    left = {"memory": memory_left(), "disk": shutil.disk_usage(directory).free}
    if kind == "auto":
        fitting = [place for place in left if size <= LARGEST_SHARE * left[place]]
        if not fitting:
            log.info("decoded images take %s: too much for a cache", _mib(size))
            return None
        kind = fitting[0]
    if size > left[kind]:
        raise MemoryExhaustedError(
            f"train.cache: the decoded images take {_mib(size)} of {kind}, and {_mib(left[kind])} "
            "are free",
            next_step="--cache auto keeps them where they fit, --cache off decodes them every time",
        )
    log.info("decoded images take %s, kept %s", _mib(size), _PLACES[kind])
    return SampleCache(rooms, directory=directory if kind == "disk" else None)


def memory_left() -> int:
    """Return the free bytes of memory; zero where memory cannot be shared as a file."""
    return free_memory() if hasattr(os, "memfd_create") else 0


def _bytes(room: Room) -> int:
    return _aligned(3 * room.width * room.height) + _aligned(_BYTES_PER_POINT * room.heads)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
