"""Raw archive to prepared folder: recognise, check, convert, hold out, write a manifest."""

import logging
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from crowdcount.core.limits import MAX_PIXELS
from crowdcount.core.progress import Track, untracked
from crowdcount.data.prepared.dataset import (
    FORMAT,
    JOURNAL,
    MANIFEST,
    ImageRecord,
    Manifest,
    PreprocessConfig,
    SplitTotals,
    held_out,
    parted,
    totals_by_split,
)
from crowdcount.data.prepared.journal import (
    Earlier,
    Origin,
    read_earlier,
    start_journal,
    strays,
    sweep,
)
from crowdcount.data.prepared.versions import Versions, joined_versions, versions_now
from crowdcount.data.sources.convert import is_right
from crowdcount.data.sources.layout import (
    Found,
    SourceImage,
    recognise,
)
from crowdcount.data.sources.point_quality import faults, remarks
from crowdcount.errors import (
    BadInputError,
    CrowdCountError,
    UsageError,
    ValidationError,
)
from crowdcount.files import write_json
from crowdcount.wording import shorten
from crowdcount.workflows.contents import (
    Contents,
    read_contents,
    read_images,
    refuse_prepared,
    release_of,
)
from crowdcount.workflows.threads import mapped

log = logging.getLogger("crowdcount")


@dataclass(frozen=True, kw_only=True)
class PreparedResult:
    """What became of one data set."""

    name: str
    folder: Path
    totals: dict[str, SplitTotals]
    """Images, heads and corrections of each split on disk."""

    held_out: int
    """Training images kept for validation."""

    calibration: int
    """Training images kept for calibration."""

    folds: tuple[int, ...]
    """Training images in each fold."""

    unlabelled: dict[str, int]
    """Images of the splits whose annotations were not published; they are not prepared."""

    release: str | None
    complete: bool
    warnings: tuple[str, ...]
    """Why the set is not complete, and which of its points cannot be trusted."""

    written: int
    """Images prepared in this run; in a dry run, those that would be."""

    unchanged: int
    """Images that were right already."""


def preprocess(
    source: Path,
    *,
    out: Path | None = None,
    dataset: str | Path | None = None,
    order: Literal["xy", "yx"] | None = None,
    config: PreprocessConfig | None = None,
    strict: bool = False,
    force: bool = False,
    skip_unpaired: bool = False,
    dry_run: bool = False,
    jobs: int = 1,
    max_pixels: int = MAX_PIXELS,
    track: Track = untracked,
) -> list[PreparedResult]:
    """Prepare the data sets that ``source`` is or holds.

    What an earlier run has left right, by content, is kept; a run that was interrupted is finished.

    Args:
        source: Folder of a data set, or one that holds some.
        out: Where to write; ``data/<name>`` by default. With several data sets, the folder that
            gets one folder for each.
        dataset: Name or file of the recipe, where the layout does not tell.
        order: Which coordinate comes first in the annotations, where the recipe is wrong.
        config: Settings.
        strict: Refuse sets that do not hold what their recipe promises, or whose points cannot all
            be trusted, before writing anything.
        force: Replace a folder that was prepared from something else or with other settings.
        skip_unpaired: Leave images out that nothing annotates.
        dry_run: Write nothing.
        jobs: How many images are worked on at once. Changes the speed, never a result.
        max_pixels: Larger images are refused by their header. Changes no result.
        track: Shows progress.

    Raises:
        InputMissingError: If nothing is recognised, or annotations or images are missing.
        UsageError: If the source is (in) the output, or the output is something else.
        ValidationError: If ``strict`` and a set is not complete, or has points that are not finite
            or outside, or swapped axes.
        BadInputError: If files cannot be used; the images that can be were prepared.
    """
    if jobs < 1:
        raise UsageError(f"jobs must be at least 1, got {jobs}")
    refuse_prepared(source)
    settings = config or PreprocessConfig()
    sets = recognise(source, dataset=dataset)
    if order is not None:
        sets = [_reordered(found, order) for found in sets]
    plans = []
    for found in sets:
        folder = Path("data") / found.name if out is None else out
        if out is not None and len(sets) > 1:
            folder = out / found.name
        plans.append(
            _planned(
                found,
                folder,
                settings,
                force=force,
                skip_unpaired=skip_unpaired,
                max_pixels=max_pixels,
            )
        )
    if strict:
        for plan in plans:
            _refuse_incomplete(plan, jobs=jobs, track=track)
    results = []
    for plan in plans:
        try:
            results.append(_prepared(plan, dry_run=dry_run, jobs=jobs, track=track))
        except OSError as error:  # reading has errors of its own; this is a full or read-only disk
            raise CrowdCountError(f"{plan.folder}: cannot be written: {error}") from error
    return results


def _reordered(found: Found, order: Literal["xy", "yx"]) -> Found:
    points = replace(found.recipe.points, order=order)
    return replace(found, recipe=replace(found.recipe, points=points))


@dataclass(frozen=True, kw_only=True)
class _Plan(Contents):
    """A data set that may be prepared: nothing stands against it."""

    folder: Path
    origin: Origin
    earlier: Earlier


def _planned(
    found: Found,
    folder: Path,
    config: PreprocessConfig,
    *,
    force: bool,
    skip_unpaired: bool,
    max_pixels: int,
) -> _Plan:
    """Check everything that can be checked without reading an image."""
    _refuse_overlap(found.root, folder)
    contents = read_contents(found, config, skip_unpaired=skip_unpaired, max_pixels=max_pixels)
    origin = Origin(
        name=found.name,
        recipe=found.recipe.name,
        settings=config,
        resize=found.recipe.resize,
        points=found.recipe.points,
    )
    earlier = read_earlier(folder, origin, force=force)
    there = {image.name for image in contents.images}
    gone = [name for name in earlier.records if name not in there]
    if gone:
        raise UsageError(
            f"{folder}: {len(gone)} prepared images are no longer in {found.root}: {shorten(gone)}",
            next_step="choose another --out, or pass --force to prepare it anew without them",
        )
    return _Plan(**vars(contents), folder=folder, origin=origin, earlier=earlier)


def _refuse_overlap(root: Path, folder: Path) -> None:
    source, target = root.resolve(), folder.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise UsageError(
            f"{folder}: the prepared folder and its source {root} lie in each other",
            next_step="choose another folder with --out",
        )


def _refuse_incomplete(plan: _Plan, *, jobs: int, track: Track) -> None:
    """Read all annotations, and refuse the set unless it holds what its recipe promises."""
    records = _converted(plan, plan.images, write=False, jobs=jobs, track=track)
    _, reasons = release_of(plan, tuple(records))
    if reasons:
        raise ValidationError(
            f"{plan.found.root}: does not hold what {plan.found.recipe.name} promises: "
            f"{'; '.join(reasons)}",
            next_step="unpack the archive again, or leave out --strict",
        )
    if found := faults(records, order=plan.found.recipe.points.order):
        raise ValidationError(
            f"{plan.found.root}: not all points can be trusted: {'; '.join(found)}",
            next_step="correct the annotations, or leave out --strict",
        )


def _prepared(plan: _Plan, *, dry_run: bool, jobs: int, track: Track) -> PreparedResult:
    kept = _kept(plan, jobs=jobs, track=track)
    right = {record.name for record in kept}
    todo = tuple(image for image in plan.images if image.name not in right)
    earlier = plan.earlier
    versions = earlier.versions if kept else {}
    if dry_run:
        done = _converted(plan, todo, write=False, jobs=jobs, track=track)
        manifest = _manifest(plan, (*kept, *done), versions=versions)
    elif earlier.manifest is not None and not todo and not strays(plan.folder, earlier.manifest):
        manifest = _manifest(plan, kept, versions=versions)
        log.info("%s: nothing to do, all %d images are right", plan.folder, len(kept))
        if manifest != earlier.manifest:  # damaged, or the recipe has new words
            write_json(plan.folder / MANIFEST, asdict(manifest))
    else:
        if todo:
            versions = joined_versions(versions, versions_now())
        start_journal(plan.folder, plan.origin, earlier.records.values(), versions=versions)
        done = _converted(plan, todo, write=True, jobs=jobs, track=track)
        manifest = _manifest(plan, (*kept, *done), versions=versions)
        sweep(plan.folder, manifest)
        write_json(plan.folder / MANIFEST, asdict(manifest))
        (plan.folder / JOURNAL).unlink()
    warnings = (*manifest.reasons, *faults(manifest.images, order=manifest.points.order))
    for warning in warnings:
        log.warning("%s: %s", manifest.name, warning)
    for remark in remarks(manifest.images):
        log.info("%s: %s", manifest.name, remark)
    return PreparedResult(
        name=manifest.name,
        folder=plan.folder,
        totals=manifest.totals,
        held_out=len(manifest.held_out),
        calibration=len(manifest.calibration),
        folds=tuple(len(fold) for fold in manifest.folds),
        unlabelled=plan.unlabelled,
        release=manifest.release,
        complete=manifest.complete,
        warnings=warnings,
        written=len(todo),
        unchanged=len(kept),
    )


def _kept(plan: _Plan, *, jobs: int, track: Track) -> list[ImageRecord]:
    """What an earlier run said of images that are still right, by content."""
    known = [image for image in plan.images if image.name in plan.earlier.records]
    if not known:
        return []
    records = [plan.earlier.records[image.name] for image in known]

    def right(pair: tuple[ImageRecord, SourceImage]) -> bool:
        return is_right(*pair, folder=plan.folder)

    label = f"compare {plan.found.name}"
    with mapped(right, zip(records, known, strict=True), jobs=jobs) as answers:
        told = track(answers, label=label, total=len(known))
        return [record for record, answer in zip(records, told, strict=True) if answer]


def _converted(
    plan: _Plan, images: tuple[SourceImage, ...], *, write: bool, jobs: int, track: Track
) -> list[ImageRecord]:
    """Prepare images, and note each in the journal; or find out what would come of them.

    Raises:
        BadInputError: If some cannot be used, after all others were prepared.
    """
    folder = plan.folder if write else None
    records, problems = read_images(plan, images, folder=folder, jobs=jobs, track=track)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        messages = [problem.message for problem in problems]
        raise BadInputError(
            f"{plan.found.root}: {len(problems)} images cannot be used: "
            f"{'; '.join(messages[:3])}{' ...' if len(messages) > 3 else ''}",
            next_step="replace or remove them and run the same command again",
        )
    return records


def _manifest(plan: _Plan, records: Iterable[ImageRecord], *, versions: Versions) -> Manifest:
    """The manifest of the whole set; how its records came about leaves no trace in it."""
    by_name = {each.name: each for each in records}
    ordered = tuple(by_name[image.name] for image in plan.images)
    release, reasons = release_of(plan, ordered)
    heads = {each.file: each.heads for each in ordered if each.split == "train"}
    recipe, config = plan.found.recipe, plan.config
    drawn = partial(held_out, seed=config.seed, groups=plan.groups)
    has_val = any(each.split == "val" for each in ordered)
    validation = () if has_val else drawn(heads, fraction=config.val_fraction)
    rest = {file: heads[file] for file in heads if file not in validation}
    calibration = drawn(rest, fraction=config.calibration_fraction * len(heads) / max(len(rest), 1))
    return Manifest(
        format=FORMAT,
        versions=versions,
        name=plan.found.name,
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
        totals=totals_by_split(ordered),
        unpaired=plan.unpaired,
        held_out=validation,
        calibration=calibration,
        images=ordered,
        folds=_folds(plan, {file: heads[file] for file in heads if file not in calibration}),
        unlabelled=tuple(plan.unlabelled),
    )


def _folds(plan: _Plan, heads: Mapping[str, int]) -> tuple[tuple[str, ...], ...]:
    """The images of each fold: the recipe's own, or as many as the settings want."""
    validation, config = plan.found.recipe.validation, plan.config
    if validation.folds:
        training = [image for image in plan.images if image.split == "train"]
        return tuple(
            tuple(
                sorted(
                    each.file
                    for each in training
                    if each.file in heads and validation.fold_of(each.id) == fold
                )
            )
            for fold in range(len(validation.folds))
        )
    if not config.folds:
        return ()
    return parted(heads, folds=config.folds, seed=config.seed, groups=plan.groups)
