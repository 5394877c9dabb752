"""Raw archive to prepared folder: recognise, check, convert, hold out, write a manifest."""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from crowdcount.core.progress import Track, untracked
from crowdcount.data.checks import faults, remarks
from crowdcount.data.conversion import convert, is_right
from crowdcount.data.journal import (
    Earlier,
    Origin,
    note,
    open_journal,
    read_earlier,
    start_journal,
    strays,
    sweep,
)
from crowdcount.data.layout import (
    Found,
    SourceImage,
    SourceSplit,
    grouped,
    recognise,
    shortened,
    source_splits,
    unlabelled_images,
)
from crowdcount.data.prepared import (
    FORMAT,
    JOURNAL,
    MANIFEST,
    ImageRecord,
    Manifest,
    PreprocessConfig,
    SplitTotals,
    held_out,
    parted,
    read_manifest,
    totals_by_split,
)
from crowdcount.data.recipe import TOTAL, Recipe
from crowdcount.data.software import Versions, joined_versions, versions_now
from crowdcount.errors import (
    BadInputError,
    ConfigError,
    CrowdCountError,
    InputMissingError,
    UsageError,
    ValidationError,
)
from crowdcount.files import write_json
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
    _refuse_prepared(source)
    settings = config or PreprocessConfig()
    sets = recognise(source, dataset=dataset)
    if order is not None:
        sets = [_reordered(found, order) for found in sets]
    plans = []
    for found in sets:
        folder = Path("data") / found.name if out is None else out
        if out is not None and len(sets) > 1:
            folder = out / found.name
        plans.append(_planned(found, folder, settings, force=force, skip_unpaired=skip_unpaired))
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
class Inspection:
    """What a data set holds, found out without writing anything."""

    found: Found
    images: dict[str, int]
    """Annotated images of each split."""

    totals: dict[str, SplitTotals]
    """Sums over those that could be read."""

    unpaired: dict[str, tuple[str, ...]]
    unlabelled: dict[str, int]
    problems: tuple[CrowdCountError, ...]
    """Why other images cannot be used."""

    release: str | None
    reasons: tuple[str, ...]
    """In what the set differs from what its recipe promises."""


def inspect(
    source: Path,
    *,
    dataset: str | Path | None = None,
    jobs: int = 1,
    track: Track = untracked,
) -> list[Inspection]:
    """Read the data sets that ``source`` is or holds as a dry run does, past every problem.

    Args:
        source: Folder of a data set, or one that holds some.
        dataset: Name or file of the recipe, where the layout does not tell.
        jobs: How many images are worked on at once.
        track: Shows progress.

    Raises:
        InputMissingError: If nothing is recognised.
        UsageError: If more than one recipe fits, or the source is prepared data.
    """
    _refuse_prepared(source)
    inspections = []
    for found in recognise(source, dataset=dataset):
        contents = _contents(found, PreprocessConfig(), skip_unpaired=True)
        records, problems = _attempted(
            contents, contents.images, folder=None, jobs=jobs, track=track
        )
        release, reasons = _release(contents, tuple(records))
        inspections.append(
            Inspection(
                found=found,
                images=Counter(image.split for image in contents.images),
                totals=totals_by_split(tuple(records)),
                unpaired=contents.unpaired,
                unlabelled=contents.unlabelled,
                problems=tuple(problems),
                release=release,
                reasons=reasons,
            )
        )
    return inspections


@dataclass(frozen=True, kw_only=True)
class _Contents:
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


@dataclass(frozen=True, kw_only=True)
class _Plan(_Contents):
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
) -> _Plan:
    """Check everything that can be checked without reading an image."""
    _refuse_overlap(found.root, folder)
    contents = _contents(found, config, skip_unpaired=skip_unpaired)
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
            f"{folder}: {len(gone)} prepared images are no longer in {found.root}: "
            f"{shortened(gone)}",
            next_step="choose another --out, or pass --force to prepare it anew without them",
        )
    return _Plan(**vars(contents), folder=folder, origin=origin, earlier=earlier)


def _contents(found: Found, config: PreprocessConfig, *, skip_unpaired: bool) -> _Contents:
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
    return _Contents(
        found=found,
        config=config,
        images=images,
        unpaired=unpaired,
        unlabelled=unlabelled,
        groups=groups,
        reasons=tuple(_image_reasons(found.recipe, splits)),
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
                f"{found.recipe.name}.toml: validation.folds: in none of them: {shortened(astray)}"
            )
        return
    apart = len(training) - len(groups) + len(set(groups.values()))
    if config.folds > apart:
        what = "groups of training images" if groups else "training images"
        raise UsageError(
            f"{found.root}: {apart} {what} cannot be parted into {config.folds} folds",
            next_step="ask for fewer with --folds",
        )


def _refuse_prepared(source: Path) -> None:
    try:
        name = read_manifest(source).name
    except CrowdCountError:
        return
    raise UsageError(
        f"{source}: is prepared already, as {name}", next_step="name the folder of the originals"
    )


def _refuse_overlap(root: Path, folder: Path) -> None:
    source, target = root.resolve(), folder.resolve()
    if source == target or source in target.parents or target in source.parents:
        raise UsageError(
            f"{folder}: the prepared folder and its source {root} lie in each other",
            next_step="choose another folder with --out",
        )


def _refuse_unpaired(label: str, split: SourceSplit) -> None:
    count = len(split.unpaired)
    raise InputMissingError(
        f"{label}: {count} image{'s have' if count > 1 else ' has'} no annotation: "
        f"{shortened(split.unpaired)}",
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
            yield f"{name}: named by {named_by}, not there: {shortened(splits[name].absent)}"
        if unpaired:
            yield f"{name}: left out without annotation: {shortened(unpaired)}"
        if expected is not None and images != expected:
            yield f"{name}: {images} images, {expected} expected"


def _refuse_incomplete(plan: _Plan, *, jobs: int, track: Track) -> None:
    """Read all annotations, and refuse the set unless it holds what its recipe promises."""
    records = _converted(plan, plan.images, write=False, jobs=jobs, track=track)
    _, reasons = _release(plan, tuple(records))
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
    records, problems = _attempted(plan, images, folder=folder, jobs=jobs, track=track)
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


def _attempted(
    contents: _Contents,
    images: tuple[SourceImage, ...],
    *,
    folder: Path | None,
    jobs: int,
    track: Track,
) -> tuple[list[ImageRecord], list[CrowdCountError]]:
    """What comes of images, and why nothing comes of others."""

    def attempted(image: SourceImage) -> ImageRecord | CrowdCountError:
        try:
            return convert(image, found=contents.found, config=contents.config, folder=folder)
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


def _release(
    plan: _Contents, records: tuple[ImageRecord, ...]
) -> tuple[str | None, tuple[str, ...]]:
    """Which release of the annotations the heads are, and all reasons why the set is not whole.

    Only splits with as many images as promised can tell, and their total where all of them are.
    """
    recipe = plan.found.recipe
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
        return None, plan.reasons
    for release, known in recipe.releases.items():
        told = heads.keys() & known.keys()
        if told and all(known[name] == heads[name] for name in told):
            return release, plan.reasons
    reasons = (
        f"{name}: {count} heads, expected "
        + " or ".join(str(known[name]) for known in recipe.releases.values() if name in known)
        for name, count in heads.items()
    )
    return None, (*plan.reasons, *reasons)


def _manifest(plan: _Plan, records: Iterable[ImageRecord], *, versions: Versions) -> Manifest:
    """The manifest of the whole set; how its records came about leaves no trace in it."""
    by_name = {each.name: each for each in records}
    ordered = tuple(by_name[image.name] for image in plan.images)
    release, reasons = _release(plan, ordered)
    heads = {each.file: each.heads for each in ordered if each.split == "train"}
    has_val = any(each.split == "val" for each in ordered)
    recipe, config = plan.found.recipe, plan.config
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
        held_out=()
        if has_val
        else held_out(heads, fraction=config.val_fraction, seed=config.seed, groups=plan.groups),
        images=ordered,
        folds=_folds(plan, heads),
        unlabelled=tuple(plan.unlabelled),
    )


def _folds(plan: _Plan, heads: Mapping[str, int]) -> tuple[tuple[str, ...], ...]:
    """The training images of each fold: the recipe's own, or as many as the settings want."""
    validation, config = plan.found.recipe.validation, plan.config
    if validation.folds:
        training = [image for image in plan.images if image.split == "train"]
        return tuple(
            tuple(sorted(each.file for each in training if validation.fold_of(each.id) == fold))
            for fold in range(len(validation.folds))
        )
    if not config.folds:
        return ()
    return parted(heads, folds=config.folds, seed=config.seed, groups=plan.groups)
