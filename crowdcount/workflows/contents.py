"""What a data set's folder holds, and what comes of reading it. Writes only where it is told to."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from crowdcount.core.limits import MAX_PIXELS
from crowdcount.core.progress import Track
from crowdcount.data.prepared.dataset import (
    ImageRecord,
    PreprocessConfig,
    read_manifest,
    totals_by_split,
)
from crowdcount.data.prepared.journal import note, open_journal
from crowdcount.data.sources.convert import convert
from crowdcount.data.sources.layout import (
    Found,
    SourceImage,
    SourceSplit,
    grouped,
    source_splits,
    unlabelled_images,
)
from crowdcount.data.sources.recipe import TOTAL, Recipe
from crowdcount.errors import ConfigError, CrowdCountError, InputMissingError, UsageError
from crowdcount.wording import shorten
from crowdcount.workflows.threads import mapped

log = logging.getLogger("crowdcount")


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


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a data set's folder holds, as far as it tells without an image being read."""

    found: Found
    config: PreprocessConfig
    images: tuple[SourceImage, ...]
    unpaired: dict[str, tuple[str, ...]]
    unlabelled: dict[str, int]
    groups: dict[str, str]
    """What the training images that stay together have in common."""

    reasons: tuple[str, ...]
    """In what the images differ from the recipe."""

    max_pixels: int
    """Larger images are refused by their header."""


def read_contents(
    found: Found,
    config: PreprocessConfig,
    *,
    skip_unpaired: bool,
    max_pixels: int = MAX_PIXELS,
) -> Contents:
    """List and pair the files of a data set, and check all that can be without reading an image.

    Raises:
        InputMissingError: If no image has an annotation, or one has none and ``skip_unpaired`` is
            not set.
        UsageError: If the training images cannot be parted into the folds asked for.
        ConfigError: If groups or folds of the recipe fit no training image.
    """
    splits = source_splits(found)
    log.info("%s: %s, as %s", found.root, found.recipe.title, found.name)
    unpaired = {name: split.unpaired for name, split in splits.items() if split.unpaired}
    if not skip_unpaired:
        for name in unpaired:
            _refuse_unpaired(f"{found.root.name}/{name}", splits[name])
    images = tuple(image for split in splits.values() for image in split.images)
    if not images:
        raise InputMissingError(f"{found.root}: no image has an annotation")
    unlabelled = unlabelled_images(found)
    for name, count in unlabelled.items():
        log.info(
            "%s: the annotations of %s were not published; %d images are there, none is prepared",
            found.name,
            name,
            count,
        )
    training = [image for image in images if image.split == "train"]
    groups = _groups(found.recipe, training)
    _check_folds(found, config, training, groups)
    return Contents(
        found=found,
        config=config,
        images=images,
        unpaired=unpaired,
        unlabelled=unlabelled,
        groups=groups,
        reasons=tuple(_image_reasons(found.recipe, splits)),
        max_pixels=max_pixels,
    )


def _groups(recipe: Recipe, training: Sequence[SourceImage]) -> dict[str, str]:
    """What the training images that stay together have in common."""
    pattern = recipe.validation.group
    if pattern is None or not training:
        return {}
    groups = grouped((image.file for image in training), pattern)
    if not groups:
        raise ConfigError(
            f"{recipe.name}.toml: validation.group: {pattern!r} fits no training image, "
            f"{training[0].file} for one"
        )
    return groups


def _check_folds(
    found: Found,
    config: PreprocessConfig,
    training: Sequence[SourceImage],
    groups: Mapping[str, str],
) -> None:
    """Refuse folds that cannot be made, before any work is done."""
    validation = found.recipe.validation
    own = len(validation.folds)
    if own and config.folds not in (0, own):
        raise UsageError(
            f"{found.root}: {found.recipe.name} has {own} folds of its own, not {config.folds}",
            next_step="leave out --folds",
        )
    if own:
        astray = [image.file for image in training if validation.fold_of(image.id) is None]
        if astray:
            raise ConfigError(
                f"{found.recipe.name}.toml: validation.folds: in none of them: {shorten(astray)}"
            )
        return
    apart = len(training) - len(groups) + len(set(groups.values()))
    if config.folds > apart:
        what = "groups of training images" if groups else "training images"
        raise UsageError(
            f"{found.root}: {apart} {what} cannot be parted into {config.folds} folds",
            next_step="ask for fewer with --folds",
        )


def _refuse_unpaired(label: str, split: SourceSplit) -> None:
    count = len(split.unpaired)
    raise InputMissingError(
        f"{label}: {count} image{'s have' if count > 1 else ' has'} no annotation: "
        f"{shorten(split.unpaired)}",
        looked_for=split.looked_for,
        next_step="add them, or pass --skip-unpaired to leave these images out",
    )


def _image_reasons(recipe: Recipe, splits: Mapping[str, SourceSplit]) -> Iterator[str]:
    """In what the numbers of images differ from the recipe, split by split."""
    for name, layout in recipe.splits.items():
        expected = layout.expect_images
        if layout.unlabelled:
            continue
        if name not in splits:
            if expected is not None:
                yield f"{name}: not there, {expected} images expected"
            continue
        images, unpaired = len(splits[name].images), splits[name].unpaired
        if splits[name].absent:
            named_by = layout.list or layout.points[0]
            yield f"{name}: named by {named_by}, not there: {shorten(splits[name].absent)}"
        if unpaired:
            yield f"{name}: left out without annotation: {shorten(unpaired)}"
        if expected is not None and images != expected:
            yield f"{name}: {images} images, {expected} expected"


def read_images(
    contents: Contents,
    images: tuple[SourceImage, ...],
    *,
    folder: Path | None,
    jobs: int,
    track: Track,
) -> tuple[list[ImageRecord], list[CrowdCountError]]:
    """The records of images, and why there is none of others.

    Args:
        contents: The data set.
        images: Those of its images to read.
        folder: The prepared folder, whose journal is open. None: write nothing.
        jobs: How many images are worked on at once.
        track: Shows progress.
    """

    def attempted(image: SourceImage) -> ImageRecord | CrowdCountError:
        try:
            return convert(
                image,
                found=contents.found,
                config=contents.config,
                folder=folder,
                max_pixels=contents.max_pixels,
            )
        except CrowdCountError as error:
            return error

    records, problems = [], []
    label = f"{'check' if folder is None else 'preprocess'} {contents.found.name}"
    with (
        mapped(attempted, images, jobs=jobs) as outcomes,
        nullcontext() if folder is None else open_journal(folder) as journal,
    ):
        for outcome in track(outcomes, label=label, total=len(images)):
            if isinstance(outcome, CrowdCountError):
                problems.append(outcome)
                continue
            records.append(outcome)
            if journal is not None:
                note(outcome, journal)
    return records, problems


def release_of(
    contents: Contents, records: tuple[ImageRecord, ...]
) -> tuple[str | None, tuple[str, ...]]:
    """Which release of the annotations the heads are, and all reasons why the set is not whole.

    Only splits with as many images as promised can tell, and their total where all of them are.
    """
    recipe = contents.found.recipe
    heads = {
        name: found.heads
        for name, found in totals_by_split(records).items()
        if found.images == recipe.splits[name].expect_images
    }
    if heads.keys() == recipe.labelled.keys():
        heads[TOTAL] = sum(heads.values())
    said = {name for known in recipe.releases.values() for name in known}
    heads = {name: count for name, count in heads.items() if name in said}
    if not heads:
        return None, contents.reasons
    for release, known in recipe.releases.items():
        told = heads.keys() & known.keys()
        if told and all(known[name] == heads[name] for name in told):
            return release, contents.reasons
    reasons = (
        f"{name}: {count} heads, expected "
        + " or ".join(str(known[name]) for known in recipe.releases.values() if name in known)
        for name, count in heads.items()
    )
    return None, (*contents.reasons, *reasons)
