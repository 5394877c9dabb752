"""Scan a data set: pair its files, compare them with the recipe, convert its images."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from crowdcount.core.limits import MAX_PIXELS
from crowdcount.data.prepared.journal import add_record, open_journal
from crowdcount.data.prepared.manifest import (
    ImageRecord,
    PreprocessConfig,
    read_manifest,
    totals_by_split,
)
from crowdcount.data.sources.convert import annotated_heads, convert
from crowdcount.data.sources.find import SourceSet
from crowdcount.data.sources.images import read_content
from crowdcount.data.sources.pair import SourceImage, SourceSplit, pair_splits
from crowdcount.data.sources.point_frame import Suspicion, frame_of, suspicion_of
from crowdcount.data.sources.recipe import TOTAL, Recipe
from crowdcount.data.sources.split_files import annotation_files, groups_of, image_files
from crowdcount.errors import (
    ConfigError,
    CrowdCountError,
    InputMissingError,
    UsageError,
    ValidationError,
)
from crowdcount.wording import counted, natural_key, shorten
from crowdcount.workflows.thread_map import ThreadMap

log = logging.getLogger("crowdcount")

READERS_OF_ANY_TEXT = ("file", "yolo")
"""Readers whose files may be something else, such as a note in ``README.txt``."""

EXAMINED = 100
"""Images whose points are read before any is converted."""


@dataclass(frozen=True, kw_only=True)
class Scan:
    """The files of a data set, before any image is read."""

    source: SourceSet
    images: tuple[SourceImage, ...]
    """The annotated images."""

    unpaired: dict[str, tuple[str, ...]]
    """Images without annotation, by split."""

    unlabelled: dict[str, int]
    """Number of images in each split whose annotations were not published."""

    groups: dict[str, str]
    """Group of each training image that must stay together with others."""

    folds: tuple[tuple[str, ...], ...]
    """Training images of each fold that the recipe defines."""

    reasons: tuple[str, ...]
    """Differences between the images and the recipe."""

    suspicion: Suspicion | None = None
    """Why the points seem to be no pixels of these images."""


def refuse_prepared(source: Path) -> None:
    """Refuse a folder that ``preprocess`` wrote.

    Raises:
        UsageError: If it is one.
    """
    try:
        name = read_manifest(source).name
    except CrowdCountError:
        return
    raise UsageError(
        f"{source}: is prepared already, as {name}", next_step="name the folder of the originals"
    )


def scan(source: SourceSet, *, skip_unpaired: bool) -> Scan:
    """Pair the files of a data set, and make all checks that need no pixels.

    Raises:
        InputMissingError: If no image has an annotation, or one has none and ``skip_unpaired`` is
            not set.
        ConfigError: If groups or folds of the recipe match no training image.
    """
    splits = pair_splits(source)
    log.info("%s: %s, as %s", source.root, source.recipe.title, source.name)
    unpaired = {name: split.unpaired for name, split in splits.items() if split.unpaired}
    if not skip_unpaired:
        for name in unpaired:
            _refuse_unpaired(f"{source.root.name}/{name}", splits[name])
    images = tuple(image for split in splits.values() for image in split.images)
    if not images:
        raise InputMissingError(f"{source.root}: no image has an annotation")
    unlabelled = {
        name: len(image_files(source.root, layout))
        for name, layout in source.recipe.splits.items()
        if layout.unlabelled
    }
    for name, count in unlabelled.items():
        log.info(
            "%s: the annotations of %s were not published; its %d images are not prepared",
            source.name,
            name,
            count,
        )
    if strays := _annotations_without_image(source, images):
        log.warning(
            "%s: %s without an image, left out: %s",
            source.root,
            counted(len(strays), "annotation"),
            shorten(strays),
        )
    training = [image for image in images if image.split == "train"]
    source, suspicion = _with_frame(source, images)
    return Scan(
        source=source,
        images=images,
        unpaired=unpaired,
        unlabelled=unlabelled,
        groups=_groups(source.recipe, training),
        folds=_folds(source.recipe, training),
        reasons=tuple(_differences(source.recipe, splits)),
        suspicion=suspicion,
    )


def refuse_suspicious(scan: Scan) -> None:
    """Refuse a data set whose points seem to be no pixels of its images.

    Raises:
        ValidationError: If they do.
    """
    if scan.suspicion is not None:
        raise ValidationError(
            f"{scan.source.root}: {scan.suspicion.reason}", next_step=scan.suspicion.next_step
        )


def _with_frame(
    source: SourceSet, images: Sequence[SourceImage]
) -> tuple[SourceSet, Suspicion | None]:
    """Return the set with the frame of its points, and what is suspicious about them.

    Both are told by at most ``EXAMINED`` images, evenly spread.
    """
    points = source.recipe.points
    examined = []
    for image in images[:: -(-len(images) // EXAMINED)]:
        with suppress(CrowdCountError):  # converting it reports the error
            content = read_content(image.path, what="image")
            examined.append(annotated_heads(image, content, points=points))
    if points.frame is None:
        points = replace(points, frame=frame_of(examined))
        if points.frame == "stored":
            log.warning(
                "%s: the points are those of the images as stored, and are turned with them as "
                "EXIF says; if not, pass --frame upright",
                source.root,
            )
    source = replace(source, recipe=replace(source.recipe, points=points))
    return source, suspicion_of(examined, points)


def _annotations_without_image(source: SourceSet, images: Sequence[SourceImage]) -> list[str]:
    """Return the annotations, of a layout with one for each image, that belong to none."""
    if source.recipe.points.is_table or source.recipe.points.reader in READERS_OF_ANY_TEXT:
        return []
    used = {image.annotation for image in images}
    files = {
        path
        for layout in source.recipe.labelled.values()
        for path in annotation_files(source.root, layout).values()
    }
    return sorted((str(path.relative_to(source.root)) for path in files - used), key=natural_key)


def _refuse_unpaired(label: str, split: SourceSplit) -> None:
    count = len(split.unpaired)
    raise InputMissingError(
        f"{label}: {count} image{'s have' if count > 1 else ' has'} no annotation: "
        f"{shorten(split.unpaired)}",
        looked_for=split.looked_for,
        next_step="add them, or pass --skip-unpaired to leave these images out",
    )


def _groups(recipe: Recipe, training: Sequence[SourceImage]) -> dict[str, str]:
    """Return the group of each training image that matches the recipe's pattern."""
    pattern = recipe.validation.group
    if pattern is None or not training:
        return {}
    groups = groups_of((image.file for image in training), pattern)
    if not groups:
        raise ConfigError(
            f"{recipe.name}.toml: validation.group: {pattern!r} matches no training image, "
            f"such as {training[0].file}"
        )
    return groups


def _folds(recipe: Recipe, training: Sequence[SourceImage]) -> tuple[tuple[str, ...], ...]:
    """Return the training images of each fold that the recipe defines."""
    if not recipe.validation.folds:
        return ()
    folds = {image.file: recipe.validation.fold_of(image.id) for image in training}
    outside = [file for file, fold in folds.items() if fold is None]
    if outside:
        raise ConfigError(
            f"{recipe.name}.toml: validation.folds: in none of them: {shorten(outside)}"
        )
    return tuple(
        tuple(sorted(file for file, fold in folds.items() if fold == number))
        for number in range(len(recipe.validation.folds))
    )


def _differences(recipe: Recipe, splits: Mapping[str, SourceSplit]) -> Iterator[str]:
    """Yield the differences between the images of each split and the recipe.

    Manifests hold these sentences, so other words would change the manifests of prepared data.
    """
    for name, layout in recipe.labelled.items():
        expected = layout.expect_images
        if name not in splits:
            if expected is not None:
                yield f"{name}: not there, {expected} images expected"
            continue
        split = splits[name]
        if split.absent:
            source = layout.list or layout.points[0]
            yield f"{name}: named by {source}, not there: {shorten(split.absent)}"
        if split.unpaired:
            yield f"{name}: left out without annotation: {shorten(split.unpaired)}"
        if expected is not None and len(split.images) != expected:
            yield f"{name}: {len(split.images)} images, {expected} expected"


@dataclass(frozen=True, kw_only=True)
class Converter:
    """Converts the images of a data set."""

    config: PreprocessConfig
    threads: ThreadMap
    max_pixels: int = MAX_PIXELS
    """Larger images are refused by their header."""

    def __call__(
        self, scan: Scan, images: Sequence[SourceImage], *, folder: Path | None
    ) -> tuple[list[ImageRecord], list[CrowdCountError]]:
        """Convert images; return their records, and the errors of those that cannot be used.

        Without a prepared ``folder``, whose journal exists, nothing is written.
        """

        def attempt(image: SourceImage) -> ImageRecord | CrowdCountError:
            try:
                return convert(
                    image,
                    source=scan.source,
                    config=self.config,
                    folder=folder,
                    max_pixels=self.max_pixels,
                )
            except CrowdCountError as error:
                return error

        records, errors = [], []
        label = f"{'check' if folder is None else 'preprocess'} {scan.source.name}"
        with nullcontext() if folder is None else open_journal(folder) as journal:
            for outcome in self.threads(attempt, images, label=label):
                if isinstance(outcome, CrowdCountError):
                    errors.append(outcome)
                    continue
                records.append(outcome)
                if journal is not None:
                    add_record(outcome, journal)
        return records, errors


def find_release(scan: Scan, records: Sequence[ImageRecord]) -> tuple[str | None, tuple[str, ...]]:
    """Find the release of the annotations by their heads, and why the set is incomplete.

    Only splits with as many images as promised are compared, and their total where all of them are.
    """
    recipe = scan.source.recipe
    heads = {
        name: totals.heads
        for name, totals in totals_by_split(records).items()
        if totals.images == recipe.splits[name].expect_images
    }
    if heads.keys() == recipe.labelled.keys():
        heads[TOTAL] = sum(heads.values())
    published = {name for expected in recipe.releases.values() for name in expected}
    heads = {name: count for name, count in heads.items() if name in published}
    for release, expected in recipe.releases.items():
        compared = heads.keys() & expected.keys()
        if compared and all(expected[name] == heads[name] for name in compared):
            return release, scan.reasons
    return None, (
        *scan.reasons,
        *(
            f"{name}: {count} heads, expected "
            + " or ".join(
                str(expected[name]) for expected in recipe.releases.values() if name in expected
            )
            for name, count in heads.items()
        ),
    )
