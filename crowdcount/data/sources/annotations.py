"""Annotation formats: a function for each reads head points from the content of a file."""

import codecs
import csv
import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64
from pydantic import model_validator

from crowdcount.core.settings import check_choice, settings
from crowdcount.data.sources.matlab import begins_like_mat, matlab_value
from crowdcount.errors import ConfigError

Points = Float64[np.ndarray, "heads 2"]
"""Head centres ``(x, y)`` in pixels, origin at the top-left corner."""

CSV_HEADER = ("image", "x", "y")
"""First line of a table of points."""

_KEY = re.compile(r"[A-Za-z]\w*(\[\d+\]|\.[A-Za-z]\w*)*")

_JSON_OBJECT = re.compile(rb'\{\s*"[^"]+\.\w+"\s*:\s*\[\s*[\[\]]')
# Two earlier forms. Other JSON may lie beside the images; COCO's also begins with "images".
_JSON_LIST = re.compile(
    rb'\{(.{0,2000}?[{,])?\s*"images"\s*:\s*\[\s*\{.{0,2000}?"(image|points)"\s*:', re.DOTALL
)
_JSON_LINE = re.compile(rb'\{(?=[^\n]*"image"\s*:)(?=[^\n]*"points"\s*:)')


@settings("points")
class PointsFormat:
    """How points are read from annotation files."""

    reader: str
    """A name in ``READERS`` (a file for each image) or ``TABLES`` (one file for all images)."""

    key: str = ""
    """Variable that holds the points, such as ``annPoints``, for readers of MATLAB files."""

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
        return TABLES[self.reader].recognises(content)

    def read_table(self, content: bytes) -> dict[str, Points]:
        """Read the points of each image from one file for all; some may not be finite.

        Raises:
            ValueError: If the content does not follow the format.
        """
        table = TABLES[self.reader].read(content, self.key)
        return {image: _ordered(points, self.order) for image, points in table.items()}


def read_mat(content: bytes, key: str) -> Points:
    """Read points from a variable of a MATLAB file, or from a value inside it."""
    return _as_points(matlab_value(content, key))


def read_txt(content: bytes, key: str) -> Points:  # noqa: ARG001 - a reader's signature
    """Read points from a text with a line for each head, whose first columns are x and y.

    Columns are separated by spaces, tabs or commas. A blank text is an empty scene.
    """
    heads = []
    for number, line in enumerate(_text(content).splitlines(), start=1):
        cells = line.split(",") if "," in line else line.split()
        if not line.strip():
            continue
        try:
            x, y = map(float, cells[:2])
        except ValueError as error:
            raise ValueError(
                f"line {number}: expected x and y, found {_excerpt(line.strip())}"
            ) from error
        heads.append((x, y))
    return _as_points(heads)


def read_csv(content: bytes, key: str) -> dict[str, Points]:  # noqa: ARG001 - a table's signature
    """Read points of all images from a table with the header ``image,x,y`` and a row for each head.

    The row ``image,,`` marks an empty scene.
    """
    rows = csv.reader(io.StringIO(_text(content), newline=""))
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
            heads.setdefault(image, []).extend(head)
            if not head:
                empty.add(image)
            if heads[image] and image in empty:
                raise ValueError(f"line {rows.line_num}: {image} is said to be empty and has heads")
    except csv.Error as error:
        raise ValueError(f"line {rows.line_num}: {error}") from error
    return {image: _as_points(listed) for image, listed in heads.items()}


def read_json(content: bytes, key: str) -> dict[str, Points]:  # noqa: ARG001 - a table's signature
    """Read points of all images from an object ``{"a.jpg": [[x, y], ...], "empty.jpg": []}``."""
    if _is_earlier_json(content):
        raise ValueError(
            "this form of JSON is no longer read; write one object with the points of each image: "
            '{"a.jpg": [[120.5, 80], [131, 92.25]], "empty.jpg": []}'
        )
    images = _load_json(_text(content))
    if not isinstance(images, dict):
        raise ValueError(f"expected an object, found {_excerpt(images)}")
    table: dict[str, Points] = {}
    for image, heads in images.items():
        if not image.strip():
            raise ValueError(f"expected the path of an image, found {image!r}")
        name = str(PurePosixPath(image.strip()))
        if name in table:
            raise ValueError(f"{name} occurs twice")
        table[name] = _json_points(heads, where=_excerpt(image))
    return table


def read_mat_frames(content: bytes, key: str) -> dict[str, Points]:
    """Read points of all frames of a video from one MATLAB file, as the Mall data set stores them.

    The variable holds a cell for each frame with a structure whose field ``loc`` holds the points.
    Frames are named by their number: ``"1"``, ``"2"``, ...
    """
    table = {}
    for number, frame in enumerate(np.ravel(matlab_value(content, key)), start=1):
        try:
            table[str(number)] = _as_points(frame[0, 0]["loc"])
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"frame {number} of {key}: no points at loc: {error}") from error
    return table


def begins_like_csv(content: bytes) -> bool:
    """Return whether the first line is the header ``image,x,y``."""
    first = re.split(rb"[\r\n]", content[:200], maxsplit=1)[0].decode("utf-8-sig", errors="replace")
    return _is_header(next(csv.reader([first]), []))


def begins_like_json(content: bytes) -> bool:
    """Return whether a file begins like JSON of points, in the form read now or an earlier one."""
    return bool(_JSON_OBJECT.match(_after_mark(content)[:5000])) or _is_earlier_json(content)


def _is_earlier_json(content: bytes) -> bool:
    start = _after_mark(content)
    return bool(_JSON_LIST.match(start[:5000]) or _JSON_LINE.match(start))


def _after_mark(content: bytes) -> bytes:
    """Return a text without byte-order mark and leading space."""
    return content.removeprefix(codecs.BOM_UTF8).lstrip()


READERS: dict[str, Callable[[bytes, str], Points]] = {"mat": read_mat, "txt": read_txt}
"""Formats with one file for each image: functions of content and key, which raise ValueError for
content that does not follow the format."""


@dataclass(frozen=True, kw_only=True)
class TableReader:
    """A format with one file for all images."""

    recognises: Callable[[bytes], bool]
    """Returns whether a file begins like this format, so that other files are ignored."""

    read: Callable[[bytes, str], dict[str, Points]]
    """Reads the points of each image from content and key."""


def begins_like_table(content: bytes) -> bool:
    """Return whether a file begins like a table of points in CSV or JSON."""
    return begins_like_csv(content) or begins_like_json(content)


def read_table(content: bytes, key: str) -> dict[str, Points]:
    """Read points of all images from a table in CSV or JSON."""
    if begins_like_csv(content):
        return read_csv(content, key)
    if begins_like_json(content):
        return read_json(content, key)
    raise ValueError("not a table of points in CSV or JSON")


_JSON = TableReader(recognises=begins_like_json, read=read_json)

TABLES: dict[str, TableReader] = {
    "csv": TableReader(recognises=begins_like_csv, read=read_csv),
    "json": _JSON,
    "jsonl": _JSON,  # named by earlier recipes and manifests
    "table": TableReader(recognises=begins_like_table, read=read_table),
    "mat-frames": TableReader(recognises=begins_like_mat, read=read_mat_frames),
}
"""Formats with one file for all images."""


def _is_header(cells: list[str]) -> bool:
    return tuple(cell.strip().lower() for cell in cells) == CSV_HEADER


def _csv_row(row: list[str], *, line: int) -> tuple[str, list[tuple[float, float]]]:
    """Return the image of a row, and a list with its head, if any."""
    if len(row) != len(CSV_HEADER) or not row[0].strip():
        raise ValueError(f"line {line}: expected {','.join(CSV_HEADER)}, found {','.join(row)!r}")
    image = str(PurePosixPath(row[0].strip()))
    x, y = row[1].strip(), row[2].strip()
    if not x and not y:
        return image, []
    try:
        return image, [(float(x), float(y))]
    except ValueError as error:
        raise ValueError(f"line {line}: x and y must be numbers, found {x!r} and {y!r}") from error


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("not a text in UTF-8") from error


def _excerpt(value: Any) -> str:
    """Return a value short enough for a message."""
    text = value if isinstance(value, str) else json.dumps(value)
    return repr(text if len(text) <= 40 else f"{text[:37]}...")


def _load_json(text: str) -> Any:
    """Load a JSON text; all numbers become floats, so that the largest are infinite."""

    def build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            names = [name for name, _ in pairs]
            repeated = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"{_excerpt(repeated)} occurs twice in one object")
        return values

    try:
        return json.loads(text, parse_int=float, object_pairs_hook=build_object)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"line {error.lineno}: not JSON: {error.msg} at column {error.colno}"
        ) from error
    except RecursionError as error:
        raise ValueError("not JSON of points: nested too deeply") from error


def _json_points(heads: Any, *, where: str) -> Points:
    if not isinstance(heads, list):
        raise ValueError(f"{where}: expected a list of points [x, y], found {_excerpt(heads)}")
    for number, head in enumerate(heads, start=1):
        # Not isinstance: true and false are numbers to Python.
        if not isinstance(head, list) or [type(value) for value in head] != [float, float]:
            raise ValueError(f"{where}: point {number}: expected [x, y], found {_excerpt(head)}")
    return _as_points(heads)


def _as_points(value: Any) -> Points:
    """Convert an array of any numeric type to points; empty arrays of any shape hold no heads."""
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"expected numbers, found {array.dtype}")
    if array.size == 0:
        return np.zeros((0, 2))
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"expected one row (x, y) for each head, found an array of {array.shape}")
    return array.astype(np.float64)


def _ordered(points: Points, order: str) -> Points:
    """Return points as ``(x, y)``."""
    return points if order == "xy" else np.ascontiguousarray(points[:, ::-1])
