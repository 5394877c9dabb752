"""Annotation formats: one function for each, from a file's content to head points."""

import csv
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float64
from pydantic import ConfigDict

from crowdcount.data.matlab import unpacked_mat
from crowdcount.errors import ConfigError

Points = Float64[np.ndarray, "heads 2"]
"""Head centres ``(x, y)`` in pixels, origin at the top-left corner."""

CSV_HEADER = ("image", "x", "y")
"""First line of a table of points."""


_KEY = re.compile(r"[A-Za-z]\w*(\[\d+\])*")


@dataclass(frozen=True, kw_only=True)
class PointsFormat:
    """How annotation files become arrays of points."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    reader: str
    """A name in ``READERS`` (a file for each image) or ``TABLES`` (one file for all images)."""

    key: str = ""
    """Where the points lie inside a file, such as ``annPoints``, for readers that need it."""

    order: Literal["xy", "yx"] = "xy"
    """Which coordinate comes first; some archives store rows before columns."""

    def __post_init__(self) -> None:
        if self.reader not in READERS and self.reader not in TABLES:
            known = ", ".join(sorted([*READERS, *TABLES]))
            raise ConfigError(
                f"points.reader: unknown reader {self.reader!r}; choose from: {known}"
            )
        if self.reader == "mat" and not _KEY.fullmatch(self.key):
            raise ConfigError(
                f"points.key: expected a variable like annPoints or info[0][0], got {self.key!r}"
            )

    @property
    def is_table(self) -> bool:
        """Whether one file holds the points of all images."""
        return self.reader in TABLES

    def read(self, content: bytes) -> Points:
        """The points of one image from its annotation file.

        Raises:
            ValueError: If the content is not what the format promises.
        """
        return _checked(READERS[self.reader](content, self.key), self.order)

    def is_table_of_points(self, content: bytes) -> bool:
        """Whether a file begins like a table of this format; its rows may still be wrong."""
        return TABLES[self.reader].recognises(content)

    def read_table(self, content: bytes) -> dict[str, Points]:
        """The points of each image from the one file that holds them all.

        Raises:
            ValueError: If the content is not what the format promises.
        """
        table = TABLES[self.reader].read(content, self.key)
        return {image: _checked(points, self.order) for image, points in table.items()}


def read_mat(content: bytes, key: str) -> Points:
    """Points in a MATLAB file, at a variable and the cells below it: ``image_info[0][0][0]``.

    Raises:
        ValueError: If it is no MATLAB file, the variable is missing or is no list of points.
    """
    import scipy.io  # a third of a second, which reading a recipe need not pay

    name, *steps = re.findall(r"\w+", key)
    stream: Any = io.BytesIO(unpacked_mat(content))  # scipy's annotations know of paths only
    try:
        found: Any = scipy.io.loadmat(stream, variable_names=[name])
    except NotImplementedError as error:
        raise ValueError("MATLAB 7.3 files cannot be read; save it in version 7") from error
    # scipy's parser raises whatever damaged content makes it run into.
    except Exception as error:
        raise ValueError(f"not a readable MATLAB file: {error}") from error
    if name not in found:
        raise ValueError(f"no variable {name!r} in the MATLAB file")
    value = found[name]
    try:
        for step in steps:
            value = value[int(step)]
    except (IndexError, TypeError, ValueError) as error:
        raise ValueError(f"nothing at {key} in the MATLAB file") from error
    return _as_points(value)


def read_csv(content: bytes, key: str) -> dict[str, Points]:  # noqa: ARG001 - a table's signature
    """Points of all images in a table with the header ``image,x,y``: a row for each head.

    ``image,,`` says that an image shows nobody.

    Raises:
        ValueError: If the header differs, or a row is not of that form.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("not a table in UTF-8") from error
    rows = csv.reader(io.StringIO(text, newline=""))
    heads: dict[str, list[tuple[float, float]]] = {}
    empty: set[str] = set()
    try:
        if not _is_header(header := next(rows, [])):
            raise ValueError(
                f"the first line is {','.join(header)!r}, expected {','.join(CSV_HEADER)!r}"
            )
        for row in rows:
            if not any(cell.strip() for cell in row):
                continue
            image, head = _csv_row(row, line=rows.line_num)
            listed = heads.setdefault(image, [])
            if head is None:
                empty.add(image)
            else:
                listed.append(head)
            if listed and image in empty:
                raise ValueError(f"line {rows.line_num}: {image} is said to be empty and has heads")
    except csv.Error as error:
        raise ValueError(f"line {rows.line_num}: {error}") from error
    return {
        image: np.asarray(listed, dtype=np.float64).reshape(-1, 2)
        for image, listed in heads.items()
    }


def begins_like_csv(content: bytes) -> bool:
    """Whether the first line is the header ``image,x,y``."""
    first = re.split(rb"[\r\n]", content[:200], maxsplit=1)[0].decode("utf-8-sig", errors="replace")
    return _is_header(next(csv.reader([first]), []))


READERS: dict[str, Callable[[bytes, str], Points]] = {"mat": read_mat}
"""Formats with one file for each image: content and key to points."""


@dataclass(frozen=True, kw_only=True)
class TableReader:
    """A format with one file for all images."""

    recognises: Callable[[bytes], bool]
    """Whether a file begins like one, so that other files beside it do no harm."""

    read: Callable[[bytes, str], dict[str, Points]]
    """Content and key to the points of each image."""


TABLES: dict[str, TableReader] = {"csv": TableReader(recognises=begins_like_csv, read=read_csv)}
"""Formats with one file for all images."""


def _is_header(cells: list[str]) -> bool:
    return tuple(cell.strip().lower() for cell in cells) == CSV_HEADER


def _csv_row(row: list[str], *, line: int) -> tuple[str, tuple[float, float] | None]:
    """The image a row names, and the head in it, if any."""
    if len(row) != len(CSV_HEADER) or not row[0].strip():
        raise ValueError(f"line {line}: expected {','.join(CSV_HEADER)}, found {','.join(row)!r}")
    image = str(PurePosixPath(row[0].strip()))
    x, y = row[1].strip(), row[2].strip()
    if not x and not y:
        return image, None
    try:
        return image, (float(x), float(y))
    except ValueError as error:
        raise ValueError(f"line {line}: x and y must be numbers, found {x!r} and {y!r}") from error


def _as_points(value: Any) -> Points:
    """An array of any numeric type as points; empty arrays of any shape are no heads."""
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"expected numbers, found {array.dtype}")
    if array.size == 0:
        return np.zeros((0, 2))
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"expected one row (x, y) for each head, found an array of {array.shape}")
    return array.astype(np.float64)


def _checked(points: Points, order: str) -> Points:
    """Points as ``(x, y)``, all finite."""
    bad = int((~np.isfinite(points)).any(axis=1).sum())
    if bad:
        raise ValueError(f"{bad} of {len(points)} points are not finite")
    return points if order == "xy" else np.ascontiguousarray(points[:, ::-1])
