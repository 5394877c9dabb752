"""The journal of a prepared folder, from which a killed run is resumed."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, TextIO

import pydantic
from pydantic import ConfigDict, TypeAdapter

from crowdcount.core.settings import STRICT
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
from crowdcount.files import is_temporary, naming, sha256_bytes, write_text


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Source and settings of a prepared folder; its files are kept only if these are the same."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    name: str
    recipe: str
    settings: PreprocessConfig
    resize: ResizeRule
    points: PointsFormat


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """The result of an earlier run in a prepared folder."""

    manifest: Manifest | None
    """None if no run was finished."""

    records: dict[str, ImageRecord]
    """Records of its images, by name."""

    versions: Versions
    """Software that wrote its files."""


def read_earlier(folder: Path, origin: Origin, *, force: bool) -> Earlier:
    """Read the result of an earlier run in a folder; ``force`` ignores it.

    Raises:
        UsageError: If the folder holds other files, or was prepared from another origin.
        BadInputError: If its manifest is damaged.
    """
    empty = Earlier(manifest=None, records={}, versions={})
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file", next_step="choose another --out")
    if not folder.exists() or all(_is_leftover(path) for path in folder.iterdir()):
        return empty
    unfinished, finished = (folder / JOURNAL).is_file(), (folder / MANIFEST).is_file()
    if not unfinished and not finished:
        raise UsageError(
            f"{folder}: holds files that are not a prepared data set",
            next_step="choose another --out, or empty the folder",
        )
    if force:
        return empty
    manifest = None if unfinished else read_manifest(folder)
    if manifest is None:
        start, records = _read_journal(folder / JOURNAL)
    else:
        start = _Start(origin=_origin(manifest), versions=manifest.versions)
        records = list(manifest.images)
    for key in (field.name for field in fields(Origin)):
        old, new = getattr(start.origin, key), getattr(origin, key)
        if old != new:
            raise UsageError(
                f"{folder}: was prepared with another {key}: {_difference(old, new)}",
                next_step="choose another --out, or pass --force to prepare it anew",
            )
    return Earlier(
        manifest=manifest,
        records={record.name: record for record in records},
        versions=start.versions,
    )


def start_journal(
    folder: Path, origin: Origin, records: Iterable[ImageRecord], *, versions: Versions
) -> None:
    """Write a journal with earlier records and remove the manifest: the folder is unfinished."""
    lines = [_Start(origin=origin, versions=versions), *records]
    write_text(folder / JOURNAL, "".join(map(journal_line, lines)))
    (folder / MANIFEST).unlink(missing_ok=True)


def open_journal(folder: Path) -> TextIO:
    """Open the journal of an unfinished folder to add records."""
    return (folder / JOURNAL).open("a", encoding="utf-8")


def add_record(record: ImageRecord, journal: TextIO) -> None:
    """Add the record of a finished image, flushed so that it survives the end of the process."""
    with naming(Path(journal.name)):
        journal.write(journal_line(record))
        journal.flush()


def journal_line(value: Any) -> str:
    """Write a line of a journal: JSON, a tab, and its hash, without which it is not believed."""
    text = json.dumps(value, default=vars)
    return f"{text}\t{sha256_bytes(text.encode())}\n"


def _verified(line: bytes) -> bytes | None:
    """Return the JSON of a line; None: it was cut off, damaged, or written by an old version."""
    text, _, digest = line.rpartition(b"\t")
    return text if sha256_bytes(text).encode() == digest else None


def unlisted_files(folder: Path, manifest: Manifest) -> list[Path]:
    """List files that the manifest does not name: removed images, leftovers of a killed run.

    Other files beside the manifest, such as bins, are ignored.
    """
    named = {
        path
        for record in manifest.images
        for path in prepared_paths(folder, split=record.split, file=record.file)
    }
    paths = (path for split in SPLITS for path in (folder / split).rglob("*"))
    files = (path for path in paths if path.is_symlink() or not path.is_dir())
    return sorted([*(set(files) - named), *filter(_is_leftover, folder.iterdir())])


def remove_unlisted(folder: Path, manifest: Manifest) -> None:
    """Remove files that the manifest does not name, and folders that are then empty."""
    for path in unlisted_files(folder, manifest):
        path.unlink()
    folders = (path for split in SPLITS for path in (folder / split, *(folder / split).rglob("*")))
    # Deepest first, so that a folder is empty by its turn.
    for path in sorted(filter(Path.is_dir, folders), reverse=True):
        if not any(path.iterdir()):
            path.rmdir()


@dataclass(frozen=True, kw_only=True)
class _Start:
    """First line of a journal."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    origin: Origin
    versions: Versions


def _difference(old: Any, new: Any) -> str:
    """Describe a difference, of settings by the fields that differ."""
    if not is_dataclass(old) or type(old) is not type(new):
        return f"{old}, not {new}"
    pairs = (
        (field.name, getattr(old, field.name), getattr(new, field.name)) for field in fields(old)
    )
    return "; ".join(f"{name} {a}, not {b}" for name, a, b in pairs if a != b)


def _origin(manifest: Manifest) -> Origin:
    return Origin(**{field.name: getattr(manifest, field.name) for field in fields(Origin)})


def _read_journal(journal: Path) -> tuple[_Start, list[ImageRecord]]:
    """Read the first line of a journal and those of its records that can be believed."""
    first, *lines = journal.read_bytes().split(b"\n")
    adapter = TypeAdapter(ImageRecord)
    try:
        records = [adapter.validate_json(text) for text in map(_verified, lines) if text]
        # Old versions wrote no hashes; their folder is prepared anew if it has this origin.
        start = first if b"\t" not in first else _verified(first) or b""
        return TypeAdapter(_Start).validate_json(start), records
    except (pydantic.ValidationError, ConfigError) as error:
        raise BadInputError(
            f"{journal}: damaged", next_step="prepare the data set again, with --force"
        ) from error


def _is_leftover(path: Path) -> bool:
    """Return whether a file was left by :func:`crowdcount.files.atomic_file` when it was killed."""
    return path.is_file() and is_temporary(path)
