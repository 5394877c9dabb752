"""Tables of points: one file, in CSV, JSON or the format of a tool, for one image or many."""

import codecs
import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float64

from crowdcount.data.sources.annotation_tools import (
    JSON_TOOLS,
    VIA_COLUMNS,
    heads_by_image,
    read_cvat,
    via_rows,
)

Points = Float64[np.ndarray, "heads 2"]
"""Head centres ``(x, y)`` in pixels, origin at the top-left corner."""

CSV_HEADER = ("image", "x", "y")
"""First line of a table of points."""

COLUMN_NAMES = (
    ("image", "filename", "file_name", "file", "image_name", "image_path", "img", "path"),
    ("x", "cx", "px", "head_x", "point_x", "x_coord", "xcoord"),
    ("y", "cy", "py", "head_y", "point_y", "y_coord", "ycoord"),
)
"""Other names of these columns, in small letters."""

_JSON_OBJECT = re.compile(rb'\{\s*"[^"]+\.\w+"\s*:\s*(\[\s*[\[\]{]|null)')
# Two earlier forms. Other JSON may lie beside the images; COCO's also begins with "images".
_JSON_LIST = re.compile(
    rb'\{(.{0,2000}?[{,])?\s*"images"\s*:\s*\[\s*\{.{0,2000}?"(image|points)"\s*:', re.DOTALL
)
_JSON_LINE = re.compile(rb'\{(?=[^\n]*"image"\s*:)(?=[^\n]*"points"\s*:)')
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


def read_csv(content: bytes, key: str = "", *, columns: Sequence[str] = ()) -> dict[str, Points]:
    """Read points of all images from a table with a row for each head.

    Its header names the columns of image, x and y, by ``COLUMN_NAMES``; others are left out.
    Columns are separated by commas, semicolons or tabs. A row with an image alone marks an empty
    scene.

    Args:
        content: The table, in UTF-8 or UTF-16.
        key: Label of a head, in the table of VIA; empty: the only one.
        columns: Names of the columns of image, x and y, or their numbers from 1.
    """
    text = decoded(content)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text))
    heads: dict[str, list[tuple[float, float]]] = {}
    empty: set[str] = set()
    try:
        header = next(rows, [])
        if _is_via_header(header):
            names = [cell.strip().lstrip("#") for cell in header]
            found = (dict(zip(names, row, strict=False)) for row in rows if len(row) == len(names))
            return _of_tool("via", via_rows(list(found), load_json), key)
        places = _places(header, columns)
        if places is None:
            raise ValueError(
                f"the first line is {','.join(header)!r}, expected {','.join(CSV_HEADER)!r}"
            )
        first = [header] if not _holds_names(header, places) else []
        for row in (*first, *rows):
            if not any(cell.strip() for cell in row):
                continue
            image, head = _csv_row(row, places, line=rows.line_num)
            heads.setdefault(image, []).extend(head)
            if not head:
                empty.add(image)
            if heads[image] and image in empty:
                raise ValueError(f"line {rows.line_num}: {image} is said to be empty and has heads")
    except csv.Error as error:
        raise ValueError(f"line {rows.line_num}: {error}") from error
    return {image: as_points(listed) for image, listed in heads.items()}


def read_json(content: bytes, key: str) -> dict[str, Points]:  # noqa: ARG001 - a table's signature
    """Read points of all images from an object ``{"a.jpg": [[x, y], ...], "empty.jpg": []}``."""
    if _is_earlier_json(content):
        raise ValueError(
            "this form of JSON is no longer read; write one object with the points of each image: "
            '{"a.jpg": [[120.5, 80], [131, 92.25]], "empty.jpg": []}'
        )
    images = load_json(decoded(content))
    if not isinstance(images, dict):
        raise ValueError(f"expected an object, found {excerpt(images)}")
    table: dict[str, Points] = {}
    for image, heads in images.items():
        if not image.strip():
            raise ValueError(f"expected the path of an image, found {image!r}")
        name = plain_path(image)
        if name in table:
            raise ValueError(f"{name} occurs twice")
        table[name] = _json_points(heads, where=excerpt(image))
    return table


def read_tool(content: bytes, key: str) -> dict[str, Points]:
    """Read points from a file of an annotation tool: ``JSON_TOOLS``, or the XML of CVAT.

    Args:
        content: The file.
        key: Label of a head; empty: one of ``PEOPLE``, or the only one.
    """
    if _begins_like_xml(content):
        images, shapes = read_cvat(content)
        return _plain(heads_by_image(images, shapes, label=key))
    value = load_json(decoded(content))
    for name, tool in JSON_TOOLS.items():
        if tool.recognises(value):
            return _of_tool(name, value, key)
    raise ValueError("not a file of an annotation tool that is read")


def read_table(content: bytes, key: str) -> dict[str, Points]:
    """Read points of all images from a table in any of these formats."""
    if begins_like_csv(content):
        return read_csv(content, key)
    if begins_like_json(content):
        return read_json(content, key)
    if begins_like_tool(content):
        return read_tool(content, key)
    raise ValueError("not a table of points")


def begins_like_csv(content: bytes, *, columns: Sequence[str] = ()) -> bool:
    """Return whether the first line names columns of image, x and y, or the columns of VIA."""
    try:
        first = decoded(content[:20_000].rpartition(b"\n")[0] or content[:20_000])
    except ValueError:
        return False
    line = re.split(r"[\r\n]", first, maxsplit=1)[0]
    try:
        header = next(csv.reader([line], delimiter=_delimiter(line)), [])
    except csv.Error:
        return False
    return _is_via_header(header) or _places(header, columns) is not None


def begins_like_json(content: bytes) -> bool:
    """Return whether a file begins like JSON of points, in the form read now or an earlier one."""
    return bool(_JSON_OBJECT.match(_after_mark(content)[:5000])) or _is_earlier_json(content)


def begins_like_tool(content: bytes) -> bool:
    """Return whether a file is one of an annotation tool."""
    if _begins_like_xml(content):
        return b"<annotations" in content[:5000]
    if _after_mark(content)[:1] not in (b"{", b"["):
        return False
    try:
        value = load_json(decoded(content))
    except ValueError:
        return False
    return any(tool.recognises(value) for tool in JSON_TOOLS.values())


def begins_like_table(content: bytes) -> bool:
    """Return whether a file begins like a table of points in any of these formats."""
    return begins_like_csv(content) or begins_like_json(content) or begins_like_tool(content)


def plain_path(text: str) -> str:
    """Return a path of a table without ``./`` at its start."""
    return str(PurePosixPath(text.strip()))


def decoded(content: bytes) -> str:
    """Decode a text in UTF-8, or in UTF-16 with a byte-order mark."""
    encoding = next(
        (name for mark, name in _BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8"
    )
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError("not a text in UTF-8") from error


def load_json(text: str) -> Any:
    """Load a JSON text; all numbers become floats, so that the largest are infinite."""

    def build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            names = [name for name, _ in pairs]
            repeated = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"{excerpt(repeated)} occurs twice in one object")
        return values

    try:
        return json.loads(text, parse_int=float, object_pairs_hook=build_object)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"line {error.lineno}: not JSON: {error.msg} at column {error.colno}"
        ) from error
    except RecursionError as error:
        raise ValueError("not JSON of points: nested too deeply") from error


def as_points(value: Any) -> Points:
    """Convert an array of any numeric type to points; empty arrays of any shape hold no heads."""
    array = np.asarray(value)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"expected numbers, found {array.dtype}")
    if array.size == 0:
        return np.zeros((0, 2))
    if array.ndim != 2 or array.shape[1] != 2:
        raise ValueError(f"expected one row (x, y) for each head, found an array of {array.shape}")
    return array.astype(np.float64)


def excerpt(value: Any) -> str:
    """Return a value short enough for a message."""
    text = value if isinstance(value, str) else json.dumps(value)
    return repr(text if len(text) <= 40 else f"{text[:37]}...")


def _of_tool(name: str, value: Any, label: str) -> dict[str, Points]:
    images, shapes = JSON_TOOLS[name].read(value)
    return _plain(heads_by_image(images, shapes, label=label))


def _plain(heads: Mapping[str, list[tuple[float, float]]]) -> dict[str, Points]:
    return {plain_path(image): as_points(listed) for image, listed in heads.items()}


def _begins_like_xml(content: bytes) -> bool:
    return _after_mark(content).startswith(b"<")


def _is_earlier_json(content: bytes) -> bool:
    start = _after_mark(content)
    return bool(_JSON_LIST.match(start[:5000]) or _JSON_LINE.match(start))


def _after_mark(content: bytes) -> bytes:
    """Return a text without byte-order mark and leading space."""
    return content.removeprefix(codecs.BOM_UTF8).lstrip()


def _delimiter(text: str) -> str:
    """Return the sign that separates the columns of the first line."""
    first = re.split(r"[\r\n]", text[:20_000], maxsplit=1)[0]
    return max((",", ";", "\t"), key=first.count)


def _is_via_header(header: Sequence[str]) -> bool:
    return set(VIA_COLUMNS) <= {cell.strip().lstrip("#") for cell in header}


def _places(header: Sequence[str], columns: Sequence[str]) -> tuple[int, int, int] | None:
    """Return the columns of image, x and y, from 0; None if the header does not have them."""
    cells = [cell.strip().lower() for cell in header]
    if columns and all(re.fullmatch(r"[0-9]{1,4}", name) for name in columns):
        found = [int(name) - 1 for name in columns]
        return _three(found) if min(found) >= 0 and max(found) < len(cells) else None
    wanted = [(name.strip().lower(),) for name in columns] or COLUMN_NAMES
    places = []
    for names in wanted:
        name = next((name for name in names if name in cells), None)
        if name is None:
            return None
        places.append(cells.index(name))
    return _three(places)


def _three(places: Sequence[int]) -> tuple[int, int, int]:
    image, x, y = places
    return image, x, y


def _holds_names(header: Sequence[str], places: tuple[int, int, int]) -> bool:
    """Return whether a first line names its columns, and is not a head."""
    try:
        _number(header[places[1]])
    except ValueError:
        return True
    return False


def _csv_row(
    row: list[str], places: tuple[int, int, int], *, line: int
) -> tuple[str, list[tuple[float, float]]]:
    """Return the image of a row, and a list with its head, if any."""
    if len(row) <= max(places) or not row[places[0]].strip():
        raise ValueError(f"line {line}: expected {','.join(CSV_HEADER)}, found {','.join(row)!r}")
    image, x, y = (row[place].strip() for place in places)
    if not x and not y:
        return plain_path(image), []
    try:
        return plain_path(image), [(_number(x), _number(y))]
    except ValueError as error:
        raise ValueError(f"line {line}: x and y must be numbers, found {x!r} and {y!r}") from error


def _number(text: str) -> float:
    """Read a number, whose decimal sign is a comma in some countries."""
    return float(text.replace(",", ".") if text.count(",") == 1 and "." not in text else text)


def _json_points(heads: Any, *, where: str) -> Points:
    if not isinstance(heads, list):
        raise ValueError(f"{where}: expected a list of points [x, y], found {excerpt(heads)}")
    points = [[head["x"], head["y"]] if _is_xy(head) else head for head in heads]
    for number, head in enumerate(points, start=1):
        # Not isinstance: true and false are numbers to Python.
        if not isinstance(head, list) or [type(value) for value in head] != [float, float]:
            raise ValueError(f"{where}: point {number}: expected [x, y], found {excerpt(head)}")
    return as_points(points)


def _is_xy(head: Any) -> bool:
    return isinstance(head, dict) and {"x", "y"} <= head.keys()
