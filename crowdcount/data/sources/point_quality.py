"""Problems of annotated points, and the sentences that report them."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Float64

from crowdcount.data.prepared.manifest import ImageRecord
from crowdcount.data.sources.annotations import PointsFormat
from crowdcount.data.sources.resize import outside
from crowdcount.wording import counted, shorten


def finite(points: Float64[np.ndarray, "heads 2"]) -> Float64[np.ndarray, "finite 2"]:
    """Select the points with two finite coordinates."""
    return np.asarray(points[np.isfinite(points).all(axis=1)])


def count_duplicates(points: Float64[np.ndarray, "heads 2"]) -> int:
    """Count the finite points at exactly the place of an earlier one."""
    # Complex numbers are sorted five times as fast as rows of two.
    return len(points) - len(np.unique(points[:, 0] + 1j * points[:, 1]))


def axes_seem_swapped(points: Float64[np.ndarray, "heads 2"], *, size: tuple[int, int]) -> bool:
    """Return whether x and y of finite points look swapped in an image of ``(width, height)``.

    They do if at least two heads, and a twentieth of all, are outside the image, and hardly any of
    them would be with x and y swapped. A square image or a single head never look swapped.
    """
    as_given = int(outside(points, size=size).sum())
    exchanged = int(outside(points[:, ::-1], size=size).sum())
    return many_outside(points, size=size) and exchanged <= as_given / 20


def many_outside(points: Float64[np.ndarray, "heads 2"], *, size: tuple[int, int]) -> bool:
    """Return whether at least two heads, and a twentieth of all, are outside the image."""
    return int(outside(points, size=size).sum()) >= max(2, len(points) / 20)


def faults(records: Sequence[ImageRecord], *, points: PointsFormat) -> tuple[str, ...]:
    """Describe why not all points of a set can be trusted: one line for each kind of fault."""
    lines = []
    swapped = [record for record in records if record.axes_swapped]
    if swapped:
        if all(record.orientation >= 5 for record in swapped):
            advice = f"--frame {'upright' if points.frame == 'stored' else 'stored'}"
            cause = "the heads seem to be those of the image before or after EXIF turns it"
        else:
            advice = f"--order {'yx' if points.order == 'xy' else 'xy'}"
            cause = "x and y seem to have changed places"
        lines.append(
            f"{cause} in {counted(len(swapped), 'image')}, whose heads outside would lie inside: "
            f"{shorten([record.name for record in swapped])}; if so, pass {advice}"
        )
    lines += _summary("{} outside, moved to the edge", records, lambda record: record.outside)
    lines += _summary("{} without a finite place, left out", records, lambda record: record.dropped)
    return tuple(lines)


def remarks(records: Sequence[ImageRecord]) -> tuple[str, ...]:
    """Describe unusual points that may well be right: duplicates and empty scenes."""
    lines = list(
        _summary("{} at the place of another, kept", records, lambda record: record.duplicates)
    )
    empty = [record.name for record in records if record.heads == 0]
    if empty:
        lines.append(f"nobody in {counted(len(empty), 'image')}: {shorten(empty)}")
    return tuple(lines)


def _summary(
    text: str, records: Sequence[ImageRecord], number: Callable[[ImageRecord], int]
) -> Iterator[str]:
    """Yield a line with the number of heads, if any, and their number in each image."""
    heads = {record.name: number(record) for record in records if number(record)}
    if heads:
        total = sum(heads.values())
        images = shorten([f"{name} ({count})" for name, count in heads.items()])
        subject = text.format(counted(total, "head"))
        yield f"{subject}, in {counted(len(heads), 'image')}: {images}"
