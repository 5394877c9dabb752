"""Annotation formats: a function for each reads head points from the content of a file."""

import io
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import model_validator

from crowdcount.core.settings import check_choice, settings
from crowdcount.data.sources.matlab import begins_like_mat, matlab_value
from crowdcount.data.sources.point_tables import (
    Points,
    as_points,
    begins_like_csv,
    begins_like_json,
    begins_like_table,
    begins_like_tool,
    decoded,
    excerpt,
    read_csv,
    read_json,
    read_table,
    read_tool,
)
from crowdcount.errors import ConfigError

__all__ = ["READERS", "TABLES", "Points", "PointsFormat", "TableReader"]

_KEY = re.compile(r"[A-Za-z]\w*(\[\d+\]|\.[A-Za-z]\w*)*")


@settings("points")
class PointsFormat:
    """How points are read from annotation files."""

    reader: str
    """A name in ``READERS`` (a file for each image) or ``TABLES`` (one file for all images)."""

    key: str = ""
    """Variable that holds the points, such as ``annPoints``, for readers of MATLAB files."""

    label: str = ""
    """Label of a head in files of annotation tools; empty: one that says so, or the only one."""

    columns: tuple[str, str, str] | None = None
    """Names of the columns of image, x and y in a table in CSV, or their numbers from 1. None: by
    their usual names."""

    order: Literal["xy", "yx"] = "xy"
    """Order of the coordinates; some archives store rows before columns."""

    frame: Literal["upright", "stored"] | None = None
    """Image to which the points refer, where EXIF turns it: as annotators saw it, or as the file
    stores it. Stored points are turned with the image. None: upright, unless the points of the set
    are certainly those of the stored images."""

    scale: float | str | None = None
    """Factor from the annotated coordinates to pixels; ``"image"``: they are parts of the image's
    width and height. None: 1, and a set whose points look otherwise is refused."""

    @model_validator(mode="after")
    def _check(self) -> "PointsFormat":
        check_choice("points.reader", self.reader, sorted([*READERS, *TABLES]))
        is_factor = isinstance(self.scale, float) and 0 < self.scale < np.inf
        if not (self.scale in (None, "image") or is_factor):
            raise ConfigError(
                f"points.scale: expected a number above 0 or 'image', got {self.scale!r}"
            )
        if self.reader in ("mat", "mat-frames") and not _KEY.fullmatch(self.key):
            raise ConfigError(
                f"points.key: expected a variable like annPoints or info[0][0], got {self.key!r}"
            )
        return self

    def in_pixels(self, points: Points, *, size: tuple[int, int]) -> Points:
        """Scale annotated points to pixels of an image of ``size`` (width, height)."""
        factor = np.asarray(size if self.scale == "image" else self.scale or 1.0, dtype=np.float64)
        with np.errstate(over="ignore"):  # the largest floats overflow, and are moved to an edge
            return points * factor

    @property
    def is_table(self) -> bool:
        """Whether one file holds the points of all images."""
        return self.reader in TABLES

    def read(self, content: bytes) -> Points:
        """Read the points of one image from its annotation file; some may not be finite.

        Raises:
            ValueError: If the content does not follow the format.
        """
        return _ordered(READERS[self.reader](content, self.key), self.order)

    def is_table_of_points(self, content: bytes) -> bool:
        """Return whether a file begins like a table of this format; its rows may be wrong."""
        if self.columns is not None:
            return begins_like_csv(content, columns=self.columns)
        return TABLES[self.reader].recognises(content)

    def may_be_of_an_image(self, content: bytes) -> bool:
        """Return whether a file of one image may have this format: boxes are not points."""
        return is_yolo(content) == (self.reader == "yolo")

    def read_table(self, content: bytes) -> dict[str, Points]:
        """Read the points of each image from one file for all; some may not be finite.

        Raises:
            ValueError: If the content does not follow the format.
        """
        if self.columns is not None:
            table = read_csv(content, columns=self.columns)
        else:
            table = TABLES[self.reader].read(content, self.key or self.label)
        return {image: _ordered(points, self.order) for image, points in table.items()}


def read_mat(content: bytes, key: str) -> Points:
    """Read points from a variable of a MATLAB file, or from a value inside it."""
    return as_points(matlab_value(content, key))


def read_txt(content: bytes, key: str) -> Points:  # noqa: ARG001 - a reader's signature
    """Read points from a text with a line for each head, whose first columns are x and y.

    Columns are separated by spaces, tabs or commas. A blank text is an empty scene.
    """
    heads = []
    for number, line in enumerate(decoded(content).splitlines(), start=1):
        cells = line.split(",") if "," in line else line.split()
        if not line.strip():
            continue
        try:
            x, y = map(float, cells[:2])
        except ValueError as error:
            raise ValueError(
                f"line {number}: expected x and y, found {excerpt(line.strip())}"
            ) from error
        heads.append((x, y))
    return as_points(heads)


def read_mat_frames(content: bytes, key: str) -> dict[str, Points]:
    """Read points of all frames of a video from one MATLAB file, as the Mall data set stores them.

    The variable holds a cell for each frame with a structure whose field ``loc`` holds the points.
    Frames are named by their number: ``"1"``, ``"2"``, ...
    """
    table = {}
    for number, frame in enumerate(np.ravel(matlab_value(content, key)), start=1):
        try:
            table[str(number)] = as_points(frame[0, 0]["loc"])
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"frame {number} of {key}: no points at loc: {error}") from error
    return table


def read_yolo(content: bytes, key: str) -> Points:  # noqa: ARG001 - a reader's signature
    """Read the centres of boxes from YOLO's text: class, centre and size, as parts of the image."""
    boxes = [line.split() for line in decoded(content).splitlines() if line.strip()]
    for number, box in enumerate(boxes, start=1):
        if not _is_box(box):
            raise ValueError(
                f"line {number}: expected a class, x, y, width and height from 0 to 1, found "
                f"{excerpt(' '.join(box))}"
            )
    return as_points([(float(box[1]), float(box[2])) for box in boxes])


def is_yolo(content: bytes) -> bool:
    """Return whether a file is text of YOLO's boxes, and at least one."""
    try:
        boxes = [line.split() for line in decoded(content).splitlines() if line.strip()]
    except ValueError:
        return False
    return bool(boxes) and all(map(_is_box, boxes))


def _is_box(cells: list[str]) -> bool:
    try:
        kind, *sizes = map(float, cells)
    except ValueError:
        return False
    return kind.is_integer() and len(sizes) == 4 and all(0 <= size <= 1 for size in sizes)


def read_points_file(content: bytes, key: str) -> Points:
    """Read points from an array of NumPy, or else from a text."""
    if not content.startswith(np.lib.format.MAGIC_PREFIX):
        return read_txt(content, key)
    stream = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            read_header = np.lib.format.read_array_header_2_0
        shape, _, kind = read_header(stream)
        if kind.hasobject or kind.itemsize * math.prod(shape) > len(content):
            raise ValueError("an array of objects, or cut off")
        return as_points(np.lib.format.read_array(io.BytesIO(content), allow_pickle=False))
    # NumPy's parser raises errors of many types for damaged content.
    except Exception as error:
        raise ValueError(f"not a readable array of points: {error}") from error


def read_nwpu_json(content: bytes, key: str) -> Points:
    """Read points from the JSON file of one image, as NWPU-Crowd and cclabeler write it."""
    heads = list(read_tool(content, key).values())
    if len(heads) != 1:
        raise ValueError(f"expected the points of one image, found those of {len(heads)}")
    return heads[0]


READERS: dict[str, Callable[[bytes, str], Points]] = {
    "mat": read_mat,
    "txt": read_txt,
    "yolo": read_yolo,
    "file": read_points_file,
    "nwpu-json": read_nwpu_json,
}
"""Formats with one file for each image: functions of content and key, which raise ValueError for
content that does not follow the format."""


@dataclass(frozen=True, kw_only=True)
class TableReader:
    """A format with one file for all images."""

    recognises: Callable[[bytes], bool]
    """Returns whether a file begins like this format, so that other files are ignored."""

    read: Callable[[bytes, str], dict[str, Points]]
    """Reads the points of each image from content and key."""


_JSON = TableReader(recognises=begins_like_json, read=read_json)

TABLES: dict[str, TableReader] = {
    "csv": TableReader(recognises=begins_like_csv, read=read_csv),
    "json": _JSON,
    "jsonl": _JSON,  # named by earlier recipes and manifests
    "tool": TableReader(recognises=begins_like_tool, read=read_tool),
    "table": TableReader(recognises=begins_like_table, read=read_table),
    "mat-frames": TableReader(recognises=begins_like_mat, read=read_mat_frames),
}
"""Formats with one file for all images."""


def _ordered(points: Points, order: str) -> Points:
    """Return points as ``(x, y)``."""
    return points if order == "xy" else np.ascontiguousarray(points[:, ::-1])
