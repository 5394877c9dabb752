"""Sliding windows: counting a whole image through a model that sees windows of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, product

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from crowdcount.core.types import BlockPrediction, pad_to_multiple
from crowdcount.inference.counting import BlockModel

PIXELS_AT_ONCE = 2**20
"""Pixels of the windows in one batch, which need no more memory than a photograph of a million
pixels."""


@dataclass(frozen=True, kw_only=True)
class SlidingModel:
    """Counts whole images by running a model on windows of them.

    Images are padded with zeros at the bottom and the right, to whole blocks and to at least one
    window. Windows start at whole blocks, so the blocks of a window are blocks of the image; the
    last row and column of windows end at the border.

    Where windows overlap, expected heads and the probabilities of bins are averaged block by block,
    so the counts remain the expectation over the bins.

    Raises:
        ValueError: If window or stride cut blocks, or the stride would leave gaps.

    Source:
        Ma et al., "CLIP-EBC", https://arxiv.org/abs/2403.09281; overlaps averaged as in the
        published code.
    """

    model: BlockModel
    """Counts a batch of windows, as many as ``PIXELS_AT_ONCE`` allows."""

    block: int
    """Block side of the model in pixels."""

    window: int
    """Side of a window in pixels, a multiple of ``block``."""

    stride: int
    """Pixels from one window to the next, a multiple of ``block`` up to ``window``."""

    def __post_init__(self) -> None:
        whole = self.window % self.block == self.stride % self.block == 0
        if not (whole and 1 <= self.stride <= self.window):
            raise ValueError(
                f"window and stride must be whole blocks of {self.block} pixels, the stride at "
                f"most the window, got {self.window} and {self.stride}"
            )

    def __call__(self, images: Float[Tensor, "batch 3 height width"]) -> BlockPrediction:
        """Predict the blocks of images of any size.

        The maps have ``ceil(height / block)`` rows and ``ceil(width / block)`` columns.
        """
        rows, cols = (-(-side // self.block) for side in images.shape[-2:])
        padded = pad_to_multiple(images, self.block)
        missing = [max(self.window - side, 0) for side in padded.shape[-2:]]
        padded = F.pad(padded, (0, missing[1], 0, missing[0]))
        grid = [side // self.block for side in padded.shape[-2:]]
        window, stride = self.window // self.block, self.stride // self.block
        top, left = (window_starts(blocks, window=window, stride=stride) for blocks in grid)
        places = list(product(top, left))
        outputs = self._outputs(padded, places)
        first = next(outputs)
        total = first.new_zeros(*first.shape[:2], *grid)
        windows = first.new_zeros(*grid)
        for (row, col), output in zip(places, chain([first], outputs), strict=True):
            area = (..., *self._area(row, col, unit=1))
            total[area] += output
            windows[area] += 1
        mean = (total / windows)[..., :rows, :cols]
        # Probabilities that underflow to 0 in float32 must not become -inf.
        least = torch.finfo(mean.dtype).tiny
        return BlockPrediction(logits=mean[:, 1:].clamp(min=least).log(), counts=mean[:, :1])

    def _area(self, row: int, col: int, *, unit: int) -> tuple[slice, slice]:
        """Return the slices of the window at a block; a block has ``unit`` elements a side."""
        side = self.window // self.block
        return slice(row * unit, (row + side) * unit), slice(col * unit, (col + side) * unit)

    def _outputs(
        self, images: Float[Tensor, "batch 3 height width"], places: list[tuple[int, int]]
    ) -> Iterator[Float[Tensor, "batch maps rows cols"]]:
        """Run the model on each window: expected heads, then the probability of each bin."""
        at_once = max(PIXELS_AT_ONCE // (len(images) * self.window**2), 1)
        for start in range(0, len(places), at_once):
            windows = [
                images[(..., *self._area(row, col, unit=self.block))]
                for row, col in places[start : start + at_once]
            ]
            prediction = self.model(torch.cat(windows))
            probabilities = prediction.logits.float().softmax(dim=1)
            yield from torch.cat([prediction.counts, probabilities], dim=1).chunk(len(windows))


def window_starts(length: int, *, window: int, stride: int) -> list[int]:
    """Place windows along a side so that together they cover it.

    Windows advance by ``stride``; the last is pulled back to end at the border.

    Args:
        length: Length of the side, at least that of one window.
        window: Length of a window.
        stride: Distance from one window to the next, no longer than a window.

    Raises:
        ValueError: If no window fits, or the stride would leave gaps.
    """
    if not 1 <= stride <= window:
        raise ValueError(f"the stride must be 1 to the window, {window}, got {stride}")
    if length < window:
        raise ValueError(f"a window of {window} does not fit into {length}; pad to one window")
    last = length - window
    return [*range(0, last, stride), last]
