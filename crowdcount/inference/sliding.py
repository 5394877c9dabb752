"""Whole images through a model that is shown windows of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, product

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from crowdcount.core.types import BlockPrediction, pad_to_multiple
from crowdcount.inference.counting import BlockModel
from crowdcount.inference.windows import window_starts

PIXELS_AT_ONCE = 2**20
"""Pixels of the windows that go through the model together: about a photograph of a million, so
windows take no more memory than such a photograph does as a whole, however large the image is."""


@dataclass(frozen=True, kw_only=True)
class SlidingModel:
    """A model for whole images, made of one for windows.

    Images are padded to whole blocks, and to one window where they are smaller, with zeros at the
    bottom and the right. Windows are placed in blocks, so the blocks of a window are always those
    of the image; the last row and column of windows end at the border.

    Where windows overlap, a block's expected heads are the mean of what they say of it, and so is
    the probability of each of its bins: the counts remain the expectation over the bins.

    Raises:
        ValueError: If window or stride cut blocks, or the stride would leave gaps.

    Source:
        Ma et al., "CLIP-EBC", https://arxiv.org/abs/2403.09281; overlaps averaged as in the
        published code.
    """

    model: BlockModel
    """Sees windows, as many at once as ``PIXELS_AT_ONCE`` allows."""

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
        grid_rows, grid_cols = (side // self.block for side in padded.shape[-2:])
        places = list(product(self._starts(grid_rows), self._starts(grid_cols)))
        views = self._views(padded, places)
        first = next(views)
        total = first.new_zeros(*first.shape[:2], grid_rows, grid_cols)
        cover = first.new_zeros(grid_rows, grid_cols)
        for (row, col), seen in zip(places, chain([first], views), strict=True):
            area = (..., *self._area(row, col, unit=1))
            total[area] += seen
            cover[area] += 1
        mean = (total / cover)[..., :rows, :cols]
        # A probability that float32 cannot hold is no certainty.
        least = torch.finfo(mean.dtype).tiny
        return BlockPrediction(logits=mean[:, 1:].clamp(min=least).log(), counts=mean[:, :1])

    def _starts(self, blocks: int) -> list[int]:
        """First block of each window along a side."""
        stride = self.stride // self.block
        return window_starts(blocks, window=self.window // self.block, stride=stride)

    def _area(self, row: int, col: int, *, unit: int) -> tuple[slice, slice]:
        """The window that starts at a block, in blocks of ``unit`` pixels."""
        side = self.window // self.block
        return slice(row * unit, (row + side) * unit), slice(col * unit, (col + side) * unit)

    def _views(
        self, images: Float[Tensor, "batch 3 height width"], places: list[tuple[int, int]]
    ) -> Iterator[Float[Tensor, "batch maps rows cols"]]:
        """What the model says of each window: expected heads, then the probability of each bin."""
        at_once = max(PIXELS_AT_ONCE // (len(images) * self.window**2), 1)
        for start in range(0, len(places), at_once):
            windows = [
                images[(..., *self._area(row, col, unit=self.block))]
                for row, col in places[start : start + at_once]
            ]
            prediction = self.model(torch.cat(windows))
            probabilities = prediction.logits.float().softmax(dim=1)
            yield from torch.cat([prediction.counts, probabilities], dim=1).chunk(len(windows))
