"""How much memory training takes, and what to do when a step needs more than there is."""

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from crowdcount.core.types import Batch
from crowdcount.errors import MemoryExhaustedError
from crowdcount.training.config import TrainConfig

_SIGNS = ("DefaultCPUAllocator: can't allocate", "MPS backend out of memory")
"""How allocators that raise no error of their own kind say it."""


def peak_memory(device: torch.device) -> int:
    """The most bytes in use at once since the process began: of the GPU, or else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


@contextmanager
def explained_memory(batch: Batch, *, step: int, train: TrainConfig) -> Iterator[None]:
    """Turn an allocation that failed in a step into advice on what to change.

    Raises:
        MemoryExhaustedError: If memory ran out in the block.
    """
    try:
        yield
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        images, _, height, width = batch.images.shape
        pieces = "" if train.accumulate == 1 else f" in {train.accumulate} pieces"
        raise MemoryExhaustedError(
            f"out of memory at step {step}: {images} crops of {width}x{height} pixels{pieces}",
            looked_for=str(error).strip().splitlines()[0],
            next_step=_advice(train, side=min(height, width)),
        ) from error


def _is_out_of_memory(error: RuntimeError) -> bool:
    is_of_cuda = isinstance(error, torch.OutOfMemoryError)
    return is_of_cuda or any(sign in str(error) for sign in _SIGNS)


def _advice(train: TrainConfig, *, side: int) -> str:
    """Half of what went through the network at once: as a batch, or in pieces."""
    at_once = -(-train.batch_size // train.accumulate)
    if at_once == 1:
        return f"smaller crops (--set train.crop={side // 2}) or a smaller backbone"
    half = at_once // 2
    pieces = -(-train.batch_size // half)
    return (
        f"--batch-size {half}, or --set train.accumulate={pieces}, "
        f"which keeps the batch at {train.batch_size} crops"
    )
