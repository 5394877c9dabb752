"""The files of a split: path patterns of a recipe, lists of ids, tables of points."""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from crowdcount.data.sources.annotations import PointsFormat
from crowdcount.data.sources.images import IMAGE_SUFFIXES, read_content
from crowdcount.data.sources.recipe import Recipe, SplitLayout, in_range
from crowdcount.errors import BadInputError
from crowdcount.wording import natural_key

_PLACEHOLDERS = {"*": "[^/]*", "?": "[^/]", "{id}": "(?P<id>[^/]+)", "{group}": "(?P<group>[^/]+)"}


@dataclass(frozen=True, kw_only=True)
class PatternMatch:
    """A file that matches a path pattern."""

    path: Path
    file: str
    """Path below the folder that the pattern names literally, with ``/``."""

    id: str
    """The text matched by ``{id}``; empty where the pattern has none."""


def image_files(root: Path, layout: SplitLayout) -> list[PatternMatch]:
    """List the images of a split: matches of its patterns within its list and range of ids.

    Raises:
        BadInputError: If a name is not UTF-8.
    """
    listed = None if layout.list is None else set(listed_ids(root, layout.list))
    if listed is not None and not listed:
        return []
    images = [
        match
        for pattern in layout.images
        for match in _matches(root, pattern)
        if match.path.suffix.lower() in IMAGE_SUFFIXES
        and (listed is None or match.id in listed)
        and (layout.ids is None or in_range(match.id, layout.ids))
    ]
    for image in images:
        try:
            image.file.encode("utf-8")
        except UnicodeEncodeError as error:
            raise BadInputError(
                f"{str(image.path)!r}: the name is not in UTF-8, which a manifest needs",
                next_step="rename the image",
            ) from error
    return images


def missing_lists(root: Path, recipe: Recipe) -> list[str]:
    """Return the lists of annotated splits that do not exist, where some images are in no list."""
    listed = {
        image.path for layout in recipe.splits.values() for image in image_files(root, layout)
    }
    return [
        layout.list
        for layout in recipe.labelled.values()
        if layout.list is not None
        and not _matches(root, layout.list)
        and any(image.path not in listed for image in image_files(root, replace(layout, list=None)))
    ]


def listed_ids(root: Path, name: str) -> list[str]:
    """Read the ids of a list file in its order; none where the file does not exist."""
    lists = _matches(root, name)
    if not lists:
        return []
    try:
        text = read_content(lists[0].path, what="list").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInputError(f"{lists[0].path}: not a list in UTF-8") from error
    fields = (re.split(r"[\s,]", line.strip(), maxsplit=1)[0] for line in text.splitlines())
    return list(dict.fromkeys(_listed_id(field) for field in fields if field))


def _listed_id(field: str) -> str:
    """Return the id in a field of a list, which may name the image with its folder and ending."""
    path = PurePosixPath(field.replace("\\", "/"))
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name


def annotation_files(root: Path, layout: SplitLayout) -> dict[str, Path]:
    """Map each id to its annotation file; the first of several patterns wins."""
    files: dict[str, Path] = {}
    for pattern in layout.points:
        for match in _matches(root, pattern):
            files.setdefault(match.id, match.path)
    return files


def table_files(root: Path, layout: SplitLayout, points: PointsFormat) -> list[Path]:
    """List the tables of points of a split: pattern matches that begin like their format."""
    paths = [match.path for pattern in layout.points for match in _matches(root, pattern)]
    return [path for path in paths if points.is_table_of_points(read_content(path, what="table"))]


def groups_of(files: Iterable[str], pattern: str) -> dict[str, str]:
    """Map each file that matches the pattern to the text matched by its ``{group}``."""
    expression = _expression(PurePosixPath(pattern).parts)
    return {file: match["group"] for file in files if (match := expression.fullmatch(file))}


def subfolders(folder: Path) -> list[Path]:
    """List the visible folders inside a folder in natural order; none where it is unreadable."""
    try:
        with os.scandir(folder) as entries:
            children = [folder / entry.name for entry in entries if entry.is_dir()]
    except OSError:
        return []
    visible = (child for child in children if not _is_hidden(child.name))
    return sorted(visible, key=lambda child: natural_key(child.name))


def _matches(root: Path, pattern: str) -> list[PatternMatch]:
    """List the visible files below ``root`` that match ``pattern``, in natural order."""
    parts = PurePosixPath(pattern).parts
    literal = next(
        i
        for i, part in enumerate(parts)
        if any(sign in part for sign in "*?{") or i == len(parts) - 1
    )
    folder, rest = _folder(root, parts[:literal]), parts[literal:]
    expression = _expression(rest)
    matches = []
    for path in _files_below(folder, levels=None if "**" in rest else len(rest) - 1):
        file = path.relative_to(folder).as_posix()
        if match := expression.fullmatch(file):
            matches.append(PatternMatch(path=path, file=file, id=match.groupdict().get("id", "")))
    return sorted(matches, key=lambda match: natural_key(match.file))


def _folder(root: Path, parts: Sequence[str]) -> Path:
    """Follow folder names below ``root``, ignoring case where no name matches exactly."""
    for part in parts:
        child = root / part
        if not child.exists():
            alike = (folder for folder in subfolders(root) if folder.name.lower() == part.lower())
            child = next(alike, child)
        root = child
    return root


def _expression(parts: Sequence[str]) -> re.Pattern[str]:
    """Compile the parts of a path pattern, ignoring case, as in ``.JPG``."""
    last = len(parts) - 1
    text = ""
    for i, part in enumerate(parts):
        if part == "**":
            text += "(?:.*/)?"
            continue
        pieces = re.split(r"(\*|\?|\{id\}|\{group\})", part)
        text += "".join(_PLACEHOLDERS.get(piece, re.escape(piece)) for piece in pieces)
        text += "/" if i < last else ""
    return re.compile(text, re.IGNORECASE)


def _files_below(folder: Path, *, levels: int | None) -> Iterator[Path]:
    """Yield the visible files of a folder and of ``levels`` below it; None: of all below it."""
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise BadInputError(f"{folder}: cannot be read: {error}") from error
    below = None if levels is None else levels - 1
    for entry in entries:
        if _is_hidden(entry.name):
            continue
        if entry.is_file():
            yield folder / entry.name
        elif (below is None or below >= 0) and entry.is_dir(follow_symlinks=False):
            yield from _files_below(folder / entry.name, levels=below)


def _is_hidden(name: str) -> bool:
    """Return whether a name is hidden, or a folder that macOS adds to archives."""
    return name.startswith(".") or name == "__MACOSX"
