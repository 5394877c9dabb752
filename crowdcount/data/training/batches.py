"""Training batches from prepared images: order, workers, collation."""

import os
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from multiprocessing.queues import Queue
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from crowdcount.core.device import shared_memory, usable_cpus
from crowdcount.core.image import Sample
from crowdcount.core.types import Batch, block_target
from crowdcount.data.training.augment import AugmentConfig, augment
from crowdcount.errors import WorkerEndedError
from crowdcount.opencv import cv2


@runtime_checkable
class Samples(Protocol):
    """A sequence of annotated images that are read on access."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


Key = tuple[int, int, int]
"""Key of a crop: (epoch, index of the image, number of the crop of this image)."""


class TrainingCrops(Dataset[Sample]):
    """Augmented crops, each determined by (seed, epoch, index, crop) alone."""

    def __init__(self, samples: Samples, *, size: int, config: AugmentConfig, seed: int) -> None:
        self.samples = samples
        self.size = size
        self.config = config
        self.seed = seed

    def __getitem__(self, key: Key) -> Sample:
        epoch, index, crop = key
        # The first crop of an image does not depend on the number of crops.
        rng = np.random.default_rng([self.seed, epoch, index, *([crop] if crop else [])])
        return augment(self.samples[index], size=self.size, config=self.config, rng=rng)


class _EpochOrder(Sampler[list[Key]]):
    """Batches of keys, with images shuffled in each epoch. The last batch may be smaller."""

    def __init__(self, images: int, *, batch_size: int, crops_per_image: int, seed: int) -> None:
        self.images = images
        self.crops_per_image = crops_per_image
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0
        self.skip = 0

    def __len__(self) -> int:
        return -(-self.images * self.crops_per_image // self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.images)
        crops = range(self.crops_per_image)
        keys = [(self.epoch, int(index), crop) for index in order for crop in crops]
        for start in range(self.skip * self.batch_size, len(keys), self.batch_size):
            yield keys[start : start + self.batch_size]


class TrainingBatches:
    """The batches of each epoch of a training run."""

    def __init__(
        self,
        samples: Samples,
        *,
        size: int,
        block: int,
        batch_size: int,
        config: AugmentConfig,
        seed: int,
        crops_per_image: int = 1,
        workers: int | None = None,
        pinned: bool = False,
    ) -> None:
        """Cut crops from ``samples``.

        Args:
            samples: The training images.
            size: Side of the square crops in pixels.
            block: Block side of the targets in pixels.
            batch_size: Crops in a batch; the last of an epoch may have fewer.
            config: Settings of the augmentation.
            seed: Seed of order and augmentation.
            crops_per_image: Consecutive crops of each image in an epoch.
            workers: Processes that prepare crops; None: one less than there are processors, at
                least one and at most four; 0: the calling process itself.
            pinned: Put batches into pinned memory, from which a GPU copies while it computes.
        """
        self._order = _EpochOrder(
            len(samples), batch_size=batch_size, crops_per_image=crops_per_image, seed=seed
        )
        if workers is None:
            workers = min(max(usable_cpus() - 1, 1), 4)
        self._loader = DataLoader(
            TrainingCrops(samples, size=size, config=config, seed=seed),
            batch_sampler=self._order,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=pinned,
            collate_fn=_Collate(block),
            worker_init_fn=_begin_worker,
            # The loader draws unused seeds for its workers; it must not draw them from the global
            # generator, which dropout uses.
            generator=torch.Generator(),
        )

    def __len__(self) -> int:
        return len(self._order)

    def epoch(self, number: int, *, skip: int = 0) -> Iterable[Batch]:
        """Return the batches of an epoch without the first ``skip``, which are not read."""
        self._order.epoch = number
        self._order.skip = skip
        return self._watched()

    def _watched(self) -> Iterator[Batch]:
        """Yield the batches of the loader; the end of a worker is an error of ours.

        PyTorch would also raise its error from a signal handler, in the middle of a step. Without
        that handler it looks every five seconds whether the workers live, while it waits for them.
        """
        before = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
        batches = iter(self._loader)
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, before)
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except (RuntimeError, ConnectionError, EOFError) as error:
                reason = str(error).partition("\n")[0]
                # Errors that a worker reports begin with "Caught".
                broken = isinstance(error, (ConnectionError, EOFError))
                if not reason.startswith("DataLoader worker") and (
                    not broken or reason.startswith("Caught")
                ):
                    raise
                raise WorkerEndedError(
                    f"a process that prepares batches ended: {reason or type(error).__name__}",
                    looked_for=f"{shared_memory()}; and memory, which the system may have run "
                    "out of",
                    next_step="run fewer (--set train.workers=1, or 0 for none), or give a "
                    "container more: docker run --shm-size 1g",
                ) from error
            yield batch


class FixedBatches:
    """The same crops in the same order in every epoch."""

    def __init__(self, crops: Sequence[Sample], *, block: int, batch_size: int) -> None:
        """Collate crops of one size in memory, for targets with blocks of ``block`` pixels."""
        starts = range(0, len(crops), batch_size)
        collate = _Collate(block)
        self._batches = [collate(crops[start : start + batch_size]) for start in starts]

    def __len__(self) -> int:
        return len(self._batches)

    def epoch(self, number: int, *, skip: int = 0) -> Iterable[Batch]:  # noqa: ARG002 - all alike
        """Return the batches of an epoch without the first ``skip``."""
        return self._batches[skip:]


class _Collate:
    """Collates samples of one size; a class, because workers must pickle it."""

    def __init__(self, block: int) -> None:
        self.block = block

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        height, width = samples[0].image.shape[:2]
        pixels = torch.from_numpy(np.stack([sample.image for sample in samples]))
        points = tuple(torch.from_numpy(sample.points) for sample in samples)
        return Batch(
            images=pixels.permute(0, 3, 1, 2).float().div_(255),
            target=block_target(points, height=height, width=width, block=self.block),
            names=tuple(sample.name for sample in samples),
        )


def _begin_worker(worker: int) -> None:  # noqa: ARG001 - the signature is torch's
    """Set up a worker process: no threads of OpenCV, and a process group of its own.

    Terminals, ``timeout`` and shells send a request to stop to the whole group of the main process.
    The main process follows the request, but needs its workers to finish the current step.
    """
    cv2.setNumThreads(0)
    # Called where a batch cannot be sent, as where /dev/shm is full. By default the worker would
    # live on without it, and the main process wait for ever.
    Queue._on_queue_feeder_error = staticmethod(_end_worker)  # type: ignore[attr-defined]
    if hasattr(os, "setpgid"):  # Windows has no process groups of this kind
        os.setpgid(0, 0)


def _end_worker(error: Exception, batch: Any) -> None:  # noqa: ARG001 - the signature is Python's
    os._exit(1)
