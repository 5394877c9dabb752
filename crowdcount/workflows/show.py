"""Summarise the counts of a prepared data set, and draw a sheet of annotated images."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain, pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from crowdcount.core.blocks import heads_per_block
from crowdcount.core.progress import Track, untracked
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.data.prepared.manifest import ImageRecord
from crowdcount.data.prepared.splits import spread_by_count
from crowdcount.drawing.contact_sheet import (
    LARGEST_NUMBER,
    BlockColours,
    Layout,
    Tile,
    contact_sheet,
    picture,
)
from crowdcount.errors import InputMissingError, UsageError
from crowdcount.files import refuse_existing
from crowdcount.wording import counted, did_you_mean


@dataclass(frozen=True, kw_only=True)
class CountSummary:
    """Counts of the images of a split, from the manifest alone."""

    images: int
    empty: int
    """Images without heads."""

    heads: int
    smallest: int
    """Fewest heads of an image; the next three are heads per image, too."""

    median: float
    mean: float
    largest: int
    heads_per_megapixel: float
    """All heads divided by all pixels."""

    sizes: int
    """Number of different image sizes."""

    least_size: tuple[int, int]
    """``(width, height)`` of the image with the fewest pixels."""

    most_size: tuple[int, int]
    """``(width, height)`` of the image with the most pixels."""

    histogram: tuple[tuple[int, int, int], ...]
    """``(lowest, highest, images)``: number of images in each range of heads."""

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as a mapping."""
        rows = [{"low": low, "high": high, "images": n} for low, high, n in self.histogram]
        return asdict(self) | {"histogram": rows}


def check_sheet(path: Path, *, force: bool) -> None:
    """Refuse to write a sheet to a path that is taken or does not end in ``.png``.

    Raises:
        UsageError: If ``path`` exists and ``force`` is not set, or has another suffix.
    """
    if path.suffix.lower() != ".png":
        raise UsageError(f"{path}: the sheet is a PNG file", next_step="end its name in .png")
    refuse_existing(path, force=force)


def summary(records: Sequence[ImageRecord]) -> CountSummary:
    """Summarise the images of a split, at least one."""
    heads = [record.heads for record in records]
    sizes = sorted(
        {(record.width, record.height) for record in records}, key=lambda s: (s[0] * s[1], s)
    )
    pixels = sum(record.width * record.height for record in records)
    return CountSummary(
        images=len(records),
        empty=heads.count(0),
        heads=sum(heads),
        smallest=min(heads),
        median=float(statistics.median(heads)),
        mean=sum(heads) / len(heads),
        largest=max(heads),
        heads_per_megapixel=sum(heads) / (pixels / 1e6),
        sizes=len(sizes),
        least_size=sizes[0],
        most_size=sizes[-1],
        histogram=_histogram(heads),
    )


def summaries(data: PreparedDataset) -> dict[str, CountSummary]:
    """Summarise each split; images held out for validation are in ``val``."""
    return {split: summary(data.records(split)) for split in data.splits}


def _histogram(heads: Sequence[int]) -> tuple[tuple[int, int, int], ...]:
    """Count images by heads, in ranges that begin at 0, 1, 10, 20, 50, 100, 200, 500, and so on.

    Ranges without images between the smallest and the largest count are included.
    """
    # Counts differ by factors between scenes, so one of equally wide ranges would hold most images.
    starts = [0, 1]
    decade = 10
    while starts[-1] <= max(heads):
        starts += [decade, 2 * decade, 5 * decade]
        decade *= 10
    ranges = [(low, end - 1) for low, end in pairwise(starts)]
    rows = [(low, high, sum(low <= count <= high for count in heads)) for low, high in ranges]
    filled = [index for index, (_, _, images) in enumerate(rows) if images]
    return tuple(rows[filled[0] : filled[-1] + 1])


def choose(
    data: PreparedDataset,
    names: Sequence[str] = (),
    *,
    split: str | None = None,
    number: int = 12,
    seed: int = 42,
) -> tuple[ImageRecord, ...]:
    """Choose the images of a sheet: those named, or else a draw stratified by count.

    Args:
        data: The prepared data set.
        names: Names of images in the manifest (``train/IMG_12.jpg``), or ends of such names
            (``IMG_12.jpg``, ``IMG_12``) that only one image has.
        split: The split to search. None: all of them or, without names, the first.
        number: Number of images to draw.
        seed: Seed of the draw.

    Raises:
        UsageError: If several images match a name, or there are too many for a sheet.
        InputMissingError: If no image matches a name, or the split does not exist.
    """
    images = len(set(names)) or number
    if not 1 <= images <= LARGEST_NUMBER:
        raise UsageError(f"a sheet holds 1 to {LARGEST_NUMBER} images, not {images}")
    if names:
        records = data.manifest.images if split is None else data.records(split)
        return tuple(dict.fromkeys(_find(name, records) for name in names))
    by_name = {record.name: record for record in data.records(split or data.splits[0])}
    heads = {name: record.heads for name, record in by_name.items()}
    return tuple(by_name[name] for name in spread_by_count(heads, number=number, seed=seed))


def _find(name: str, records: Sequence[ImageRecord]) -> ImageRecord:
    """Find the image with a name, or else the only one whose name ends like it."""
    exact = [record for record in records if record.name == name]
    matches = exact or [record for record in records if name in _endings(record)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise UsageError(
            f"{name}: several images have this name",
            looked_for=", ".join(record.name for record in matches[:5]),
            next_step=f"name one in full, such as {matches[0].name}",
        )
    endings = dict.fromkeys(chain.from_iterable(_endings(record) for record in records))
    raise InputMissingError(
        f"{name}: no such image{did_you_mean(name, endings)}",
        looked_for=f"{len(records)} names in the manifest, such as {records[0].name}",
    )


def _endings(record: ImageRecord) -> tuple[str, ...]:
    """Return all ends of an image's name, with and without its suffix."""
    parts = PurePosixPath(record.name).parts
    ends = [PurePosixPath(*parts[start:]) for start in range(len(parts))]
    return tuple(str(path) for end in ends for path in (end, end.with_suffix("")))


def draw_sheet(
    data: PreparedDataset, records: Sequence[ImageRecord], *, track: Track = untracked
) -> bytes:
    """Draw images with their heads and blocks, in the order given: a PNG file.

    Only one image at a time is in memory.

    Raises:
        InputMissingError: If an image does not exist.
        BadInputError: If a file is damaged.
    """
    manifest = data.manifest
    block = manifest.settings.block
    colours = BlockColours(
        block=block,
        max_count=manifest.max_count,
        fullest=max(_fullest(data, record, block=block) for record in records),
    )
    layout = Layout.of([(record.width, record.height) for record in records])
    tiles = [
        Tile(
            picture=picture(data.sample(record), layout=layout, colours=colours),
            name=record.name,
            caption=_caption(record),
        )
        for record in track(records, label="drawing")
    ]
    heads = sum(record.heads for record in records)
    title = (
        f"{manifest.name}: {counted(len(records), 'image')} of {len(manifest.images):,}, "
        f"{counted(heads, 'head')} of {sum(record.heads for record in manifest.images):,}"
    )
    return contact_sheet(tiles, title=title, layout=layout, colours=colours)


def _fullest(data: PreparedDataset, record: ImageRecord, *, block: int) -> int:
    points = data.points(record)
    counts = heads_per_block(points, height=record.height, width=record.width, block=block)
    return int(counts.max())


def _caption(record: ImageRecord) -> str:
    words = [counted(record.heads, "head"), f"{record.width} x {record.height}"]
    if record.blocks_corrected:
        words.append(f"{counted(record.blocks_corrected, 'block')} corrected")
    return ", ".join(words)
