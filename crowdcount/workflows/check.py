"""Check a folder of data sets against their recipes."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from crowdcount.core.limits import MAX_PIXELS
from crowdcount.core.progress import Track, untracked
from crowdcount.data.prepared.manifest import ImageRecord, PreprocessConfig, totals_by_split
from crowdcount.data.sources.find import SourceSet, find_sets
from crowdcount.data.sources.point_quality import faults, remarks
from crowdcount.data.sources.recipe import TOTAL
from crowdcount.errors import ValidationError
from crowdcount.workflows.scan import Converter, Scan, find_release, refuse_prepared, scan
from crowdcount.workflows.thread_map import ThreadMap


@dataclass(frozen=True, kw_only=True)
class CheckedSplit:
    """The content of a split beside the promise of its recipe; also of all splits together."""

    name: str
    labelled: bool
    images: int
    """Existing images, annotated or not."""

    expected_images: int | None
    heads: int
    expected_heads: tuple[int, ...]
    """Heads in each release, where known."""

    unpaired: int
    """Images without annotation."""

    damaged: int
    """Images that cannot be used, or have an annotation that cannot be used."""


@dataclass(frozen=True, kw_only=True)
class CheckedSet:
    """The result of checking one data set."""

    name: str
    release: str | None
    splits: tuple[CheckedSplit, ...]
    reasons: tuple[str, ...]
    """Reasons why the set is incomplete."""

    damaged: tuple[str, ...]
    """Problem of each file that cannot be used."""

    faults: tuple[str, ...]
    """Points that cannot be trusted, even if the set is complete."""

    remarks: tuple[str, ...]
    """Unusual points that may well be right."""

    @property
    def complete(self) -> bool:
        """Whether the set holds what its recipe promises, and all of it is readable."""
        return not self.reasons


def check(
    source: Path,
    *,
    dataset: str | Path | None = None,
    jobs: int = 1,
    max_pixels: int = MAX_PIXELS,
    track: Track = untracked,
) -> list[CheckedSet]:
    """Check the data sets in ``source``. Writes nothing.

    Args:
        source: Folder of a data set or of several.
        dataset: Name or file of the recipe, if the layout does not identify it.
        jobs: Number of images that are processed at once.
        max_pixels: Larger images are refused by their header.
        track: Shows progress.

    Raises:
        InputMissingError: If nothing is recognised.
        UsageError: If more than one recipe fits, or the source is prepared data.
    """
    threads = ThreadMap(jobs=jobs, track=track)
    converter = Converter(config=PreprocessConfig(), threads=threads, max_pixels=max_pixels)
    refuse_prepared(source)
    return [_check_set(source_set, converter) for source_set in find_sets(source, dataset=dataset)]


def refuse_incomplete(source: Path, results: Sequence[CheckedSet]) -> None:
    """Refuse data sets that are incomplete.

    Raises:
        ValidationError: If one is incomplete.
    """
    failed = [result for result in results if not result.complete]
    if failed:
        names = ", ".join(result.name for result in failed)
        reasons = [reason for result in failed for reason in result.reasons]
        more = f"; and {len(reasons) - 3} more reasons" if len(reasons) > 3 else ""
        raise ValidationError(
            f"{source}: {names} not as promised: {'; '.join(reasons[:3])}{more}",
            next_step="unpack the archive again, or name another recipe with --dataset",
        )


def _check_set(source: SourceSet, converter: Converter) -> CheckedSet:
    scanned = scan(source, skip_unpaired=True)
    records, errors = converter(scanned, scanned.images, folder=None)
    splits = tuple(_splits(scanned, records))
    release, reasons = find_release(scanned, records)
    unusable = tuple(
        f"{split.name}: {split.damaged} images cannot be used"
        for split in splits[:-1]
        if split.damaged
    )
    points = scanned.source.recipe.points
    suspicion = () if scanned.suspicion is None else (scanned.suspicion.reason,)
    return CheckedSet(
        name=source.name,
        release=release,
        splits=splits,
        reasons=(*reasons, *unusable),
        damaged=tuple(error.message for error in errors),
        faults=(*suspicion, *faults(records, points=points)),
        remarks=remarks(records),
    )


def _splits(scanned: Scan, records: Sequence[ImageRecord]) -> Iterator[CheckedSplit]:
    """Yield a row for each split that exists or is expected, and one for all of them together."""
    recipe = scanned.source.recipe
    paired_images = Counter(image.split for image in scanned.images)
    sums = totals_by_split(records)
    rows = []
    for name, layout in recipe.splits.items():
        paired, totals = paired_images[name], sums.get(name)
        unpaired = len(scanned.unpaired.get(name, ()))
        row = CheckedSplit(
            name=name,
            labelled=not layout.unlabelled,
            images=paired + unpaired + scanned.unlabelled.get(name, 0),
            expected_images=layout.expect_images,
            heads=0 if totals is None else totals.heads,
            expected_heads=tuple(recipe.heads(name).values()),
            unpaired=unpaired,
            damaged=paired - (0 if totals is None else totals.images),
        )
        if row.images or row.expected_images is not None:
            rows.append(row)
    yield from rows
    expected = [row.expected_images for row in rows if row.expected_images is not None]
    yield CheckedSplit(
        name=TOTAL,
        labelled=True,
        images=sum(row.images for row in rows),
        expected_images=sum(expected) if len(expected) == len(rows) else None,
        heads=sum(row.heads for row in rows),
        expected_heads=tuple(recipe.heads(TOTAL).values()),
        unpaired=sum(row.unpaired for row in rows),
        damaged=sum(row.damaged for row in rows),
    )
