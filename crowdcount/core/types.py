"""What travels between the parts: images with points, block targets, block predictions."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, UInt8
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One annotated image."""

    name: str
    """What the image is called in its data set, such as ``train/IMG_12``."""

    image: UInt8[np.ndarray, "height width 3"]
    """Upright RGB pixels."""

    points: Float64[np.ndarray, "heads 2"]
    """Head centres ``(x, y)`` in pixels of ``image``, origin at the top-left corner."""


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
