"""A folder against its recipe: what is there, what is missing, what cannot be read."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from crowdcount.core.progress import Track, untracked
from crowdcount.data.recipe import TOTAL
from crowdcount.workflows.preprocess import Inspection, inspect


@dataclass(frozen=True, kw_only=True)
class CheckedSplit:
    """What a split holds, and what its recipe promises; the last is of all splits together."""

    name: str
    labelled: bool
    images: int
    """Images that are there, annotated or not."""

    expected_images: int | None
    heads: int
    expected_heads: tuple[int, ...]
    """In each release that says."""

    unpaired: int
    """Images without annotation."""

    damaged: int
    """Images that cannot be used, or whose annotation cannot."""


@dataclass(frozen=True, kw_only=True)
class CheckedSet:
    """What became of checking one data set."""

    name: str
    title: str
    folder: Path
    release: str | None
    splits: tuple[CheckedSplit, ...]
    reasons: tuple[str, ...]
    """Why the set is not whole."""

    damaged: tuple[str, ...]
    """What is wrong with each file that cannot be used."""

    @property
    def complete(self) -> bool:
        """Whether the set holds what its recipe promises, and all of it can be read."""
        return not self.reasons


def check(
    source: Path,
    *,
    dataset: str | Path | None = None,
    jobs: int = 1,
    track: Track = untracked,
) -> list[CheckedSet]:
    """Check the data sets that ``source`` is or holds. Writes nothing.

    Args:
        source: Folder of a data set, or one that holds some.
        dataset: Name or file of the recipe, where the layout does not tell.
        jobs: How many images are worked on at once.
        track: Shows progress.

    Raises:
        InputMissingError: If nothing is recognised.
        UsageError: If more than one recipe fits, or the source is prepared data.
    """
    inspections = inspect(source, dataset=dataset, jobs=jobs, track=track)
    return [_checked(inspection) for inspection in inspections]


def _checked(inspection: Inspection) -> CheckedSet:
    splits = tuple(_splits(inspection))
    reasons = tuple(
        f"{split.name}: {split.damaged} images cannot be used"
        for split in splits[:-1]
        if split.damaged
    )
    return CheckedSet(
        name=inspection.found.name,
        title=inspection.found.recipe.title,
        folder=inspection.found.root,
        release=inspection.release,
        splits=splits,
        reasons=(*inspection.reasons, *reasons),
        damaged=tuple(problem.message for problem in inspection.problems),
    )


def _splits(inspection: Inspection) -> Iterator[CheckedSplit]:
    recipe = inspection.found.recipe
    rows = []
    for name, layout in recipe.splits.items():
        paired, totals = inspection.images.get(name, 0), inspection.totals.get(name)
        unpaired = len(inspection.unpaired.get(name, ()))
        row = CheckedSplit(
            name=name,
            labelled=not layout.unlabelled,
            images=paired + unpaired + inspection.unlabelled.get(name, 0),
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
