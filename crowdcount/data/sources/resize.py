"""The size rule of a recipe, and moving points with a resized image."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float64
from pydantic import ConfigDict

from crowdcount.core.limits import MAX_SIDE
from crowdcount.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class ResizeRule:
    """The range of the sides of a prepared image."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    short_side_min: int
    """Pixels; smaller images are enlarged."""

    long_side_max: int | None = None
    """Pixels; larger images are reduced. None: no maximum."""

    multiple_of: int = 32
    """Both sides are rounded to multiples of this many pixels."""

    def __post_init__(self) -> None:
        if self.short_side_min < 1:
            raise ConfigError(
                f"resize.short_side_min must be at least 1 pixel, got {self.short_side_min}"
            )
        if self.long_side_max is not None and self.long_side_max < self.short_side_min:
            raise ConfigError(
                f"resize.long_side_max must be at least resize.short_side_min "
                f"({self.short_side_min}), got {self.long_side_max}"
            )
        if self.multiple_of < 1:
            raise ConfigError(f"resize.multiple_of must be at least 1, got {self.multiple_of}")
        for key in ("short_side_min", "long_side_max", "multiple_of"):
            if (getattr(self, key) or 0) > MAX_SIDE:
                raise ConfigError(
                    f"resize.{key} must be at most {MAX_SIDE} pixels, got {getattr(self, key)}"
                )

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
    """Scale points ``(x, y)`` from an image of size ``old`` to one of size ``new``.

    Args:
        points: Head centres in pixels, origin at the top-left corner.
        old: ``(width, height)`` before.
        new: ``(width, height)`` after.
    """
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
