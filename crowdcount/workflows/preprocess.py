"""Raw archive to prepared folder: recognise, check, convert, hold out, write a manifest."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from crowdcount.core.limits import MAX_PIXELS
from crowdcount.core.progress import Track, untracked
from crowdcount.data.conversion import convert, is_right
from crowdcount.data.journal import (
    Earlier,
    Origin,
    note,
    open_journal,
    read_earlier,
    start_journal,
    sweep,
)
from crowdcount.data.layout import (
    Found,
    SourceImage,
    SourceSplit,
    recognise,
    shortened,
    source_splits,
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
    read_manifest,
    totals,
)
from crowdcount.data.recipe import SPLITS, Recipe
from crowdcount.errors import (
    BadInputError,
    CrowdCountError,
    InputMissingError,
    UsageError,
    ValidationError,
)
from crowdcount.files import write_json
from crowdcount.version import __version__

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

    release: str | None
    complete: bool
    warnings: tuple[str, ...]
    written: int
    """Images prepared in this run; in a dry run, those that would be."""

    unchanged: int
    """Images that were right already."""


def preprocess(
    source: Path,
    *,
    out: Path | None = None,
    dataset: str | None = None,
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
        dataset: Name of the recipe, where the layout does not tell.
        config: Settings.
        strict: Refuse sets that do not hold what their recipe promises, before writing anything.
        force: Replace a folder that was prepared from something else or with other settings.
        skip_unpaired: Leave images out that nothing annotates.
        dry_run: Write nothing.
        jobs: How many images are worked on at once. Changes the speed, never a result.
        max_pixels: Larger images are refused by their header. Changes no result.
        track: Shows progress.

    Raises:
        InputMissingError: If nothing is recognised, or annotations or images are missing.
        UsageError: If the source is (in) the output, or the output is something else.
        ValidationError: If ``strict`` and a set is not complete.
        BadInputError: If files cannot be used; the images that can be were prepared.
    """
    if jobs < 1:
        raise UsageError(f"jobs must be at least 1, got {jobs}")
    _refuse_prepared(source)
    settings = config or PreprocessConfig()
    sets = recognise(source, dataset=dataset)
    plans = []
    for found in sets:
        folder = Path("data") / found.name if out is None else out
        if out is not None and len(sets) > 1:
            folder = out / found.name
        plan = _planned(found, folder, settings, force=force, skip_unpaired=skip_unpaired)
        plans.append(replace(plan, max_pixels=max_pixels))
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


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """A data set that may be prepared: nothing stands against it."""

    found: Found
    folder: Path
    config: PreprocessConfig
    images: tuple[SourceImage, ...]
    unpaired: dict[str, tuple[str, ...]]
    reasons: tuple[str, ...]
    """In what the images differ from the recipe."""

    origin: Origin
    earlier: Earlier
    max_pixels: int = MAX_PIXELS


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
    splits = source_splits(found)
    log.info("%s: %s, as %s", found.root, found.recipe.title, found.name)
    unpaired = {name: split.unpaired for name, split in splits.items() if split.unpaired}
    if not skip_unpaired:
        for name in unpaired:
            _refuse_unpaired(f"{found.root.name}/{name}", splits[name])
    images = tuple(image for split in splits.values() for image in split.images)
    if not images:
        raise InputMissingError(f"{found.root}: no image has an annotation")
    origin = Origin(
        name=found.name,
        recipe=found.recipe.name,
        settings=config,
        resize=found.recipe.resize,
        points=found.recipe.points,
    )
    earlier = read_earlier(folder, origin, force=force)
    there = {image.name for image in images}
    gone = [name for name in earlier.records if name not in there]
    if gone:
        raise UsageError(
            f"{folder}: {len(gone)} prepared images are no longer in {found.root}: "
            f"{shortened(gone)}",
            next_step="choose another --out, or pass --force to prepare it anew without them",
        )
    return _Plan(
        found=found,
        folder=folder,
        config=config,
        images=images,
        unpaired=unpaired,
        reasons=tuple(_image_reasons(found.recipe, splits)),
        origin=origin,
        earlier=earlier,
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
        if name not in splits:
            if expected is not None:
                yield f"{name}: not there, {expected} images expected"
            continue
        images, unpaired = len(splits[name].images), splits[name].unpaired
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


def _prepared(plan: _Plan, *, dry_run: bool, jobs: int, track: Track) -> PreparedResult:
    records = plan.earlier.records
    kept = [
        records[image.name]
        for image in plan.images
        if image.name in records and is_right(records[image.name], image, folder=plan.folder)
    ]
    right = {record.name for record in kept}
    todo = tuple(image for image in plan.images if image.name not in right)
    if dry_run:
        done = _converted(plan, todo, write=False, jobs=jobs, track=track)
        manifest = _manifest(plan, (*kept, *done))
    elif plan.earlier.manifest is not None and not todo:
        manifest = _manifest(plan, kept)
        log.info("%s: nothing to do, all %d images are right", plan.folder, len(kept))
        if manifest != plan.earlier.manifest:  # by another version, or with the recipe's new words
            write_json(plan.folder / MANIFEST, asdict(manifest))
    else:
        start_journal(plan.folder, plan.origin, records.values())
        done = _converted(plan, todo, write=True, jobs=jobs, track=track)
        manifest = _manifest(plan, (*kept, *done))
        sweep(plan.folder, manifest)
        write_json(plan.folder / MANIFEST, asdict(manifest))
        (plan.folder / JOURNAL).unlink()
    for reason in manifest.reasons:
        log.warning("%s: %s", manifest.name, reason)
    return PreparedResult(
        name=manifest.name,
        folder=plan.folder,
        totals=manifest.totals,
        held_out=len(manifest.held_out),
        release=manifest.release,
        complete=manifest.complete,
        warnings=manifest.reasons,
        written=len(todo),
        unchanged=len(kept),
    )


def _converted(
    plan: _Plan, images: tuple[SourceImage, ...], *, write: bool, jobs: int, track: Track
) -> list[ImageRecord]:
    """Prepare images, and note each in the journal; or find out what would come of them.

    Raises:
        BadInputError: If some cannot be used, after all others were prepared.
    """
    folder = plan.folder if write else None

    def attempted(image: SourceImage) -> ImageRecord | CrowdCountError:
        try:
            return convert(
                image,
                found=plan.found,
                config=plan.config,
                folder=folder,
                max_pixels=plan.max_pixels,
            )
        except CrowdCountError as error:
            return error

    records, problems = [], []
    label = f"{'preprocess' if write else 'check'} {plan.found.name}"
    with (
        _mapped(attempted, images, jobs=jobs) as outcomes,
        nullcontext() if folder is None else open_journal(folder) as journal,
    ):
        for outcome in track(outcomes, label=label, total=len(images)):
            if isinstance(outcome, CrowdCountError):
                problems.append(outcome)
                continue
            records.append(outcome)
            if journal is not None:
                note(outcome, journal)
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


@contextmanager
def _mapped(
    attempted: Callable[[SourceImage], ImageRecord | CrowdCountError],
    images: Iterable[SourceImage],
    *,
    jobs: int,
) -> Iterator[Iterable[ImageRecord | CrowdCountError]]:
    """Outcomes in the order of the images. Threads do: decoding and hashing let others run."""
    if jobs == 1:
        yield map(attempted, images)
        return
    pool = ThreadPoolExecutor(max_workers=jobs)
    try:
        yield pool.map(attempted, images)
    finally:
        pool.shutdown(cancel_futures=True)


def _release(plan: _Plan, records: tuple[ImageRecord, ...]) -> tuple[str | None, tuple[str, ...]]:
    """Which release of the annotations the heads are, and all reasons why the set is not whole.

    Only splits with as many images as promised can tell.
    """
    recipe = plan.found.recipe
    heads = {
        name: found.heads
        for name, found in _totals(records).items()
        if found.images == recipe.splits[name].expect_images
    }
    if not heads or not recipe.releases:
        return None, plan.reasons
    for release, known in recipe.releases.items():
        if all(known.get(name, count) == count for name, count in heads.items()):
            return release, plan.reasons
    reasons = (
        f"{name}: {count} heads, expected "
        + " or ".join(str(known[name]) for known in recipe.releases.values() if name in known)
        for name, count in heads.items()
    )
    return None, (*plan.reasons, *reasons)


def _totals(records: tuple[ImageRecord, ...]) -> dict[str, SplitTotals]:
    by_split = {name: tuple(each for each in records if each.split == name) for name in SPLITS}
    return {name: totals(found) for name, found in by_split.items() if found}


def _manifest(plan: _Plan, records: Iterable[ImageRecord]) -> Manifest:
    """The manifest of the whole set; how its records came about leaves no trace in it."""
    by_name = {each.name: each for each in records}
    ordered = tuple(by_name[image.name] for image in plan.images)
    release, reasons = _release(plan, ordered)
    heads = {each.file: each.heads for each in ordered if each.split == "train"}
    has_val = any(each.split == "val" for each in ordered)
    recipe, config = plan.found.recipe, plan.config
    return Manifest(
        format=FORMAT,
        crowdcount=__version__,
        name=plan.found.name,
        title=recipe.title,
        recipe=recipe.name,
        recipe_sha256=recipe.sha256(),
        settings=config,
        max_count=config.max_count,
        resize=recipe.resize,
        points=recipe.points,
        complete=not reasons,
        reasons=reasons,
        release=release,
        totals=_totals(ordered),
        unpaired=plan.unpaired,
        held_out=() if has_val else held_out(heads, fraction=config.val_fraction, seed=config.seed),
        images=ordered,
    )
