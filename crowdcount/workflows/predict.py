"""Counts of image files, one record a file, with heatmaps where they are wanted."""

import base64
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from crowdcount.core.limits import MAX_PIXELS
from crowdcount.errors import CrowdCountError, InputMissingError, UsageError
from crowdcount.files import atomic_file
from crowdcount.workflows.counter import Count, Counter

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
