"""Counting image files: one record per file, and a heatmap if wanted."""

import base64
import csv
import io
import json
import logging
import os
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from PIL import Image, PngImagePlugin

from crowdcount.core.limits import MAX_PIXELS
from crowdcount.errors import CrowdCountError, InputMissingError, UsageError
from crowdcount.files import atomic_file
from crowdcount.workflows.counter import Count, Counter

log = logging.getLogger("crowdcount")

SCHEMA_VERSION = 1
HEATMAP_FOLDER = Path("heatmaps")
PNG_AUTHOR = "crowdcount"


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The count of one image file, or the error in its place."""

    path: Path
    model: str
    width: int | None = None
    height: int | None = None
    """Pixels of the upright image."""

    count: float | None = None
    heatmap: Path | None = None
    error: CrowdCountError | None = None

    def to_json(self) -> dict[str, Any]:
        """Convert to the record that ``docs/predict.schema.json`` describes."""
        record: dict[str, Any] = {"schema": SCHEMA_VERSION, **json_path(self.path)}
        record["model"] = self.model
        if self.error is not None:
            return record | {"error": str(self.error)}
        record |= {"width": self.width, "height": self.height, "count": self.count}
        return record | {"heatmap": None if self.heatmap is None else str(self.heatmap)}


def json_path(path: Path) -> dict[str, str]:
    """Return the JSON fields of a path: text, and base64 of its bytes where it is not UTF-8."""
    raw = os.fsencode(path)
    try:
        return {"path": raw.decode("utf-8")}
    except UnicodeDecodeError:
        encoded = base64.b64encode(raw).decode("ascii")
        return {"path": raw.decode("utf-8", errors="replace"), "path_bytes": encoded}


def predict(
    counter: Counter,
    paths: Sequence[Path],
    *,
    scale: float | None = None,
    max_pixels: int = MAX_PIXELS,
    heatmaps: Path | None = None,
    force: bool = False,
    strict: bool = False,
) -> Iterator[Prediction]:
    """Count each file, in order. A file that fails becomes a record with an error.

    Args:
        counter: The counter.
        paths: Image files.
        scale: Factor by which images are resized, in place of the counter's working size.
        max_pixels: Largest size of an image, checked before it is decoded.
        heatmaps: Folder for the heatmaps; None: none are drawn.
        force: Let a heatmap replace a file that is not a heatmap.
        strict: Raise at the first file that fails.

    Raises:
        CrowdCountError: If ``strict`` is set and a file fails.
    """
    targets = heatmap_paths(paths, folder=heatmaps) if heatmaps else [None] * len(paths)
    for path, target in zip(paths, targets, strict=True):
        try:
            count = counter.count(path, scale=scale, max_pixels=max_pixels)
            if target is not None:
                save_heatmap(count, target, force=force)
        except CrowdCountError as error:
            if strict:
                raise
            yield Prediction(path=path, model=counter.name, error=error)
            continue
        yield Prediction(
            path=path,
            model=counter.name,
            width=count.result.width,
            height=count.result.height,
            count=count.total,
            heatmap=target,
        )


@dataclass(frozen=True, kw_only=True)
class Format:
    """A format of records, which are written one by one."""

    record: Callable[[Prediction], bytes]
    start: bytes = b""
    between: bytes = b""
    end: bytes = b""


def write_predictions(
    predictions: Iterable[Prediction], *, form: str, write: Callable[[bytes], None]
) -> int:
    """Write each record as soon as it is known; log errors and heatmaps.

    When counting ends early, by an error or a signal, the output is complete but for the images
    that were not counted.

    Args:
        predictions: The records.
        form: Key of ``FORMATS``.
        write: Writes bytes.

    Returns:
        Number of images that failed.
    """
    layout = FORMATS[form]
    images = failed = 0
    try:
        for prediction in predictions:
            if prediction.error is not None:
                failed += 1
                log.error("%s", prediction.error)
            if prediction.heatmap is not None:
                log.info("heatmap %s", prediction.heatmap)
            write((layout.between if images else layout.start) + layout.record(prediction))
            images += 1
    finally:
        write(layout.end if images else layout.start + layout.end)
    if failed:
        log.error("%d of %d images failed", failed, images)
    return failed


def _text(prediction: Prediction) -> bytes:
    r"""Format path and count; backslash, tab and newline in a path become ``\\ \t \n``."""
    path = os.fsencode(prediction.path).replace(b"\\", b"\\\\")
    return path.replace(b"\t", b"\\t").replace(b"\n", b"\\n") + b"\t" + _count(prediction)


def _count(prediction: Prediction) -> bytes:
    return b"nan\n" if prediction.count is None else f"{prediction.count:.1f}\n".encode()


def _json(prediction: Prediction) -> bytes:
    return textwrap.indent(json.dumps(prediction.to_json(), indent=2), "  ").encode()


def _json_line(prediction: Prediction) -> bytes:
    return (json.dumps(prediction.to_json()) + "\n").encode()


def _csv(prediction: Prediction) -> bytes:
    row = io.StringIO()
    writer = csv.DictWriter(row, CSV_FIELDS, extrasaction="ignore", lineterminator="\n")
    writer.writerow(prediction.to_json())
    return row.getvalue().encode()


CSV_FIELDS = ("path", "width", "height", "count", "model", "heatmap", "error")
FORMATS: Mapping[str, Format] = MappingProxyType(
    {
        "text": Format(record=_text),
        "count": Format(record=_count),
        "json": Format(record=_json, start=b"[\n", between=b",\n", end=b"\n]\n"),
        "jsonl": Format(record=_json_line),
        "csv": Format(record=_csv, start=f"{','.join(CSV_FIELDS)}\n".encode()),
    }
)


def require_some(paths: Sequence[Path]) -> None:
    """Refuse paths if none of them exists, before a model is loaded.

    Raises:
        InputMissingError: If no path exists.
    """
    if not any(path.exists() for path in paths):
        names = ", ".join(map(str, paths[:3]))
        raise InputMissingError(
            f"no such file: {names}{', ...' if len(paths) > 3 else ''}",
            next_step="name image files that exist",
        )


def heatmap_paths(paths: Sequence[Path], *, folder: Path) -> list[Path]:
    """Return the heatmap of each file: its path below the common folder, moved to ``folder``."""
    # abspath and not Path.absolute: a remaining `..` would lead out of the folder.
    files = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100
    root = os.path.commonpath([file.parent for file in files])
    return [folder / f"{file.relative_to(root)}.png" for file in files]


def save_heatmap(count: Count, path: Path, *, force: bool = False) -> None:
    """Write a heatmap as PNG. It replaces an earlier heatmap, but no other file.

    Raises:
        UsageError: If another file exists there and ``force`` is not set.
    """
    if path.exists() and not force and not _is_heatmap(path):
        raise UsageError(
            f"{path}: already exists and is not a heatmap of ours",
            next_step="name another folder (--heatmap-dir), or pass --force",
        )
    author = PngImagePlugin.PngInfo()
    author.add_text("Software", PNG_AUTHOR)
    with atomic_file(path) as temporary:
        count.heatmap().save(temporary, format="PNG", pnginfo=author)


def _is_heatmap(path: Path) -> bool:
    if not path.is_file():  # opening a pipe would block
        return False
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            return picture.info.get("Software") == PNG_AUTHOR
    # Pillow raises any kind of exception on a damaged file.
    except Exception:  # noqa: BLE001
        return False
