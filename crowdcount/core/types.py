"""Tensors that data, models, losses and training share."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from crowdcount.core.blocks import heads_per_block


@dataclass(frozen=True, kw_only=True)
class BlockTarget:
    """True head counts of a batch of images, block by block."""

    counts: Float[Tensor, "batch 1 rows cols"]
    """Annotated heads in each block, not corrected."""

    points: tuple[Float[Tensor, "_ 2"], ...]
    """Head centres ``(x, y)`` in pixels, one tensor for each image."""

    heads: Float[Tensor, " batch"]
    """Heads of each image: N in the formulas of the count terms."""

    block: int
    """Block side in pixels."""

    whole_batch: int | None = None
    """Images of the whole batch, if these are a part of it; None: these are all. A term that is
    summed over the batch needs it, because a training step averages the parts."""


@dataclass(frozen=True, kw_only=True)
class BlockPrediction:
    """Predictions of a model for a batch of images, block by block."""

    logits: Float[Tensor, "batch bins rows cols"]
    """Unnormalised log-probability of each bin."""

    counts: Float[Tensor, "batch 1 rows cols"]
    """Expected heads in each block; the sum over an image's blocks is its count."""


@dataclass(frozen=True, kw_only=True)
class LossTerms:
    """The training loss and its terms."""

    total: Float[Tensor, ""]
    """Classification plus weighted count term; minimised."""

    classification: Float[Tensor, ""]
    """Classification term, in nats per image."""

    count: Float[Tensor, ""]
    """Count term, not weighted; in heads (``mse``: heads²) per image."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Training input: crops of one size with their targets."""

    images: Float[Tensor, "batch 3 height width"]
    """RGB in [0, 1]; the model normalises."""

    target: BlockTarget

    names: tuple[str, ...]
    """Name of the image from which each crop was cut."""

    def pin_memory(self) -> "Batch":
        """Copy the batch to pinned memory; PyTorch's data loader calls this."""
        target = replace(
            self.target,
            counts=self.target.counts.pin_memory(),
            points=tuple(points.pin_memory() for points in self.target.points),
            heads=self.target.heads.pin_memory(),
        )
        return replace(self, images=self.images.pin_memory(), target=target)


@dataclass(frozen=True, kw_only=True)
class ImageCount:
    """The heads that a model counts in one image."""

    total: float
    """Expected heads in the image: the sum of ``blocks`` in float64."""

    blocks: Float[Tensor, "rows cols"]
    """Expected heads in each block of the working image, float32 on the CPU."""

    block: int
    """Block side in pixels of the working image."""

    working_width: int
    """Width of the working image in pixels."""

    working_height: int
    """Height of the working image in pixels."""

    width: int
    """Width of the original image in pixels."""

    height: int
    """Height of the original image in pixels."""

    @property
    def scale(self) -> tuple[float, float]:
        """Working pixels per original pixel along x and y; they differ only by rounding."""
        return self.working_width / self.width, self.working_height / self.height


def block_counts(
    points: Float[Tensor, "heads 2"], *, height: int, width: int, block: int
) -> Float[Tensor, "1 rows cols"]:
    """Count annotated heads inside each ``block`` x ``block`` square of an image, as a tensor.

    Points are ``(x, y)`` and all sizes in pixels, as in
    :func:`crowdcount.core.blocks.heads_per_block`, which has the details and the errors.
    """
    counts = heads_per_block(points.numpy(force=True), height=height, width=width, block=block)
    return torch.from_numpy(counts)[None].to(points.device, torch.float32)


def block_target(
    points: tuple[Float[Tensor, "_ 2"], ...], *, height: int, width: int, block: int
) -> BlockTarget:
    """Build the target of a batch of equally large images from the head points of each."""
    counts = torch.stack(
        [block_counts(heads, height=height, width=width, block=block) for heads in points]
    )
    return BlockTarget(
        counts=counts,
        # Float64 decides the block; float32 is enough for everything else done with points.
        points=tuple(heads.float() for heads in points),
        heads=counts.sum(dim=(1, 2, 3)),
        block=block,
    )


def pad_to_multiple(
    images: Float[Tensor, "batch channels height width"], multiple: int
) -> Float[Tensor, "batch channels padded_height padded_width"]:
    """Pad with zeros at the bottom and the right until both sides are multiples of ``multiple``."""
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % multiple, 0, -height % multiple))
