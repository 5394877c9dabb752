"""Counting one image of any size, by the rule that ``predict`` and ``eval`` share."""

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from crowdcount.core.image import WorkingSize, resized, scaled_size
from crowdcount.core.types import BlockPrediction, ImageCount
from crowdcount.errors import UsageError

MAX_WORKING_PIXELS = 100_000_000
"""At this size the first feature maps of a ResNet take several gigabytes."""

BlockModel = Callable[[Float[Tensor, "batch 3 height width"]], BlockPrediction]
"""A model that counts: RGB in [0, 1] to heads per block. It pads to whole blocks by itself."""


def count_image(
    model: BlockModel,
    image: UInt8[np.ndarray, "height width 3"],
    *,
    block: int,
    working_size: WorkingSize,
    device: torch.device,
    scale: float | None = None,
) -> ImageCount:
    """Resize an image to a model's working size and count it.

    Args:
        model: Counts the blocks of an image; on ``device`` and in evaluation mode.
        image: Upright RGB pixels.
        block: Block side of the model in pixels.
        working_size: Range of sizes in which the model counts best.
        device: Where the model runs.
        scale: Factor from original to working size; None: the factor of ``working_size``.

    Raises:
        UsageError: If ``scale`` is not a positive number, or the working image would be enormous.
    """
    height, width = image.shape[:2]
    if scale is None:
        scale = working_size.scale(width=width, height=height)
    working_width, working_height = _working_sides(width=width, height=height, scale=scale)
    pixels = torch.tensor(resized(image, width=working_width, height=working_height))
    with torch.inference_mode():
        prediction = model(pixels.to(device).permute(2, 0, 1).unsqueeze(0).float() / 255)
    grid = (-(-working_height // block), -(-working_width // block))
    if prediction.counts.shape != (1, 1, *grid):
        raise ValueError(
            f"blocks of {block} pixels in a {working_width}x{working_height} image make a grid of "
            f"{grid}, the model gave {tuple(prediction.counts.shape)}"
        )
    # Cloned, because autograd refuses tensors made in inference mode.
    blocks = prediction.counts[0, 0].to(device="cpu", dtype=torch.float32).clone()
    return ImageCount(
        total=blocks.double().sum().item(),
        blocks=blocks,
        block=block,
        working_width=working_width,
        working_height=working_height,
        width=width,
        height=height,
    )


def _working_sides(*, width: int, height: int, scale: float) -> tuple[int, int]:
    """Scale ``(width, height)``; refuse a result that needs too much memory."""
    if not (math.isfinite(scale) and scale > 0):
        raise UsageError(
            f"the scale must be a positive number, got {scale}",
            next_step="1 counts the image in its own size, 2 at twice its width and height",
        )
    # A float, so that an absurd scale overflows to infinity and not into gigabytes of digits.
    if (width * scale) * (height * scale) > MAX_WORKING_PIXELS:
        raise UsageError(
            f"scale {scale:g} makes a {width}x{height} image larger than "
            f"{MAX_WORKING_PIXELS / 1e6:.0f} million pixels",
            next_step=f"choose a scale below {math.sqrt(MAX_WORKING_PIXELS / (width * height)):.3g}"
            ", or count parts of the image",
        )
    return scaled_size(width=width, height=height, scale=scale)
