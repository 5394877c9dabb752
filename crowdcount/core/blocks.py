"""Heads per block as tensors: what training and bins see of :mod:`crowdcount.core.heads`."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from crowdcount.core.heads import heads_per_block, pixels_of_heads
from crowdcount.core.types import BlockTarget


def head_pixels(
    points: Float[Tensor, "heads 2"], *, height: int, width: int
) -> Int64[Tensor, "heads 2"]:
    """The pixel ``(column, row)`` on which each head lies.

    Coordinates are truncated; heads outside the image go to the nearest edge pixel, so no head is
    ever lost.

    Raises:
        ValueError: If a coordinate is not finite, or the image has no pixel.
    """
    pixels = pixels_of_heads(points.numpy(force=True), height=height, width=width)
    return torch.from_numpy(pixels).to(points.device)


def block_counts(
    points: Float[Tensor, "heads 2"], *, height: int, width: int, block: int
) -> Float[Tensor, "1 rows cols"]:
    """Count annotated heads inside each ``block`` x ``block`` square of an image.

    The last row and column may be partial. Heads outside the image are moved to the nearest edge
    pixel, so the map always sums to ``len(points)``. Two heads on one pixel count twice (the
    published code counts them once).

    Args:
        points: Head centres ``(x, y)`` in pixels, origin at the top-left corner.
        height: Image height in pixels.
        width: Image width in pixels.
        block: Block side in pixels.

    Returns:
        Heads per block, with ``rows = ceil(height / block)`` and ``cols = ceil(width / block)``.

    Raises:
        ValueError: If ``block`` or a side is not positive, or a coordinate is not finite.
    """
    counts = heads_per_block(points.numpy(force=True), height=height, width=width, block=block)
    return torch.from_numpy(counts)[None].to(points.device, torch.float32)


def corrected_counts(counts: Float[Tensor, "*grid"], *, max_count: int) -> Float[Tensor, "*grid"]:
    """Label correction: bring counts above ``max_count`` down to it.

    Source:
        Ma et al., "CLIP-EBC", https://arxiv.org/abs/2403.09281. The published code never clamps a
        count and corrects through its bins table alone.
    """
    return counts.clamp(max=float(max_count))


def pad_to_multiple(
    images: Float[Tensor, "batch channels height width"], multiple: int
) -> Float[Tensor, "batch channels padded_height padded_width"]:
    """Pad with zeros at the bottom and the right until both sides are multiples of ``multiple``."""
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % multiple, 0, -height % multiple))


def block_target(
    points: tuple[Float[Tensor, "_ 2"], ...], *, height: int, width: int, block: int
) -> BlockTarget:
    """Targets of a batch of equally large images, from the head points of each."""
    counts = torch.stack(
        [block_counts(each, height=height, width=width, block=block) for each in points]
    )
    return BlockTarget(
        counts=counts,
        # Float64 decides the block; what is left to do with points needs no more than float32.
        points=tuple(each.float() for each in points),
        heads=counts.sum(dim=(1, 2, 3)),
        block=block,
    )


def window_histogram(
    points: Float[Tensor, "heads 2"],
    *,
    height: int,
    width: int,
    block: int,
    collapse_duplicates: bool = False,
) -> Int64[np.ndarray, " counts"]:
    """How many ``block`` x ``block`` windows, one at every pixel offset, hold 0, 1, 2, ... heads.

    Where heads are few, only the windows that a head touches are visited; the empty ones are the
    rest. Where heads are so many or windows so large that this would visit windows again and
    again, a summed-area table gives all of them at once. Both count exactly.

    Args:
        points: Head centres ``(x, y)`` in pixels.
        height: Image height in pixels.
        width: Image width in pixels.
        block: Window side in pixels.
        collapse_duplicates: Count heads that share a pixel once, as the published tables do.

    Returns:
        Windows by head count; sums to ``(height - block + 1) * (width - block + 1)``, or to 0 where
        no window fits into the image.

    Source:
        The averages of the published bins come from this histogram.
    """
    if block < 1:
        raise ValueError(f"block side must be at least 1 pixel, got {block}")
    rows, cols = max(height - block + 1, 0), max(width - block + 1, 0)
    if rows == 0 or cols == 0:
        return np.zeros(1, dtype=np.int64)
    pixels = head_pixels(points, height=height, width=width).numpy()
    if collapse_duplicates:
        pixels = np.unique(pixels, axis=0)
    if len(pixels) * block**2 > 2 * rows * cols:
        return _histogram_of_all(pixels, rows=rows, cols=cols, block=block)
    return _histogram_of_touched(pixels, rows=rows, cols=cols, block=block)


def _histogram_of_touched(
    pixels: Int64[np.ndarray, "heads 2"], *, rows: int, cols: int, block: int
) -> Int64[np.ndarray, " counts"]:
    """Windows by head count, from the windows over each head; ``rows`` x ``cols`` there are."""
    offsets = np.arange(block)
    left = pixels[:, 0, None] - offsets
    top = pixels[:, 1, None] - offsets
    window = top[:, :, None] * cols + left[:, None, :]
    fits = ((top >= 0) & (top < rows))[:, :, None] & ((left >= 0) & (left < cols))[:, None, :]
    visits = window[fits]
    heads = np.bincount(visits, minlength=rows * cols)
    # A window with k heads was visited k times, so it stands k times in heads[visits].
    histogram = np.bincount(heads[visits], minlength=1).astype(np.int64)
    histogram[1:] //= np.arange(1, len(histogram))
    histogram[0] = rows * cols - histogram[1:].sum()
    return histogram


def _histogram_of_all(
    pixels: Int64[np.ndarray, "heads 2"], *, rows: int, cols: int, block: int
) -> Int64[np.ndarray, " counts"]:
    """Windows by head count, from the sum of heads above and to the left of every pixel."""
    height, width = rows + block - 1, cols + block - 1
    heads = np.bincount(pixels[:, 1] * width + pixels[:, 0], minlength=height * width)
    above_left = np.zeros((height + 1, width + 1), dtype=np.int64)
    above_left[1:, 1:] = heads.reshape(height, width).cumsum(axis=0).cumsum(axis=1)
    strips = above_left[block:] - above_left[:-block]
    windows = strips[:, block:] - strips[:, :-block]
    return np.bincount(windows.ravel()).astype(np.int64)
