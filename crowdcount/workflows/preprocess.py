"""Prepare data sets: find, pair, plan, convert, assign splits, write the manifest."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from crowdcount.core.limits import MAX_PIXELS
from crowdcount.core.progress import Track, untracked
from crowdcount.data.prepared.journal import (
    Earlier,
    Origin,
    read_earlier,
    remove_unlisted,
    start_journal,
    unlisted_files,
)
from crowdcount.data.prepared.manifest import (
    FORMAT,
    JOURNAL,
    MANIFEST,
    ImageRecord,
    Manifest,
    PreprocessConfig,
    totals_by_split,
)
from crowdcount.data.prepared.splits import assign_training
from crowdcount.data.prepared.versions import Versions, joined_versions, versions_now
from crowdcount.data.sources.convert import is_up_to_date
from crowdcount.data.sources.find import SourceSet, find_sets
from crowdcount.data.sources.pair import SourceImage
from crowdcount.data.sources.point_quality import faults, remarks
from crowdcount.errors import BadInputError, UsageError, ValidationError
from crowdcount.files import sha256_file, write_json
from crowdcount.wording import shorten
from crowdcount.workflows.scan import (
    EXAMINED,
    Converter,
    Scan,
    find_release,
    refuse_prepared,
    refuse_suspicious,
    scan,
)
from crowdcount.workflows.thread_map import ThreadMap

log = logging.getLogger("crowdcount")


@dataclass(frozen=True, kw_only=True)
class PreparedResult:
    """The result of preparing one data set."""

    folder: Path
    manifest: Manifest
    """The manifest that was written, or would be in a dry run."""

    warnings: tuple[str, ...]
    """Reasons why the set is incomplete, and points that cannot be trusted."""

    written: int
    """Images prepared in this run, or to be prepared in a dry run."""

    unchanged: int
    """Images that were up to date."""


def preprocess(
    source: Path,
    *,
    out: Path | None = None,
    dataset: str | Path | None = None,
    order: Literal["xy", "yx"] | None = None,
    frame: Literal["upright", "stored"] | None = None,
    points_scale: float | str | None = None,
    label: str | None = None,
    columns: Sequence[str] | None = None,
    config: PreprocessConfig | None = None,
    strict: bool = False,
    force: bool = False,
    skip_unpaired: bool = False,
    dry_run: bool = False,
    jobs: int = 1,
    max_pixels: int = MAX_PIXELS,
    track: Track = untracked,
) -> list[PreparedResult]:
    """Prepare the data sets in ``source``.

    Files of an earlier run are kept if their content is right, and an interrupted run is resumed.

    Args:
        source: Folder of a data set or of several.
        out: The prepared folder; ``data/<name>`` by default. With several data sets, the folder
            that holds a prepared folder for each.
        dataset: Name or file of the recipe, if the layout does not identify it.
        order: Order of the coordinates in the annotations, if the recipe is wrong.
        frame: Image to which the points refer, if the recipe does not say it.
        points_scale: Factor from the annotated coordinates to pixels; ``"image"``: they are parts
            of the image's width and height.
        label: Label of a head in files of annotation tools.
        columns: Names of the columns of image, x and y in a table, or their numbers from 1.
        config: Settings.
        strict: Before writing, refuse sets that do not hold what their recipe promises, or whose
            points cannot all be trusted.
        force: Replace a folder that was prepared from another source or with other settings.
        skip_unpaired: Leave out images without annotation.
        dry_run: Write nothing.
        jobs: Number of images that are processed at once. Does not change results.
        max_pixels: Larger images are refused by their header.
        track: Shows progress.

    Raises:
        InputMissingError: If nothing is recognised, or annotations or images are missing.
        UsageError: If source and output overlap, or the output holds other files.
        ValidationError: If the points of a set seem to be of images of another size; if ``strict``
            and a set is not complete, or has points that are not finite or outside, or swapped
            axes.
        BadInputError: If files cannot be used; all other images were prepared.
    """
    config = config or PreprocessConfig()
    threads = ThreadMap(jobs=jobs, track=track)
    converter = Converter(config=config, threads=threads, max_pixels=max_pixels)
    refuse_prepared(source)
    given = {"order": order, "frame": frame, "scale": points_scale, "label": label}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if columns is not None:
        changes["columns"] = tuple(columns)
    sets = find_sets(source, dataset=dataset, points=changes)
    plans = []
    for source_set in sets:
        folder = Path("data") / source_set.name if out is None else out
        if out is not None and len(sets) > 1:
            folder = out / source_set.name
        plans.append(_plan(source_set, folder, config, force=force, skip_unpaired=skip_unpaired))
    if strict:
        for plan in plans:
            _refuse_incomplete(plan, converter)
    return [_prepare(plan, converter, dry_run=dry_run) for plan in plans]


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """A data set that can be prepared into a folder."""

    scan: Scan
    folder: Path
    origin: Origin
    earlier: Earlier


def _plan(
    source: SourceSet, folder: Path, config: PreprocessConfig, *, force: bool, skip_unpaired: bool
) -> _Plan:
    """Make all checks that need no image."""
    _refuse_overlap(source.root, folder)
    scanned = scan(source, skip_unpaired=skip_unpaired)
    refuse_suspicious(scanned)
    _refuse_folds(scanned, config.folds)
    origin = Origin(
        name=source.name,
        recipe=source.recipe.name,
        settings=config,
        resize=source.recipe.resize,
        points=scanned.source.recipe.points,
    )
    earlier = read_earlier(folder, origin, force=force)
    names = {image.name for image in scanned.images}
    removed = [name for name in earlier.records if name not in names]
    if removed:
        raise UsageError(
            f"{folder}: {len(removed)} prepared images are no longer in {source.root}: "
            f"{shorten(removed)}",
            next_step="choose another --out, or pass --force to prepare it anew without them",
        )
    _refuse_other_images(scanned, folder, earlier)
    return _Plan(scan=scanned, folder=folder, origin=origin, earlier=earlier)


def _refuse_other_images(scanned: Scan, folder: Path, earlier: Earlier) -> None:
    """Refuse a folder prepared from other images that have the same names, as from another place.

    Images may be corrected one by one, so a folder of which one is still the same is gone on with.
    """
    pairs = [
        (earlier.records[image.name], image)
        for image in scanned.images
        if image.name in earlier.records
    ]
    examined = pairs[:: -(-len(pairs) // EXAMINED) or 1]
    if examined and not any(
        sha256_file(image.path) == record.sha256.source for record, image in examined
    ):
        raise UsageError(
            f"{folder}: was prepared from other images of these names than "
            f"{scanned.source.root} holds",
            next_step="choose another --out, or pass --force to replace it",
        )


def _refuse_overlap(root: Path, folder: Path) -> None:
    source, target = root.resolve(), folder.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise UsageError(
            f"{folder}: the prepared folder and its source {root} lie in each other",
            next_step="choose another folder with --out",
        )


def _refuse_folds(scanned: Scan, folds: int) -> None:
    """Refuse a number of folds into which the training images cannot be parted."""
    source = scanned.source
    if scanned.folds:
        if folds not in (0, len(scanned.folds)):
            raise UsageError(
                f"{source.root}: {source.recipe.name} has {len(scanned.folds)} folds of its own, "
                f"not {folds}",
                next_step="leave out --folds",
            )
        return
    images = sum(image.split == "train" for image in scanned.images)
    groups = images - len(scanned.groups) + len(set(scanned.groups.values()))
    if folds > groups:
        noun = "groups of training images" if scanned.groups else "training images"
        raise UsageError(
            f"{source.root}: {groups} {noun} cannot be parted into {folds} folds",
            next_step="ask for fewer with --folds",
        )


def _refuse_incomplete(plan: _Plan, converter: Converter) -> None:
    """Read all annotations, and refuse a set that breaks the promises of its recipe."""
    source = plan.scan.source
    records = _convert(plan, plan.scan.images, converter, write=False)
    _, reasons = find_release(plan.scan, records)
    if reasons:
        raise ValidationError(
            f"{source.root}: does not hold what {source.recipe.name} promises: "
            f"{'; '.join(reasons)}",
            next_step="unpack the archive again, or leave out --strict",
        )
    if problems := faults(records, points=source.recipe.points):
        raise ValidationError(
            f"{source.root}: not all points can be trusted: {'; '.join(problems)}",
            next_step="correct the annotations, or leave out --strict",
        )


def _prepare(plan: _Plan, converter: Converter, *, dry_run: bool) -> PreparedResult:
    """Convert the images that are not up to date, and write the manifest."""
    folder, earlier = plan.folder, plan.earlier
    unchanged = _up_to_date(plan, converter.threads)
    names = {record.name for record in unchanged}
    todo = [image for image in plan.scan.images if image.name not in names]
    finished = earlier.manifest is not None and not unlisted_files(folder, earlier.manifest)
    write = not dry_run and (bool(todo) or not finished)
    versions = earlier.versions if unchanged else {}
    if write:
        if todo:
            versions = joined_versions(versions, versions_now())
        start_journal(folder, plan.origin, earlier.records.values(), versions=versions)
    records = unchanged
    if todo:
        records = unchanged + _convert(plan, todo, converter, write=write)
    manifest = _manifest(plan, records, versions=versions)
    if write:
        remove_unlisted(folder, manifest)
        write_json(folder / MANIFEST, asdict(manifest))
        (folder / JOURNAL).unlink()
    elif not dry_run:
        log.info("%s: nothing to do, all %d images are up to date", folder, len(unchanged))
        if manifest != earlier.manifest:  # its text comes from the recipe, which has changed
            write_json(folder / MANIFEST, asdict(manifest))
    warnings = (*manifest.reasons, *faults(manifest.images, points=manifest.points))
    for warning in warnings:
        log.warning("%s: %s", manifest.name, warning)
    for remark in remarks(manifest.images):
        log.info("%s: %s", manifest.name, remark)
    return PreparedResult(
        folder=folder,
        manifest=manifest,
        warnings=warnings,
        written=len(todo),
        unchanged=len(unchanged),
    )


def _up_to_date(plan: _Plan, threads: ThreadMap) -> list[ImageRecord]:
    """Return the earlier records of images whose files still have the right content."""
    earlier = plan.earlier.records
    pairs = [(earlier[image.name], image) for image in plan.scan.images if image.name in earlier]
    if not pairs:
        return []
    answers = threads(
        lambda pair: is_up_to_date(*pair, folder=plan.folder),
        pairs,
        label=f"compare {plan.origin.name}",
    )
    return [record for (record, _), answer in zip(pairs, answers, strict=True) if answer]


def _convert(
    plan: _Plan, images: Sequence[SourceImage], converter: Converter, *, write: bool
) -> list[ImageRecord]:
    """Convert images and return their records; ``write`` also writes their files.

    Raises:
        BadInputError: If some cannot be used, after all others were converted.
    """
    records, errors = converter(plan.scan, images, folder=plan.folder if write else None)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        messages = "; ".join(error.message for error in errors[:3])
        raise BadInputError(
            f"{plan.scan.source.root}: {len(errors)} images cannot be used: "
            f"{messages}{' ...' if len(errors) > 3 else ''}",
            next_step="replace or remove them and run the same command again",
        )
    return records


def _manifest(plan: _Plan, records: Sequence[ImageRecord], *, versions: Versions) -> Manifest:
    """Build the manifest; it is the same whether records are new or from an earlier run."""
    by_name = {record.name: record for record in records}
    images = tuple(by_name[image.name] for image in plan.scan.images)
    release, reasons = find_release(plan.scan, images)
    recipe, config = plan.scan.source.recipe, plan.origin.settings
    assignment = assign_training(
        {record.file: record.heads for record in images if record.split == "train"},
        config=config,
        groups=plan.scan.groups,
        folds=plan.scan.folds,
        has_val=any(record.split == "val" for record in images),
    )
    return Manifest(
        format=FORMAT,
        versions=versions,
        name=plan.origin.name,
        title=recipe.title,
        recipe=recipe.name,
        recipe_sha256=recipe.sha256(),
        settings=config,
        max_count=config.largest_count,
        resize=recipe.resize,
        points=recipe.points,
        complete=not reasons,
        reasons=reasons,
        release=release,
        totals=totals_by_split(images),
        unpaired=plan.scan.unpaired,
        held_out=assignment.held_out,
        calibration=assignment.calibration,
        images=images,
        folds=assignment.folds,
        unlabelled=tuple(plan.scan.unlabelled),
    )
