"""Memory of training: an estimate, the peak, and advice when a step runs out of it."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil
import torch
from torch import Tensor, nn

from crowdcount.core.types import Batch
from crowdcount.errors import MemoryExhaustedError
from crowdcount.training.config import TrainConfig

_OUT_OF_MEMORY = ("DefaultCPUAllocator: can't allocate", "MPS backend out of memory")
"""Messages of allocators that raise a plain RuntimeError."""


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes that training is expected to hold at once, by their purpose."""

    weights: int
    """Parameters and buffers."""

    gradients: int
    optimiser: int
    """Two moments of every trained parameter."""

    average: int
    """The averaged weights, if they are kept."""

    activations: int
    """Tensors that the forward pass of one piece of a batch keeps for the backward pass."""

    @property
    def total(self) -> int:
        """The sum of all."""
        return sum((self.weights, self.gradients, self.optimiser, self.average, self.activations))


def estimate_memory(model: nn.Module, *, crop: int, train: TrainConfig) -> MemoryEstimate:
    """Estimate the memory of training without computing anything.

    Weights, gradients and moments are counted. Activations are those that a forward pass over one
    piece of a batch keeps, halved for half precision. The loss, the gradients of activations and
    the work space of libraries are not included.

    Args:
        model: Takes images in [0, 1]; moved to the meta device, so it loses its weights.
        crop: Side of the crops in pixels.
        train: Size of a batch and its pieces, precision and average.
    """
    model = model.to("meta").train()
    weights = _bytes([*model.parameters(), *model.buffers()])
    trained = _bytes([tensor for tensor in model.parameters() if tensor.requires_grad])
    at_once = -(-train.batch_size // train.accumulate)
    activations = _saved_bytes(model, torch.empty(at_once, 3, crop, crop, device="meta"))
    return MemoryEstimate(
        weights=weights,
        gradients=trained,
        optimiser=2 * trained,
        average=weights if train.ema_decay else 0,
        activations=activations if train.precision == "fp32" else activations // 2,
    )


def _bytes(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _saved_bytes(model: nn.Module, images: Tensor) -> int:
    """Return the bytes that a forward pass saves for the backward pass, besides its inputs."""
    inputs = {_storage(tensor) for tensor in [*model.parameters(), *model.buffers(), images]}
    saved: dict[int, int] = {}

    def save(tensor: Tensor) -> Tensor:
        # Views share their storage, and a tensor saved by two operations is stored once.
        if _storage(tensor) not in inputs:
            saved[_storage(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        # The graph lives until all is counted: the address of a freed storage may be used again.
        prediction = model(images)
    del prediction
    return sum(saved.values())


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def peak_memory(device: torch.device) -> int:
    """Return the most bytes in use at once so far: of the GPU, or else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows, which keeps the peak itself
        memory = psutil.Process().memory_info()
        return int(getattr(memory, "peak_wset", memory.rss))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


@contextmanager
def explained_memory(batch: Batch, *, step: int, train: TrainConfig) -> Iterator[None]:
    """Turn a failed allocation inside the block into a MemoryExhaustedError with advice."""
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
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return any(message in str(error) for message in _OUT_OF_MEMORY)


def _advice(train: TrainConfig, *, side: int) -> str:
    """Advise to halve the crops that go through the network at once."""
    at_once = -(-train.batch_size // train.accumulate)
    if at_once == 1:
        return f"smaller crops (--set train.crop={side // 2}) or a smaller backbone"
    half = at_once // 2
    pieces = -(-train.batch_size // half)
    return (
        f"--batch-size {half}, or --set train.accumulate={pieces}, "
        f"which keeps the batch at {train.batch_size} crops"
    )
