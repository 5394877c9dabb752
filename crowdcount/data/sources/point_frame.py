"""What annotated points refer to: the upright or the stored image, its own size or another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from crowdcount.data.sources.annotations import Points, PointsFormat
from crowdcount.data.sources.images import upright_points
from crowdcount.data.sources.point_quality import axes_seem_swapped, many_outside
from crowdcount.data.sources.resize import outside
from crowdcount.wording import counted

SUSPICIOUS = 0.2
"""Share of heads outside their images above which a set as a whole is suspicious."""

FAR = 1.1
"""Size of an image beyond which heads are not just cut off by its edge."""


@dataclass(frozen=True, kw_only=True)
class AnnotatedHeads:
    """The finite heads of an image as its annotation has them, neither scaled nor turned."""

    heads: Points
    width: int
    """Pixels of the upright image."""

    height: int
    orientation: int
    """EXIF orientation, 1 to 8."""

    def size(self, frame: Literal["upright", "stored"] | None) -> tuple[int, int]:
        """Return ``(width, height)`` of the image in a frame of points."""
        on_side = frame == "stored" and self.orientation >= 5
        return (self.height, self.width) if on_side else (self.width, self.height)

    def upright(self, points: PointsFormat) -> Points:
        """Return the heads in pixels of the upright image; some may lie outside."""
        size = self.size(points.frame)
        turn = self.orientation if points.frame == "stored" else 1
        return upright_points(points.in_pixels(self.heads, size=size), size=size, orientation=turn)


def frame_of(images: Sequence[AnnotatedHeads]) -> Literal["upright", "stored"]:
    """Return the frame of points: upright, unless they are certainly those of the stored images.

    They are if images that EXIF turns on their side have many heads outside, all of which lie
    inside the image as it is stored, while x and y seem right in all other images.
    """
    on_side = [image for image in images if image.orientation >= 5]
    others = [image for image in images if image.orientation < 5]
    strays = any(many_outside(image.heads, size=image.size("upright")) for image in on_side)
    fit = not any(outside(image.heads, size=image.size("stored")).any() for image in on_side)
    swapped = any(axes_seem_swapped(image.heads, size=image.size("upright")) for image in others)
    return "stored" if strays and fit and not swapped else "upright"


@dataclass(frozen=True, kw_only=True)
class Suspicion:
    """Why points seem to be of another size than their images."""

    reason: str
    next_step: str


def suspicion_of(images: Sequence[AnnotatedHeads], points: PointsFormat) -> Suspicion | None:
    """Return why the points of a set seem to be no pixels of its images; None: they seem right.

    They seem to be parts of width and height if all lie within one pixel, and pixels of images of
    another size if a fifth of all heads lie outside, some far, with x and y exchanged too.

    Args:
        images: Images of the set.
        points: How their points are read. A scale that it states is believed.
    """
    found = [image for image in images if len(image.heads)]
    total = sum(len(image.heads) for image in found)
    if points.scale is not None or total < 2:
        return None
    if all(image.heads.min() >= 0 and image.heads.max() <= 1 for image in found):
        return Suspicion(
            reason=f"all {total:,} heads lie in the first pixel of their images: they seem to be "
            "parts of width and height",
            next_step="pass --points-scale image, or --points-scale 1 if they are pixels",
        )
    strays = 0
    for image in found:
        size = image.size(points.frame)
        if not axes_seem_swapped(image.heads, size=size):
            strays += int(outside(image.heads, size=size).sum())
    # The furthest head shall come to lie inside.
    reach = max(((image.heads + 1) / image.size(points.frame)).max() for image in found)
    if strays < max(2, SUSPICIOUS * total) or reach < FAR:
        return None
    return Suspicion(
        reason=f"{strays:,} of {counted(total, 'head')} lie outside their images, as far as "
        f"{reach:.2f} times their size: they seem to be of images of another size",
        next_step=f"pass --points-scale {np.floor(1000 / reach) / 1000:g}, or the width of these "
        "images divided by that of the annotated ones; or --points-scale 1 to keep them so",
    )
