"""What can be wrong with annotated points, and how people are told."""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float64

from crowdcount.data.prepared.manifest import ImageRecord
from crowdcount.data.sources.resize import outside
from crowdcount.wording import shorten


def finite(points: Float64[np.ndarray, "heads 2"]) -> Float64[np.ndarray, "finite 2"]:
    """The points that have a place: neither coordinate is infinite or not a number."""
    placed: Float64[np.ndarray, "finite 2"] = points[np.isfinite(points).all(axis=1)]
    return placed


def repeated(points: Float64[np.ndarray, "heads 2"]) -> int:
    """How many finite points lie at exactly the place of another that is counted already."""
    # As complex numbers, which are sorted five times as fast as rows of two.
    return len(points) - len(np.unique(points[:, 0] + 1j * points[:, 1]))


def axes_seem_swapped(points: Float64[np.ndarray, "heads 2"], *, size: tuple[int, int]) -> bool:
    """Whether x and y look as if they had changed places.

    They do when two heads at least, and a twentieth of all, lie outside the image, of whom hardly
    any would with x and y exchanged. A square image cannot tell, nor can one with a single head.

    Args:
        points: Finite ``(x, y)``.
        size: ``(width, height)`` of the image they were annotated in.
    """
    as_given = int(outside(points, size=size).sum())
    if as_given < max(2, len(points) / 20):
        return False
    exchanged = int(outside(points[:, ::-1], size=size).sum())
    return exchanged <= as_given / 20


def faults(records: Sequence[ImageRecord], *, order: Literal["xy", "yx"]) -> tuple[str, ...]:
    """Why the points of a set cannot all be trusted: one line for each kind of fault.

    Args:
        records: What is known of the images.
        order: In which order the coordinates were read.
    """
    found = []
    swapped = [each.name for each in records if each.axes_swapped]
    if swapped:
        other = "yx" if order == "xy" else "xy"
        found.append(
            f"x and y seem to have changed places in {_images(len(swapped))}, whose heads outside "
            f"would lie inside: {shorten(swapped)}; if so, pass --order {other}"
        )
    found += _told("{} outside, moved to the edge", records, lambda each: each.outside)
    found += _told("{} without a finite place, left out", records, lambda each: each.dropped)
    return tuple(found)


def remarks(records: Sequence[ImageRecord]) -> tuple[str, ...]:
    """What else is worth knowing of the points, and may well be right."""
    found = list(_told("{} at the place of another, kept", records, lambda each: each.duplicates))
    empty = [each.name for each in records if each.heads == 0]
    if empty:
        found.append(f"nobody in {_images(len(empty))}: {shorten(empty)}")
    return tuple(found)


def _told(
    what: str, records: Sequence[ImageRecord], number: Callable[[ImageRecord], int]
) -> Iterator[str]:
    """A line that says how many heads it concerns, and in which images how many, if any."""
    concerned = {each.name: number(each) for each in records if number(each)}
    if concerned:
        heads = sum(concerned.values())
        listed = shorten([f"{name} ({count})" for name, count in concerned.items()])
        each = what.format(f"{heads} head{'s' if heads > 1 else ''}")
        yield f"{each}, in {_images(len(concerned))}: {listed}"


def _images(number: int) -> str:
    return f"{number} image{'s' if number > 1 else ''}"
