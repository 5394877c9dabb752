"""Heads per pixel, per block and per window, from head points. Loads without torch."""

import numpy as np
from jaxtyping import Float, Int64


def largest_observable_count(*, block: int, smallest_head: int) -> int:
    """Compute how many heads a block can show: m = (r // s)^2, at least 1.

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


def head_pixels(
    points: Float[np.ndarray, "heads 2"], *, height: int, width: int
) -> Int64[np.ndarray, "heads 2"]:
    """Find the pixel ``(column, row)`` on which each head lies.

    Coordinates are truncated; heads outside the image are moved to the nearest edge pixel, so no
    head is ever lost.

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
    pixels = head_pixels(points, height=height, width=width) // block
    counts = np.bincount(pixels[:, 1] * cols + pixels[:, 0], minlength=rows * cols)
    return counts.astype(np.int64, copy=False).reshape(rows, cols)


def window_histogram(
    points: Float[np.ndarray, "heads 2"],
    *,
    height: int,
    width: int,
    block: int,
    collapse_duplicates: bool = False,
) -> Int64[np.ndarray, " counts"]:
    """Count the ``block`` x ``block`` windows that hold 0, 1, 2, ... heads, one at every pixel.

    If heads are few, only the windows over each head are visited. If heads are so many, or windows
    so large, that windows would be visited again and again, a summed-area table counts all at once.
    Both are exact.

    Args:
        points: Head centres ``(x, y)`` in pixels.
        height: Image height in pixels.
        width: Image width in pixels.
        block: Window side in pixels.
        collapse_duplicates: Count heads that share a pixel once, as the published tables do.

    Returns:
        Windows by head count; sums to ``(height - block + 1) * (width - block + 1)``, or to 0 where
        no window fits into the image. The averages of the published bins come from this histogram.
    """
    if block < 1:
        raise ValueError(f"block side must be at least 1 pixel, got {block}")
    rows, cols = max(height - block + 1, 0), max(width - block + 1, 0)
    if rows == 0 or cols == 0:
        return np.zeros(1, dtype=np.int64)
    pixels = head_pixels(points, height=height, width=width)
    if collapse_duplicates:
        pixels = np.unique(pixels, axis=0)
    if len(pixels) * block**2 > 2 * rows * cols:
        return _histogram_of_all(pixels, rows=rows, cols=cols, block=block)
    return _histogram_of_touched(pixels, rows=rows, cols=cols, block=block)


def _histogram_of_touched(
    pixels: Int64[np.ndarray, "heads 2"], *, rows: int, cols: int, block: int
) -> Int64[np.ndarray, " counts"]:
    """Count ``rows`` x ``cols`` windows by visiting those over each head."""
    offsets = np.arange(block)
    left = pixels[:, 0, None] - offsets
    top = pixels[:, 1, None] - offsets
    window = top[:, :, None] * cols + left[:, None, :]
    fits = ((top >= 0) & (top < rows))[:, :, None] & ((left >= 0) & (left < cols))[:, None, :]
    _, heads = np.unique(window[fits], return_counts=True)
    histogram = np.bincount(heads, minlength=1).astype(np.int64)
    histogram[0] = rows * cols - histogram[1:].sum()
    return histogram


def _histogram_of_all(
    pixels: Int64[np.ndarray, "heads 2"], *, rows: int, cols: int, block: int
) -> Int64[np.ndarray, " counts"]:
    """Count ``rows`` x ``cols`` windows by the sum of heads above and to the left of each pixel."""
    height, width = rows + block - 1, cols + block - 1
    heads = np.bincount(pixels[:, 1] * width + pixels[:, 0], minlength=height * width)
    above_left = np.zeros((height + 1, width + 1), dtype=np.int64)
    above_left[1:, 1:] = heads.reshape(height, width).cumsum(axis=0).cumsum(axis=1)
    strips = above_left[block:] - above_left[:-block]
    windows = strips[:, block:] - strips[:, :-block]
    return np.bincount(windows.ravel()).astype(np.int64)
