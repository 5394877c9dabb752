"""Annotation formats: one function for each, from a file's content to head points."""

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float64
from pydantic import ConfigDict

from crowdcount.data.sources.matlab import begins_like_mat, matlab_value
from crowdcount.errors import ConfigError

Points = Float64[np.ndarray, "heads 2"]
"""Head centres ``(x, y)`` in pixels, origin at the top-left corner."""

CSV_HEADER = ("image", "x", "y")
"""First line of a table of points."""


_KEY = re.compile(r"[A-Za-z]\w*(\[\d+\]|\.[A-Za-z]\w*)*")

# Other JSON may lie beside the images; COCO's, for one, also begins with "images".
_JSON_MAPPING = re.compile(rb'\{\s*"[^"]+\.\w+"\s*:\s*\[\s*[\[\]]')
_JSON_LIST = re.compile(
    rb'\{(.{0,2000}?[{,])?\s*"images"\s*:\s*\[\s*\{.{0,2000}?"(image|points)"\s*:', re.DOTALL
)
_JSON_LINE = re.compile(rb'\{(?=[^\n]*"image"\s*:)(?=[^\n]*"points"\s*:)')


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

    frame: Literal["upright", "stored"] = "upright"
    """Whose pixels the points are of, where EXIF turns an image: what annotators saw, or what the
    file stores. Stored ones are turned with the image."""

    def __post_init__(self) -> None:
        if self.reader not in READERS and self.reader not in TABLES:
            known = ", ".join(sorted([*READERS, *TABLES]))
            raise ConfigError(
                f"points.reader: unknown reader {self.reader!r}; choose from: {known}"
            )
        if self.reader in ("mat", "mat-frames") and not _KEY.fullmatch(self.key):
            raise ConfigError(
                f"points.key: expected a variable like annPoints or info[0][0], got {self.key!r}"
            )

    @property
    def is_table(self) -> bool:
        """Whether one file holds the points of all images."""
        return self.reader in TABLES

    def read(self, content: bytes) -> Points:
        """The points of one image from its annotation file, with those that are not finite.

        Raises:
            ValueError: If the content is not what the format promises.
        """
        return _ordered(READERS[self.reader](content, self.key), self.order)

    def is_table_of_points(self, content: bytes) -> bool:
        """Whether a file begins like a table of this format; its rows may still be wrong."""
        return TABLES[self.reader].recognises(content)

    def read_table(self, content: bytes) -> dict[str, Points]:
        """The points of each image from the one file for all, with those that are not finite.

        Raises:
            ValueError: If the content is not what the format promises.
        """
        table = TABLES[self.reader].read(content, self.key)
        return {image: _ordered(points, self.order) for image, points in table.items()}


def read_mat(content: bytes, key: str) -> Points:
    """Points in a MATLAB file, at a variable and what is below it: ``info[0][0].location``.

    Raises:
        ValueError: If it is no MATLAB file, the variable is missing or is no list of points.
    """
    return _as_points(matlab_value(content, key))


def read_txt(content: bytes, key: str) -> Points:  # noqa: ARG001 - a reader's signature
    """Points in a text with a line for each head: x and y first, then whatever else there is.

    Spaces, tabs or commas stand between the columns. A blank text is an empty scene.

    Raises:
        ValueError: If a line does not begin with two numbers.
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
    """Points of all images in a table with the header ``image,x,y``: a row for each head.

    ``image,,`` says that an image shows nobody.

    Raises:
        ValueError: If the header differs, or a row is not of that form.
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
            listed = heads.setdefault(image, [])
            if head is None:
                empty.add(image)
            else:
                listed.append(head)
            if listed and image in empty:
                raise ValueError(f"line {rows.line_num}: {image} is said to be empty and has heads")
    except csv.Error as error:
        raise ValueError(f"line {rows.line_num}: {error}") from error
    return {image: _as_points(listed) for image, listed in heads.items()}


def read_json(content: bytes, key: str) -> dict[str, Points]:  # noqa: ARG001 - a table's signature
    """Points of all images as ``{"a.jpg": [[x, y], ...]}`` or as a list of entries.

    The list is ``{"images": [{"image": "a.jpg", "points": [[x, y], ...]}, ...]}``; other keys of
    it and of its entries may say more. An empty list of points is an empty scene.

    Raises:
        ValueError: If it is no JSON, not of that form, or an image stands in it twice.
    """
    found = _from_json(_text(content))
    if not isinstance(found, dict):
        raise ValueError(f"expected an object, found {_excerpt(found)}")
    if "images" not in found:
        return _unique(_entry(image, heads, "") for image, heads in found.items())
    if not isinstance(found["images"], list):
        raise ValueError(f"images: expected a list, found {_excerpt(found['images'])}")
    return _unique(
        _listed_entry(entry, where=f"entry {number}: ")
        for number, entry in enumerate(found["images"], start=1)
    )


def read_jsonl(content: bytes, key: str) -> dict[str, Points]:  # noqa: ARG001 - a table's signature
    """Points of all images as a line ``{"image": "a.jpg", "points": [[x, y], ...]}`` for each.

    Raises:
        ValueError: If a line is no such JSON, or an image has two lines.
    """

    def entries() -> Iterator[tuple[str, Points]]:
        # Not splitlines(), which also cuts at characters that may stand in a JSON text.
        for number, line in enumerate(_text(content).split("\n"), start=1):
            if line.strip():
                where = f"line {number}: "
                yield _listed_entry(_from_json(line, where=where), where=where)

    return _unique(entries())


def read_mat_frames(content: bytes, key: str) -> dict[str, Points]:
    """Points of all frames of a video in one MATLAB file, as the Mall data set stores them.

    The variable is a cell for each frame, with a structure whose field ``loc`` holds the points.
    Frames are called by their place: ``"1"``, ``"2"``, ...

    Raises:
        ValueError: If it is no MATLAB file, or the variable is no such list.
    """
    table = {}
    for number, frame in enumerate(np.ravel(matlab_value(content, key)), start=1):
        try:
            table[str(number)] = _as_points(frame[0, 0]["loc"])
        except (IndexError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"frame {number} of {key}: no points at loc: {error}") from error
    return table


def begins_like_csv(content: bytes) -> bool:
    """Whether the first line is the header ``image,x,y``."""
    first = re.split(rb"[\r\n]", content[:200], maxsplit=1)[0].decode("utf-8-sig", errors="replace")
    return _is_header(next(csv.reader([first]), []))


def begins_like_json(content: bytes) -> bool:
    """Whether a file begins like one of the two forms of :func:`read_json`."""
    start = _after_mark(content)[:5000]
    return bool(_JSON_MAPPING.match(start) or _JSON_LIST.match(start))


def begins_like_jsonl(content: bytes) -> bool:
    """Whether the first line holds an image and its points."""
    return bool(_JSON_LINE.match(_after_mark(content))) and not begins_like_json(content)


READERS: dict[str, Callable[[bytes, str], Points]] = {"mat": read_mat, "txt": read_txt}
"""Formats with one file for each image: content and key to points."""


@dataclass(frozen=True, kw_only=True)
class TableReader:
    """A format with one file for all images."""

    recognises: Callable[[bytes], bool]
    """Whether a file begins like one, so that other files beside it do no harm."""

    read: Callable[[bytes, str], dict[str, Points]]
    """Content and key to the points of each image."""


_WRITTEN = {
    "csv": TableReader(recognises=begins_like_csv, read=read_csv),
    "json": TableReader(recognises=begins_like_json, read=read_json),
    "jsonl": TableReader(recognises=begins_like_jsonl, read=read_jsonl),
}


def read_table(content: bytes, key: str) -> dict[str, Points]:
    """Points of all images in a table of any form that people write, told by how it begins.

    Raises:
        ValueError: If it is of no such form, or not what its form promises.
    """
    for table in _WRITTEN.values():
        if table.recognises(content):
            return table.read(content, key)
    raise ValueError(f"no table of points; known forms: {', '.join(_WRITTEN)}")


def begins_like_table(content: bytes) -> bool:
    """Whether :func:`read_table` knows the form."""
    return any(table.recognises(content) for table in _WRITTEN.values())


TABLES: dict[str, TableReader] = {
    **_WRITTEN,
    "table": TableReader(recognises=begins_like_table, read=read_table),
    "mat-frames": TableReader(recognises=begins_like_mat, read=read_mat_frames),
}
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


def _after_mark(content: bytes) -> bytes:
    """A text without byte-order mark and leading space."""
    return content.removeprefix(codecs.BOM_UTF8).lstrip()


def _text(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError("not a text in UTF-8") from error


def _excerpt(found: Any) -> str:
    """What was found instead, short enough for a message."""
    text = found if isinstance(found, str) else json.dumps(found)
    return repr(text if len(text) <= 40 else f"{text[:37]}...")


def _from_json(text: str, *, where: str = "") -> Any:
    """What a JSON text says; all numbers are floats, so that the largest are infinite."""

    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"{where}{_excerpt(twice)} stands twice in one object")
        return values

    try:
        return json.loads(text, parse_int=float, object_pairs_hook=mapping)
    except json.JSONDecodeError as error:
        place = where or f"line {error.lineno}: "
        raise ValueError(f"{place}not JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise ValueError(f"{where}not JSON of points: nested too deeply") from error


def _listed_entry(entry: Any, *, where: str) -> tuple[str, Points]:
    """The image and the points of one entry of a list."""
    if not isinstance(entry, dict) or not {"image", "points"} <= set(entry):
        raise ValueError(
            f'{where}expected {{"image": ..., "points": ...}}, found {_excerpt(entry)}'
        )
    return _entry(entry["image"], entry["points"], where)


def _entry(image: Any, heads: Any, where: str) -> tuple[str, Points]:
    if not isinstance(image, str) or not image.strip():
        raise ValueError(f"{where}image: expected a path, found {_excerpt(image)}")
    where += f"{_excerpt(image)}: "
    if not isinstance(heads, list):
        raise ValueError(f"{where}expected a list of points [x, y], found {_excerpt(heads)}")
    for number, head in enumerate(heads, start=1):
        # Not isinstance: true and false are numbers to Python.
        if not isinstance(head, list) or [type(each) for each in head] != [float, float]:
            raise ValueError(f"{where}point {number}: expected [x, y], found {_excerpt(head)}")
    return str(PurePosixPath(image.strip())), _as_points(heads)


def _unique(entries: Iterable[tuple[str, Points]]) -> dict[str, Points]:
    """A table of entries, each of an image of its own."""
    table: dict[str, Points] = {}
    for image, points in entries:
        if image in table:
            raise ValueError(f"{image} stands in it twice")
        table[image] = points
    return table


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


def _ordered(points: Points, order: str) -> Points:
    """Points as ``(x, y)``."""
    return points if order == "xy" else np.ascontiguousarray(points[:, ::-1])
