"""How much memory training takes, and what to do when a step needs more than there is."""

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

_SIGNS = ("DefaultCPUAllocator: can't allocate", "MPS backend out of memory")
"""How allocators that raise no error of their own kind say it."""


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes that training is expected to hold at once, by what they are for."""

    weights: int
    """Parameters and buffers."""

    gradients: int
    optimiser: int
    """Two moments of every parameter that is trained."""

    average: int
    """The averaged weights, where some are kept."""

    activations: int
    """What the network keeps of one piece of a batch for the way back."""

    @property
    def total(self) -> int:
        """All of it."""
        return sum((self.weights, self.gradients, self.optimiser, self.average, self.activations))


def estimate_memory(model: nn.Module, *, crop: int, train: TrainConfig) -> MemoryEstimate:
    """Work out what training needs, without doing any of it.

    Weights, gradients and moments are counted. Activations are those that a forward pass over one
    piece of a batch keeps, without computing anything; half of that where numbers have half the
    bytes. The loss, the gradients of activations and the work space of libraries are not in it.

    Args:
        model: Called with images in [0, 1]; of no use afterwards, for it has no weights any more.
        crop: Side of the crops in pixels.
        train: Size of a batch and its pieces, precision, and average.
    """
    model = model.to("meta").train()
    weights = _bytes([*model.parameters(), *model.buffers()])
    trained = _bytes([each for each in model.parameters() if each.requires_grad])
    at_once = -(-train.batch_size // train.accumulate)
    activations = _kept_bytes(model, torch.empty(at_once, 3, crop, crop, device="meta"))
    return MemoryEstimate(
        weights=weights,
        gradients=trained,
        optimiser=2 * trained,
        average=weights if train.ema_decay else 0,
        activations=activations if train.precision == "fp32" else activations // 2,
    )


def _bytes(tensors: list[Tensor]) -> int:
    return sum(each.numel() * each.element_size() for each in tensors)


def _kept_bytes(model: nn.Module, images: Tensor) -> int:
    """Bytes that a forward pass keeps for the way back, weights and images not counted."""
    own = {_storage(each) for each in [*model.parameters(), *model.buffers(), images]}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        # Views share their storage, and what two operations keep is there once.
        if _storage(tensor) not in own:
            kept[_storage(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        # Held until all is counted: a storage that is freed leaves its number to another.
        prediction = model(images)
    del prediction
    return sum(kept.values())


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def peak_memory(device: torch.device) -> int:
    """The most bytes in use at once since the process began: of the GPU, or else of the process."""
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
