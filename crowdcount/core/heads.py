"""Where heads lie: the pixel and the block of each, as whole numbers. Needs no torch to load."""

import numpy as np
from jaxtyping import Float, Int64


def largest_observable_count(*, block: int, smallest_head: int) -> int:
    """How many heads a block can show: m = (r // s)^2, at least 1.

    Args:
        block: Block side r in pixels.
        smallest_head: Side s, in pixels, of the smallest head that can be recognised.

    Raises:
        ValueError: If either is not positive.

    Source:
        Ma et al., "CLIP-EBC", https://arxiv.org/abs/2403.09281, label correction.
    """
    if block < 1 or smallest_head < 1:
        raise ValueError(
            f"block and smallest head must be at least 1 pixel, got {block} and {smallest_head}"
        )
    return max(block // smallest_head, 1) ** 2


def pixels_of_heads(
    points: Float[np.ndarray, "heads 2"], *, height: int, width: int
) -> Int64[np.ndarray, "heads 2"]:
    """The pixel ``(column, row)`` on which each head lies.

    Coordinates are truncated; heads outside the image go to the nearest edge pixel, so no head is
    ever lost.

    Raises:
        ValueError: If a coordinate is not finite, or the image has no pixel.
    """
    if height < 1 or width < 1:
        raise ValueError(f"an image has at least one pixel, got {width}x{height}")
    if not np.isfinite(points).all():
        raise ValueError("head coordinates must be finite")
    # Clamped before the conversion: a huge float has no int64.
    return points.clip(0, (width - 1, height - 1)).astype(np.int64)


def heads_per_block(
    points: Float[np.ndarray, "heads 2"], *, height: int, width: int, block: int
) -> Int64[np.ndarray, "rows cols"]:
    """Count annotated heads inside each ``block`` x ``block`` square of an image.

    The last row and column may be partial. Heads outside the image are moved to the nearest edge
    pixel, so the blocks always sum to ``len(points)``. Two heads on one pixel count twice (the
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
    if block < 1:
        raise ValueError(f"block side must be at least 1 pixel, got {block}")
    rows, cols = -(-height // block), -(-width // block)
    pixels = pixels_of_heads(points, height=height, width=width) // block
    counts = np.bincount(pixels[:, 1] * cols + pixels[:, 0], minlength=rows * cols)
    return counts.astype(np.int64, copy=False).reshape(rows, cols)
