"""The size rule of a recipe, and moving points with a resized image."""

from typing import Annotated

import numpy as np
from jaxtyping import Float64
from pydantic import Field, model_validator

from crowdcount.core.limits import MAX_SIDE
from crowdcount.core.settings import settings
from crowdcount.errors import ConfigError

Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]


@settings("resize")
class ResizeRule:
    """The range of the sides of a prepared image."""

    short_side_min: Side
    """Pixels; smaller images are enlarged."""

    long_side_max: Side | None = None
    """Pixels; larger images are reduced. None: no maximum."""

    multiple_of: Side = 32
    """Both sides are rounded to multiples of this many pixels."""

    @model_validator(mode="after")
    def _check(self) -> "ResizeRule":
        if self.long_side_max is not None and self.long_side_max < self.short_side_min:
            raise ConfigError(
                "resize.long_side_max: expected at least resize.short_side_min "
                f"({self.short_side_min}), got {self.long_side_max}"
            )
        return self

    def size(self, *, width: int, height: int) -> tuple[int, int]:
        """Return ``(width, height)`` after preparation.

        If the image is too elongated for both limits, the maximum is ignored. Sides are rounded
        half to even, at scale 1 too, so an image changes unless its sides are multiples already.

        Source:
            The preprocessing of the published CLIP-EBC code.
        """
        short, long = sorted((width, height))
        longest = self.long_side_max
        if longest is not None and long * self.short_side_min > longest * short:
            longest = None
        if short < self.short_side_min:
            scale = self.short_side_min / short
        elif longest is not None and long > longest:
            scale = longest / long
        else:
            scale = 1.0

        def side(pixels: int) -> int:
            rounded = round(pixels * scale / self.multiple_of) * self.multiple_of
            at_least = max(rounded, self.short_side_min)
            return at_least if longest is None else min(at_least, longest)

        return side(width), side(height)


def moved_points(
    points: Float64[np.ndarray, "heads 2"], *, old: tuple[int, int], new: tuple[int, int]
) -> Float64[np.ndarray, "heads 2"]:
    """Scale points ``(x, y)`` from an image of ``old`` (width, height) to one of ``new``."""
    with np.errstate(over="ignore"):  # the largest floats overflow, and are moved to an edge later
        return points * (np.asarray(new, dtype=np.float64) / np.asarray(old, dtype=np.float64))


def outside(points: Float64[np.ndarray, "heads 2"], *, size: tuple[int, int]) -> np.ndarray:
    """Mark the points that, truncated, lie on no pixel of an image of ``size`` (width, height)."""
    pixels = np.trunc(points)
    return np.asarray(((pixels < 0) | (pixels >= size)).any(axis=1))


def moved_inside(
    points: Float64[np.ndarray, "heads 2"], *, size: tuple[int, int]
) -> Float64[np.ndarray, "heads 2"]:
    """Clamp points outside an image of ``size`` (width, height) to its nearest edge pixel."""
    last = np.asarray(size, dtype=np.float64) - 1
    beyond = np.trunc(points) > last
    return np.where(beyond, last, np.maximum(points, 0.0))
