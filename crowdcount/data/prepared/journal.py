"""What an earlier run left in a prepared folder, and the journal that lets a killed run go on."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TextIO

import pydantic
from pydantic import TypeAdapter

from crowdcount.data.prepared.manifest import (
    JOURNAL,
    MANIFEST,
    ImageRecord,
    Manifest,
    PreprocessConfig,
    prepared_paths,
    read_manifest,
)
from crowdcount.data.prepared.versions import Versions
from crowdcount.data.sources.annotations import PointsFormat
from crowdcount.data.sources.recipe import SPLITS
from crowdcount.data.sources.resize import ResizeRule
from crowdcount.errors import BadInputError, ConfigError, UsageError
from crowdcount.files import is_temporary, write_text


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a folder must have been prepared from, and how, for its files to be kept."""

    name: str
    recipe: str
    settings: PreprocessConfig
    resize: ResizeRule
    points: PointsFormat


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """What an earlier run left in a prepared folder."""

    manifest: Manifest | None
    """None, if no run was finished."""

    records: dict[str, ImageRecord]
    """What it said of its images, by name."""

    versions: Versions
    """What it was done with."""


def read_earlier(folder: Path, origin: Origin, *, force: bool) -> Earlier:
    """What there is in ``folder`` to go on from; with ``force``, nothing.

    Raises:
        UsageError: If the folder holds something else, or was prepared otherwise.
        BadInputError: If its manifest is damaged.
    """
    nothing = Earlier(manifest=None, records={}, versions={})
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file", next_step="choose another --out")
    if not folder.exists() or all(_is_leftover(path) for path in folder.iterdir()):
        return nothing
    unfinished, finished = (folder / JOURNAL).is_file(), (folder / MANIFEST).is_file()
    if not unfinished and not finished:
        raise UsageError(
            f"{folder}: holds files that are no prepared data set",
            next_step="choose another --out, or empty the folder",
        )
    if force:
        return nothing
    manifest = None if unfinished else read_manifest(folder)
    if manifest is None:
        start, records = _read_journal(folder / JOURNAL)
    else:
        start = _Start(origin=_origin(manifest), versions=manifest.versions)
        records = list(manifest.images)
    for key in (field.name for field in fields(Origin)):
        was, would_be = getattr(start.origin, key), getattr(origin, key)
        if was != would_be:
            raise UsageError(
                f"{folder}: was prepared with another {key}: {_difference(was, would_be)}",
                next_step="choose another --out, or pass --force to prepare it anew",
            )
    return Earlier(
        manifest=manifest,
        records={each.name: each for each in records},
        versions=start.versions,
    )


def start_journal(
    folder: Path, origin: Origin, records: Iterable[ImageRecord], *, versions: Versions
) -> None:
    """Turn a folder into an unfinished one, whose journal holds what is known of its images."""
    lines = [asdict(_Start(origin=origin, versions=versions)), *map(asdict, records)]
    write_text(folder / JOURNAL, "".join(json.dumps(line) + "\n" for line in lines))
    (folder / MANIFEST).unlink(missing_ok=True)


def open_journal(folder: Path) -> TextIO:
    """The journal of an unfinished folder, to note images in."""
    return (folder / JOURNAL).open("a", encoding="utf-8")


def add_record(record: ImageRecord, journal: TextIO) -> None:
    """Add a finished image. Flushed, so that it survives the end of the process."""
    journal.write(json.dumps(record, default=vars) + "\n")
    journal.flush()


def unlisted_files(folder: Path, manifest: Manifest) -> list[Path]:
    """Files that the manifest does not name: earlier images in the splits, pieces of a crash.

    Others beside the manifest, such as bins, are none of its business.
    """
    named = {
        path
        for each in manifest.images
        for path in prepared_paths(folder, split=each.split, file=each.file)
    }
    unnamed = [path for split in SPLITS for path in _files(folder / split) if path not in named]
    return sorted([*unnamed, *filter(_is_leftover, folder.iterdir())])


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder, links to folders among them."""
    for inside, folders, files in os.walk(folder):
        yield from map(Path(inside).joinpath, files)
        yield from filter(Path.is_symlink, map(Path(inside).joinpath, folders))


def remove_unlisted(folder: Path, manifest: Manifest) -> None:
    """Remove what the manifest does not name, and folders that are empty then."""
    for path in unlisted_files(folder, manifest):
        path.unlink()
    for split in SPLITS:
        # Deepest first, so that a folder is empty by its turn.
        for inside, _, _ in os.walk(folder / split, topdown=False):
            if not any(Path(inside).iterdir()):
                Path(inside).rmdir()


@dataclass(frozen=True, kw_only=True)
class _Start:
    """First line of a journal."""

    origin: Origin
    versions: Versions


def _difference(was: Any, would_be: Any) -> str:
    """What it was and would be; of settings, only those that differ."""
    if not is_dataclass(was) or type(was) is not type(would_be):
        return f"{was}, not {would_be}"
    names = [field.name for field in fields(was)]
    return "; ".join(
        f"{name} {getattr(was, name)}, not {getattr(would_be, name)}"
        for name in names
        if getattr(was, name) != getattr(would_be, name)
    )


def _origin(manifest: Manifest) -> Origin:
    return Origin(**{field.name: getattr(manifest, field.name) for field in fields(Origin)})


def _read_journal(journal: Path) -> tuple[_Start, list[ImageRecord]]:
    """How a run that was not finished began, and its records."""
    first, *lines = journal.read_bytes().split(b"\n")
    known = TypeAdapter(ImageRecord)
    records = []
    for line in lines:
        try:
            records.append(known.validate_json(line))
        except pydantic.ValidationError:
            continue  # the end of a line that was being written when the run was killed
    try:
        return TypeAdapter(_Start).validate_json(first), records
    except (pydantic.ValidationError, ConfigError) as error:
        raise BadInputError(
            f"{journal}: damaged", next_step="prepare the data set again, with --force"
        ) from error


def _is_leftover(path: Path) -> bool:
    """Whether a file is what :func:`crowdcount.files.atomic_file` leaves when it is killed."""
    return path.is_file() and is_temporary(path)
