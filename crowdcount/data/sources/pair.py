"""Pair the images of a data set with their annotations, split by split."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from crowdcount.data.sources.annotations import Points
from crowdcount.data.sources.find import SourceSet
from crowdcount.data.sources.images import read_content
from crowdcount.data.sources.recipe import SPLITS, SplitLayout, in_range
from crowdcount.data.sources.split_files import (
    PatternMatch,
    annotation_files,
    image_files,
    listed_ids,
    table_files,
)
from crowdcount.errors import BadInputError, InputMissingError
from crowdcount.wording import natural_key, shorten


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
        InputMissingError: If a table names images that do not exist.
    """
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
    """Pair each image with its rows of the split's one table, by id or by path.

    Paths start at the table's folder. A table of ids may hold those of other splits.
    """
    tables = table_files(source.root, layout, source.recipe.points)
    if len(tables) != 1:
        raise BadInputError(
            f"{source.root.name}/{split}: {len(tables)} tables of points, expected one",
            looked_for=f"{source.root}/{layout.points[0]}",
        )
    (table,) = tables
    try:
        points = source.recipe.points.read_table(read_content(table, what="table"))
    except ValueError as error:
        raise BadInputError(f"{table}: {error}") from error
    if layout.has_ids:
        points = {_plain_id(image_id): rows for image_id, rows in points.items()}
        by_name = _by_id(source, split, images, plain=True)
        absent = _absent_ids(source.root, layout, images, table_ids=points)
        looked_for = f"the points of each image in {table}"
    else:
        by_name = {image.path.relative_to(table.parent).as_posix(): image for image in images}
        if missing := sorted(points.keys() - by_name.keys(), key=natural_key):
            raise InputMissingError(
                f"{table}: names {len(missing)} images that do not exist: {shorten(missing)}",
                looked_for=str(table.parent / missing[0]),
                next_step="correct the names (paths start at the table's folder), or add the "
                "images",
            )
        absent = ()
        looked_for = (
            f"every image in {table}; an empty scene is a row `image,,`, "
            "in JSON an empty list of points"
        )
    annotations = {name: (table, rows) for name, rows in points.items()}
    return _paired(split, by_name, annotations, looked_for=looked_for, absent=absent)


def _paired(
    split: str,
    images: Mapping[str, PatternMatch],
    annotations: Mapping[str, tuple[Path, Points | None]],
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
