"""What travels between the parts as tensors: block targets, block predictions, batches."""

from dataclasses import dataclass, replace

from jaxtyping import Float
from torch import Tensor


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
    """Images of the batch of which these are a piece; None: they are all of it. A term that is
    summed over the batch needs it, since the step averages the pieces."""


@dataclass(frozen=True, kw_only=True)
class BlockPrediction:
    """What a model says of a batch of images, block by block."""

    logits: Float[Tensor, "batch bins rows cols"]
    """Unnormalised log-probability of each bin."""

    counts: Float[Tensor, "batch 1 rows cols"]
    """Expected heads in each block; the sum over an image's blocks is its count."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Training input: crops of one size with their targets."""

    images: Float[Tensor, "batch 3 height width"]
    """RGB in [0, 1]; the model normalises."""

    target: BlockTarget

    names: tuple[str, ...]
    """Which image each crop was cut from."""

    def pin_memory(self) -> "Batch":
        """The same in memory that a GPU copies from while it computes; PyTorch's loader asks."""
        target = replace(
            self.target,
            counts=self.target.counts.pin_memory(),
            points=tuple(each.pin_memory() for each in self.target.points),
            heads=self.target.heads.pin_memory(),
        )
        return replace(self, images=self.images.pin_memory(), target=target)
