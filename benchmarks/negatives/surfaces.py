"""Parts of pictures: noise, relief, tiles, cells, balls, tilted planes, photographs."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
import scipy.fft
from jaxtyping import Float, Int32

from crowdcount.scenes.scenery import Colour, Light, Number, Pixels, photograph

Size: TypeAlias = tuple[int, int]
"""``(height, width)`` in pixels."""

Plane: TypeAlias = Float[np.ndarray, "height width"]
Scene: TypeAlias = Float[np.ndarray, "height width 3"]
"""RGB before it is photographed: 0 to 255, or more for glare."""

Painter: TypeAlias = Callable[[np.random.Generator, Size], Scene]


def noise(
    rng: np.random.Generator,
    size: Size,
    *,
    slope: Number,
    stretch: tuple[Number, Number] = (1, 1),
) -> Plane:
    """Draw noise of mean 0 and standard deviation 1 with the spectrum ``1 / frequency**slope``.

    Args:
        rng: Random generator.
        size: ``(height, width)``.
        slope: 0 is white noise, 1 pink, about 2 clouds, -1 blue.
        stretch: Factors on the lengths of its structures, down and across.
    """
    height, width = size
    down = scipy.fft.fftfreq(height)[:, None] * stretch[0]
    across = scipy.fft.rfftfreq(width)[None, :] * stretch[1]
    frequency = np.hypot(down, across)
    frequency[0, 0] = 1
    spectrum = scipy.fft.rfft2(rng.standard_normal(size, np.float32))
    spectrum *= (frequency**-slope).astype(np.float32)
    spectrum[0, 0] = 0
    values = scipy.fft.irfft2(spectrum, s=size)
    return np.asarray(values / max(values.std(), (1e-6)))


def relief(heights: Plane, *, angle: Number, strength: Number) -> Plane:
    """Compute the brightness of a surface lit from one side, 1 where it is level.

    Args:
        heights: Heights, in the unit of ``strength``.
        angle: Direction of the light in radians from the x axis.
        strength: Change of brightness per unit of rise per pixel.
    """
    down, across = np.gradient(heights)
    rise = math.cos(angle) * across + math.sin(angle) * down
    return np.asarray((1 - strength * rise).clip(0.2, 2))


def coloured(colour: Colour, brightness: Plane) -> Scene:
    """Multiply a colour by the brightness of each pixel."""
    return brightness[..., None] * np.asarray(colour, np.float32)


def blended(under: Scene, over: Scene, part: Plane) -> Scene:
    """Replace ``part`` of each pixel of ``under``, from 0 to 1, by ``over``."""
    return np.asarray(under + (over - under) * part[..., None])


def soft_step(values: Plane, *, at: Number, over: Number) -> Plane:
    """Return 0 below ``at`` and 1 above, with a linear ramp of width ``over``."""
    return np.asarray(((values - at) / over + 0.5).clip(0, 1))


def between(rng: np.random.Generator, low: Number, high: Number) -> float:
    """Draw a number between two positive ones, uniformly in its logarithm."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def plain(size: Size, colour: Colour) -> Scene:
    """Fill a scene with one colour."""
    return coloured(colour, np.ones(size, np.float32))


def grain(rng: np.random.Generator, size: Size, *, slope: Number, spread: Number) -> Plane:
    """Draw a brightness around 1."""
    return 1 + spread * noise(rng, size, slope=slope)


@dataclass(frozen=True, kw_only=True)
class Courses:
    """A plane divided into equal pieces in rows, like bricks, tiles, keys and windows."""

    row: Int32[np.ndarray, "height width"]
    """Row of each pixel's piece."""

    col: Int32[np.ndarray, "height width"]
    """Column of each pixel's piece."""

    down: Plane
    """Pixels from the upper edge of the piece."""

    across: Plane
    """Pixels from the left edge of the piece."""

    high: float
    """Height of a piece in pixels."""

    wide: float
    """Width of a piece in pixels."""

    @classmethod
    def of(cls, size: Size, *, high: Number, wide: Number, shift: Number = 0) -> "Courses":
        """Divide a plane; each row is shifted by ``shift`` of a piece against the one above."""
        rows, cols = np.indices(size, np.float32) + np.float32(0.5)
        row = np.floor(rows / high)
        along = cols + (row * shift % 1) * wide
        col = np.floor(along / wide)
        return cls(
            row=row.astype(np.int32),
            col=col.astype(np.int32),
            down=rows - row * high,
            across=along - col * wide,
            high=float(high),
            wide=float(wide),
        )

    @property
    def count(self) -> tuple[int, int]:
        """Number of visible rows and columns."""
        return int(self.row.max()) + 1, int(self.col.max()) + 1

    def each(self, values: Float[np.ndarray, "rows cols"]) -> Plane:
        """Spread a value per piece over its pixels."""
        return np.asarray(values[self.row, self.col])

    def inside(
        self, *, margin: Number, corner: Number = 0, top: Number = 0, bottom: Number = 0
    ) -> Plane:
        """Return the distance in pixels to a rounded rectangle in each piece; negative outside.

        Args:
            margin: Distance of the rectangle from the edges of its piece, in pixels.
            corner: Radius of the corners in pixels.
            top: Additional distance from the upper edge, in pixels.
            bottom: Additional distance from the lower edge, in pixels.
        """
        half_wide = self.wide / 2 - margin - corner
        half_high = (self.high - top - bottom) / 2 - margin - corner
        middle = top + (self.high - top - bottom) / 2
        x = np.abs(self.across - self.wide / 2) - half_wide
        y = np.abs(self.down - middle) - half_high
        outside = np.hypot(np.maximum(x, 0), np.maximum(y, 0)) + np.minimum(np.maximum(x, y), 0)
        return np.asarray(corner - outside)


@dataclass(frozen=True, kw_only=True)
class Cells:
    """A plane divided among centres: each pixel belongs to the nearest one."""

    owner: Int32[np.ndarray, "height width"]
    """Index of the centre of each pixel."""

    across: Plane
    """Pixels to the right of that centre."""

    down: Plane
    """Pixels below that centre."""

    count: int
    """Number of centres."""

    @classmethod
    def drawn(
        cls,
        rng: np.random.Generator,
        size: Size,
        *,
        spacing: Number,
        jitter: Number,
        stagger: Number = 0.5,
        flat: Number = 1,
    ) -> "Cells":
        """Draw cells around the points of a jittered grid.

        Args:
            rng: Random generator.
            size: ``(height, width)``.
            spacing: Pixels between the centres of a row.
            jitter: Largest shift of a centre, as a fraction of ``spacing``.
            stagger: Shift of every other row, as a fraction of ``spacing``.
            flat: Distance between rows, as a fraction of ``spacing``.
        """
        spacing = max(spacing, 3)
        border = math.ceil(2 * spacing)
        high, wide = size[0] + 2 * border, size[1] + 2 * border
        rows = np.arange(spacing / 2, high, spacing * flat)
        cols = np.arange(spacing / 2, wide, spacing)
        y, x = np.meshgrid(rows, cols, indexing="ij")
        x = x + stagger * spacing * (np.arange(len(rows)) % 2)[:, None]
        y, x = (each + jitter * spacing * rng.uniform(-1, 1, each.shape) for each in (y, x))
        row = y.ravel().round().astype(int).clip(0, high - 1)
        col = x.ravel().round().astype(int).clip(0, wide - 1)
        away = np.ones((high, wide), np.uint8)
        away[row, col] = 0
        _, labels = cv2.distanceTransformWithLabels(
            away, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        index = np.zeros(int(labels.max()) + 1, np.int32)
        index[labels[row, col]] = np.arange(row.size, dtype=np.int32)
        owner = index[labels][border : border + size[0], border : border + size[1]]
        down, across = np.indices(size, np.float32)
        return cls(
            owner=owner,
            across=across + border - col.astype(np.float32)[owner],
            down=down + border - row.astype(np.float32)[owner],
            count=row.size,
        )

    def each(self, values: Float[np.ndarray, " cells"]) -> Plane:
        """Spread a value per cell over its pixels."""
        return np.asarray(values[self.owner])

    def colours(self, values: Float[np.ndarray, "cells 3"]) -> Scene:
        """Spread a colour per cell over its pixels."""
        return np.asarray(values[self.owner])

    @property
    def angle(self) -> Plane:
        """Direction from the centre in radians."""
        return np.asarray(np.arctan2(self.down, self.across))

    @property
    def distance(self) -> Plane:
        """Pixels from the centre."""
        return np.asarray(np.hypot(self.across, self.down))

    def to_edge(self) -> Plane:
        """Return the distance in pixels to the nearest pixel of another cell."""
        edge = np.zeros(self.owner.shape, bool)
        edge[:, 1:] = self.owner[:, 1:] != self.owner[:, :-1]
        edge[1:] |= self.owner[1:] != self.owner[:-1]
        inner = (~edge).astype(np.uint8)
        # Without an edge in the picture, OpenCV returns distances near infinity.
        return np.asarray(cv2.distanceTransform(inner, cv2.DIST_L2, 5).clip(0, 1e4))


@dataclass(frozen=True, kw_only=True)
class Balls:
    """The look of balls that lie in cells."""

    covers: Plane
    """1 on a ball, 0 between balls, smooth at the outline."""

    brightness: Plane
    """Brightness of a matt ball."""

    gloss: Plane
    """Specular reflection, from 0 to 1."""

    @classmethod
    def of(cls, cells: Cells, radius: Plane, *, angle: Number) -> "Balls":
        """Light balls of ``radius`` pixels from above and from ``angle`` radians."""
        x, y = cells.across / radius, cells.down / radius
        far = x * x + y * y
        towards = np.sqrt((1 - far).clip(0, 1))
        # The light comes from the side at 45 degrees; the halfway vector gives the gloss.
        aside = (x * math.cos(angle) + y * math.sin(angle)) / math.sqrt(2)
        lit = (aside + towards / math.sqrt(2)).clip(0, 1)
        mirrored = math.sin(math.pi / 8) * math.sqrt(2) * aside + math.cos(math.pi / 8) * towards
        return cls(
            covers=soft_step((1 - np.sqrt(far)) * radius, at=0, over=1.5),
            brightness=0.3 + 0.8 * lit,
            gloss=mirrored.clip(0, 1) ** 40,
        )


def tilted(rng: np.random.Generator, size: Size, paint: Painter, *, most: float = 0.3) -> Scene:
    """Show a painted plane to the camera at an angle.

    Args:
        rng: Random generator.
        size: ``(height, width)`` of the result.
        paint: Painter of the plane.
        most: Largest shift of each corner inwards, as a fraction of the sides.
    """
    high, wide = round(1.3 * size[0]) + 2, round(1.3 * size[1]) + 2
    plane = np.asarray(paint(rng, (high, wide)), np.float32)
    inwards = rng.uniform(0, most, (4, 2)) * (wide, high)
    corners = np.array([(0, 0), (wide, 0), (wide, high), (0, high)], float)
    seen = corners + inwards * [(1, 1), (-1, 1), (-1, -1), (1, -1)]
    frame = np.array([(0, 0), (size[1], 0), (size[1], size[0]), (0, size[0])], np.float32)
    view = cv2.getPerspectiveTransform(seen.astype(np.float32), frame)
    return np.asarray(
        cv2.warpPerspective(
            plane, view, (size[1], size[0]), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
    )


def lying(rng: np.random.Generator, size: Size, paint: Painter) -> Scene:
    """Show a painted ground to a camera that looks down and ahead."""
    high, wide = round(1.5 * size[0]) + 2, round(1.5 * size[1]) + 2
    plane = np.asarray(paint(rng, (high, wide)), np.float32)
    narrow = rng.uniform(0.1, 0.3) * wide
    # The far edge shows the whole plane, the near edge its middle.
    seen = np.array([(0, 0), (wide, 0), (wide - narrow, high), (narrow, high)], np.float32)
    frame = np.array([(0, 0), (size[1], 0), (size[1], size[0]), (0, size[0])], np.float32)
    view = cv2.getPerspectiveTransform(seen, frame)
    return np.asarray(
        cv2.warpPerspective(cv2.GaussianBlur(plane, (0, 0), 0.6), view, (size[1], size[0]))
    )


def photo(rng: np.random.Generator, scene: Scene, *, shadows: bool = True) -> Pixels:
    """Photograph a scene, often with soft shadows, sometimes out of focus."""
    size = (scene.shape[0], scene.shape[1])
    if shadows and rng.random() < 0.4:
        cover = soft_step(noise(rng, size, slope=2.2), at=rng.uniform(-0.5, 1), over=0.5)
        scene = scene * (1 - rng.uniform(0.15, 0.5) * cover)[..., None].astype(np.float32)
    if rng.random() < 0.2:
        scene = np.asarray(cv2.GaussianBlur(scene, (0, 0), rng.uniform(0.8, 2.5)))
    return photograph(scene.clip(0, 400).astype(np.uint16), Light.random(rng), rng)
