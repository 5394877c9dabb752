"""Pair the images of a data set with their annotations, split by split."""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from crowdcount.data.sources.annotations import Points
from crowdcount.data.sources.find import SourceSet
from crowdcount.data.sources.images import read_content
from crowdcount.data.sources.point_tables import begins_like_tool
from crowdcount.data.sources.recipe import SPLITS, SplitLayout, in_range
from crowdcount.data.sources.split_files import (
    PatternMatch,
    annotation_files,
    image_files,
    listed_ids,
    missing_lists,
    table_files,
)
from crowdcount.errors import BadInputError, InputMissingError
from crowdcount.wording import natural_key, shorten

log = logging.getLogger("crowdcount")

Key = TypeVar("Key")


@dataclass(frozen=True, kw_only=True)
class SourceImage:
    """An image of an archive and its annotation."""

    split: str
    file: str
    """Name of the image: its path below the folder of the split's images, with ``/``."""

    path: Path
    annotation: Path
    """Its own annotation file, or the table that holds its points."""

    rows: Points | None = None
    """Its points, if a table holds those of all images."""

    id: str = ""
    """The text matched by the recipe's ``{id}``."""

    @property
    def name(self) -> str:
        """Name of the image in its data set: split and file."""
        return f"{self.split}/{self.file}"


@dataclass(frozen=True, kw_only=True)
class SourceSplit:
    """The images of a split, paired with their annotations."""

    images: tuple[SourceImage, ...]
    unpaired: tuple[str, ...]
    """Files of the images without annotation."""

    looked_for: str
    """Where the annotation of the first of them was expected."""

    absent: tuple[str, ...] = ()
    """Ids without an image that the split's list, or the table of points, names."""


def pair_splits(source: SourceSet) -> dict[str, SourceSplit]:
    """Pair the images of each split that exists with their annotations, in natural order.

    Raises:
        BadInputError: If a table is damaged, two images share a name, or two splits share an image.
        InputMissingError: If the list of a split does not exist, or images that a table names.
    """
    if missing := missing_lists(source.root, source.recipe):
        raise InputMissingError(
            f"{source.root}: {' and '.join(missing)} is missing, which says whose images are whose",
            looked_for=str(source.root / missing[0]),
            next_step="unpack the archive again, or write the list: an id, as in "
            f"{source.recipe.labelled['train'].images[0]}, on each line",
        )
    pair = _pair_by_table if source.recipe.points.is_table else _pair_by_id
    splits = {}
    for split in SPLITS:
        layout = source.recipe.labelled.get(split)
        if layout is not None and (images := image_files(source.root, layout)):
            splits[split] = pair(source, split, layout, images)
    _refuse_shared(source, splits)
    return splits


def _pair_by_id(
    source: SourceSet, split: str, layout: SplitLayout, images: Sequence[PatternMatch]
) -> SourceSplit:
    """Pair each image with the annotation file that has the same ``{id}``."""
    by_id = _by_id(source, split, images)
    files = annotation_files(source.root, layout)
    looked_for = ""
    if unpaired := next((image_id for image_id in by_id if image_id not in files), None):
        first, *others = (source.root / path.replace("{id}", unpaired) for path in layout.points)
        folders = ", ".join(other.parent.name for other in others)
        looked_for = f"{first} (and {folders})" if folders else str(first)
    annotations = {image_id: (file, None) for image_id, file in files.items()}
    absent = _absent_ids(source.root, layout, images)
    return _paired(split, by_id, annotations, looked_for=looked_for, absent=absent)


def _pair_by_table(
    source: SourceSet, split: str, layout: SplitLayout, images: Sequence[PatternMatch]
) -> SourceSplit:
    """Pair each image with its rows of a table, by id or by path.

    A table of ids may hold those of other splits.
    """
    tables = table_files(source.root, layout, source.recipe.points)
    if not tables:
        raise BadInputError(
            f"{source.root.name}/{split}: no table of points",
            looked_for=f"{source.root}/{layout.points[0]}",
            next_step=f"add one, or remove the images of {split}",
        )
    if layout.has_ids and len(tables) > 1:
        raise BadInputError(
            f"{source.root.name}/{split}: {len(tables)} tables of points, expected one",
            looked_for=f"{source.root}/{layout.points[0]}",
        )
    if layout.has_ids:
        (table,) = tables
        points = {_plain_id(key): rows for key, rows in _read_table(source, table).items()}
        return _paired(
            split,
            _by_id(source, split, images, plain=True),
            {name: (table, rows) for name, rows in points.items()},
            looked_for=f"the points of each image in {table}",
            absent=_absent_ids(source.root, layout, images, table_ids=points),
        )
    own = [table for table in tables if not begins_like_tool(read_content(table, what="table"))]
    if own and len(own) < len(tables):
        others = [str(table.relative_to(source.root)) for table in tables if table not in own]
        log.warning("%s: a table holds the points; left out: %s", own[0], shorten(others))
        tables = own
    by_path = {image.path: image for image in images}
    endings = _endings(by_path)
    annotations: dict[Path, tuple[Path, Points | None]] = {}
    for table in tables:
        for path, rows in _rows_by_image(_read_table(source, table), table, endings).items():
            other, _ = annotations.setdefault(path, (table, rows))
            if other is not table:
                raise BadInputError(
                    f"{path}: has points in {other} and in {table}",
                    next_step="remove one of these tables, or the image from one of them",
                )
    return _paired(
        split,
        by_path,
        annotations,
        looked_for=f"every image in {shorten(list(map(str, tables)))}; an empty scene is a row "
        "`image,,`, in JSON an empty list of points",
        absent=(),
    )


def _read_table(source: SourceSet, table: Path) -> dict[str, Points]:
    try:
        return source.recipe.points.read_table(read_content(table, what="table"))
    except ValueError as error:
        raise BadInputError(f"{table}: {error}") from error


def _endings(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """Map every ending of paths, ``c.jpg``, ``b/c.jpg``, ..., in small letters, to its paths."""
    endings: dict[str, list[Path]] = {}
    for path in paths:
        parts = path.as_posix().lower().split("/")
        for start in range(len(parts)):
            endings.setdefault("/".join(parts[start:]), []).append(path)
    return endings


def _rows_by_image(
    rows: Mapping[str, Points], table: Path, endings: Mapping[str, Sequence[Path]]
) -> dict[Path, Points]:
    """Find the images that a table names: below its folder, else by the end of their path.

    Args:
        rows: The points of each image by the name in the table.
        table: The table.
        endings: All images by every ending of their paths.

    Raises:
        InputMissingError: If an image does not exist.
        BadInputError: If a name fits several images, or two names one image.
    """
    found: dict[Path, Points] = {}
    missing = []
    for name, heads in rows.items():
        # Other tables write paths as Windows does, or from another folder.
        wanted = re.sub(r"^(\.{1,2}/)+", "", name.replace("\\", "/").lower())
        fitting = endings.get(wanted, [])
        if (table.parent / name) in fitting:
            fitting = [table.parent / name]
        if not fitting:
            missing.append(name)
            continue
        if len(fitting) > 1:
            raise BadInputError(
                f"{table}: {name} may be any of {shorten(list(map(str, fitting)))}",
                next_step="write the path from the folder of this table",
            )
        if fitting[0] in found:
            raise BadInputError(f"{table}: names {fitting[0]} twice, once as {name}")
        found[fitting[0]] = heads
    if missing:
        missing.sort(key=natural_key)
        raise InputMissingError(
            f"{table}: names {len(missing)} images that do not exist: {shorten(missing)}",
            looked_for=str(table.parent / missing[0]),
            next_step="correct the names (paths start at the table's folder), or add the images",
        )
    return found


def _paired(
    split: str,
    images: Mapping[Key, PatternMatch],
    annotations: Mapping[Key, tuple[Path, Points | None]],
    *,
    looked_for: str,
    absent: tuple[str, ...],
) -> SourceSplit:
    """Join images and annotations that have the same key."""
    return SourceSplit(
        images=tuple(
            SourceImage(
                split=split,
                file=image.file,
                path=image.path,
                annotation=annotations[key][0],
                rows=annotations[key][1],
                id=image.id,
            )
            for key, image in images.items()
            if key in annotations
        ),
        unpaired=tuple(image.file for key, image in images.items() if key not in annotations),
        looked_for=looked_for,
        absent=absent,
    )


def _absent_ids(
    root: Path,
    layout: SplitLayout,
    images: Sequence[PatternMatch],
    *,
    table_ids: Iterable[str] = (),
) -> tuple[str, ...]:
    """Select the ids without an image that the split's list names or, without a list, its table."""
    if layout.list is not None:
        existing = {image.id for image in images}
        return tuple(
            image_id for image_id in listed_ids(root, layout.list) if image_id not in existing
        )
    existing = {_plain_id(image.id) for image in images}
    return tuple(
        image_id
        for image_id in sorted(table_ids, key=natural_key)
        if image_id not in existing and (layout.ids is None or in_range(image_id, layout.ids))
    )


def _plain_id(image_id: str) -> str:
    """Return an id without leading zeros, which tables leave out."""
    return image_id.lstrip("0") or "0" if re.fullmatch(r"[0-9]+", image_id) else image_id


def _by_id(
    source: SourceSet, split: str, images: Sequence[PatternMatch], *, plain: bool = False
) -> dict[str, PatternMatch]:
    """Map ids, without leading zeros if ``plain``, to images; refuse images of one id."""
    by_id: dict[str, PatternMatch] = {}
    for image in images:
        other = by_id.setdefault(_plain_id(image.id) if plain else image.id, image)
        if other is not image:
            raise BadInputError(
                f"{source.root.name}/{split}: {other.file} and {image.file} would share "
                "an annotation",
                next_step="remove or rename one of them",
            )
    return by_id


def _refuse_shared(source: SourceSet, splits: Mapping[str, SourceSplit]) -> None:
    """Refuse an image in two splits, which would be trained on and tested with."""
    first_split: dict[Path, str] = {}
    for name, split in splits.items():
        shared = [
            image.file for image in split.images if first_split.setdefault(image.path, name) != name
        ]
        if shared:
            raise BadInputError(
                f"{source.root.name}: {len(shared)} images of {name} are in another split, too: "
                f"{shorten(shared)}",
                looked_for=", ".join(
                    layout.list for layout in source.recipe.splits.values() if layout.list
                ),
                next_step="unpack the archive again",
            )
