"""Counts of image files, one record a file, with heatmaps where they are wanted."""

import base64
import csv
import io
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from PIL import Image, PngImagePlugin

from crowdcount.core.limits import MAX_PIXELS
from crowdcount.core.progress import Track, untracked
from crowdcount.errors import CrowdCountError, InputMissingError, UsageError
from crowdcount.files import atomic_file, write_bytes
from crowdcount.models.checkpoints.names import ResolvedCheckpoint
from crowdcount.workflows.counter import Count, Counter, load

log = logging.getLogger("crowdcount")

SCHEMA_VERSION = 1
HEATMAP_FOLDER = Path("heatmaps")
PNG_AUTHOR = "crowdcount"


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What is said of one image file: a count, or why there is none."""

    path: Path
    model: str
    width: int | None = None
    height: int | None = None
    """Pixels of the upright image."""

    count: float | None = None
    heatmap: Path | None = None
    error: CrowdCountError | None = None

    def to_json(self) -> dict[str, Any]:
        """The record of this image as ``docs/predict.schema.json`` describes it."""
        record: dict[str, Any] = {"schema": SCHEMA_VERSION, **json_path(self.path)}
        record["model"] = self.model
        if self.error is not None:
            return record | {"error": str(self.error)}
        record |= {"width": self.width, "height": self.height, "count": self.count}
        return record | {"heatmap": None if self.heatmap is None else str(self.heatmap)}


def json_path(path: Path) -> dict[str, str]:
    """A path for JSON: as text, and where it is not UTF-8 also as base64 of its bytes."""
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
        counter: What counts.
        paths: Image files.
        scale: Overrides the working size of the counter.
        max_pixels: Larger images are refused by their header.
        heatmaps: Folder for the heatmaps; None: none are made.
        force: Let a heatmap replace a file that is no heatmap.
        strict: Raise at the first file that fails.

    Raises:
        CrowdCountError: If ``strict`` is set and a file fails.
    """
    drawn_to: Sequence[Path | None] = [None] * len(paths)
    if heatmaps is not None:
        drawn_to = heatmap_paths(paths, folder=heatmaps)
    for path, drawn in zip(paths, drawn_to, strict=True):
        try:
            seen = counter.count(path, scale=scale, max_pixels=max_pixels)
            if drawn is not None:
                save_heatmap(seen, drawn, force=force)
        except CrowdCountError as error:
            if strict:
                raise
            yield Prediction(path=path, model=counter.name, error=error)
            continue
        yield Prediction(
            path=path,
            model=counter.name,
            width=seen.result.width,
            height=seen.result.height,
            count=seen.total,
            heatmap=drawn,
        )


def predict_files(
    model: ResolvedCheckpoint,
    images: Sequence[Path],
    *,
    form: str,
    output: Path | Callable[[bytes], None],
    scale: float | None = None,
    max_pixels: int = MAX_PIXELS,
    heatmaps: Path | None = None,
    device: str = "auto",
    precision: str = "fp32",
    force: bool = False,
    strict: bool = False,
    dry_run: bool = False,
    track: Track = untracked,
) -> int:
    """Count images and write the records; log failures and heatmaps.

    Args:
        model: The checkpoint.
        images: Image files.
        form: Key of ``FORMATS``.
        output: A file, or a function that gets each piece as soon as it is known.
        scale: See :func:`predict`.
        max_pixels: See :func:`predict`.
        heatmaps: See :func:`predict`.
        device: Device to count on.
        precision: Number format of the network.
        force: See :func:`predict`.
        strict: See :func:`predict`.
        dry_run: Log what would be done, and do nothing.
        track: Progress reporting.

    Returns:
        Number of images that failed.

    Raises:
        InputMissingError: If no image exists.
    """
    require_some(images)
    log.info("model %s", model)
    if dry_run:
        target = "stdout" if callable(output) else output
        log.info("%d images to count into %s", len(images), target)
        for path in heatmap_paths(images, folder=heatmaps) if heatmaps else ():
            log.info("heatmap to draw %s", path)
        return 0
    predictions = predict(
        load(model, device=device, precision=precision),
        images,
        scale=scale,
        max_pixels=max_pixels,
        heatmaps=heatmaps,
        force=force,
        strict=strict,
    )
    failed = 0

    def watched() -> Iterator[Prediction]:
        nonlocal failed
        for each in track(predictions, label="counting", total=len(images)):
            if each.error is not None:
                failed += 1
                log.error("%s", each.error)
            if each.heatmap is not None:
                log.info("heatmap %s", each.heatmap)
            yield each

    pieces = FORMATS[form](watched())
    if callable(output):
        for piece in pieces:
            output(piece)
    else:
        write_bytes(output, b"".join(pieces))
    if failed:
        log.error("%d of %d images failed", failed, len(images))
    return failed


def _text(predictions: Iterable[Prediction]) -> Iterator[bytes]:
    r"""Format paths and counts; backslash, tab and newline in a path become ``\\ \t \n``."""
    for each in predictions:
        path = os.fsencode(each.path).replace(b"\\", b"\\\\")
        yield path.replace(b"\t", b"\\t").replace(b"\n", b"\\n") + b"\t" + _count(each)


def _count(prediction: Prediction) -> bytes:
    return b"nan\n" if prediction.count is None else f"{prediction.count:.1f}\n".encode()


def _json(predictions: Iterable[Prediction]) -> Iterator[bytes]:
    yield (json.dumps([each.to_json() for each in predictions], indent=2) + "\n").encode()


def _csv(predictions: Iterable[Prediction]) -> Iterator[bytes]:
    row = io.StringIO()
    writer = csv.DictWriter(row, CSV_FIELDS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for each in predictions:
        writer.writerow(each.to_json())
        yield row.getvalue().encode()
        row.seek(0)
        row.truncate()


CSV_FIELDS = ("path", "width", "height", "count", "model", "heatmap", "error")
FORMATS: Mapping[str, Callable[[Iterable[Prediction]], Iterator[bytes]]] = MappingProxyType(
    {
        "text": _text,
        "count": lambda predictions: map(_count, predictions),
        "json": _json,
        "jsonl": lambda predictions: (
            (json.dumps(each.to_json()) + "\n").encode() for each in predictions
        ),
        "csv": _csv,
    }
)


def require_some(paths: Sequence[Path]) -> None:
    """Refuse to load a model when none of the files is there.

    Raises:
        InputMissingError: If no path exists.
    """
    if not any(path.exists() for path in paths):
        named = ", ".join(str(path) for path in paths[:3])
        raise InputMissingError(
            f"no such file: {named}{', ...' if len(paths) > 3 else ''}",
            next_step="name image files that are there",
        )


def heatmap_paths(paths: Sequence[Path], *, folder: Path) -> list[Path]:
    """Where the heatmap of each file goes: its path below the common folder, ``.png`` added.

    Args:
        paths: Image files.
        folder: The folder for the heatmaps; none goes outside it.
    """
    # abspath and not Path.absolute: a `..` that is kept would lead out of the folder.
    files = [Path(os.path.abspath(path)) for path in paths]  # noqa: PTH100
    root = os.path.commonpath([file.parent for file in files])
    return [folder / f"{file.relative_to(root)}.png" for file in files]


def save_heatmap(count: Count, path: Path, *, force: bool = False) -> None:
    """Write a heatmap as PNG. An earlier heatmap is replaced, another file is not.

    Raises:
        UsageError: If another file is there and ``force`` is not set.
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
    # Opening a pipe would wait for somebody to write into it.
    if not path.is_file():
        return False
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            return picture.info.get("Software") == PNG_AUTHOR
    # Pillow raises whatever a damaged file makes it run into.
    except Exception:  # noqa: BLE001
        return False
