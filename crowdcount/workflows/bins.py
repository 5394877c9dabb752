"""Bins of a prepared data set: count windows, average, keep the table beside the data."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from crowdcount.core.bins import Bins, average_values, fine_starts
from crowdcount.core.blocks import window_histogram
from crowdcount.core.heads import largest_observable_count
from crowdcount.core.progress import Track, untracked
from crowdcount.data.prepared import MANIFEST, PreparedDataset
from crowdcount.errors import BadInputError, UsageError
from crowdcount.files import sha256_file, write_json


@dataclass(frozen=True, kw_only=True)
class BinsTable:
    """Bins with what they were made from."""

    bins: Bins

    histogram: tuple[int, ...]
    """Windows that hold 0, 1, 2, ... heads, over all training images and pixel offsets."""

    smallest_head: int
    """Side in pixels of the smallest head that can be recognised."""

    paper: bool
    """Whether heads on one pixel were counted once, as for the published tables."""

    sources: tuple[tuple[str, str], ...]
    """Name of each data set, and the SHA-256 of its manifest."""

    def empty_bins(self) -> tuple[int, ...]:
        """Bins into which no window fell: their representative is their lower edge, not a mean."""
        classes = self.bins.classify(torch.arange(len(self.histogram), dtype=torch.float32))
        held = np.bincount(classes.numpy(), weights=self.histogram, minlength=len(self.bins.starts))
        return tuple(int(index) for index in np.flatnonzero(held == 0))

    def to_json(self) -> dict[str, Any]:
        """The content of a bins file."""
        return {
            "format": 1,
            **self.bins.to_json(),
            "smallest_head": self.smallest_head,
            "paper": self.paper,
            "histogram": list(self.histogram),
            "sources": [{"name": name, "manifest": digest} for name, digest in self.sources],
        }

    @classmethod
    def from_file(cls, path: Path) -> "BinsTable":
        """Read a bins file.

        Raises:
            BadInputError: If the file does not hold a bins table.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                bins=Bins.from_json(content),
                histogram=tuple(content["histogram"]),
                smallest_head=content["smallest_head"],
                paper=content["paper"],
                sources=tuple((each["name"], each["manifest"]) for each in content["sources"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise BadInputError(
                f"{path}: not a bins file: {error}",
                next_step="make it anew: crowdcount bins --force",
            ) from error


def make_bins(
    data: Sequence[PreparedDataset],
    *,
    block: int,
    smallest_head: int | None = None,
    paper: bool = False,
    track: Track = untracked,
) -> BinsTable:
    """Fine bins up to m = (r // s)^2 with average representatives, over all training images.

    The images held out for validation are among them, as in the published tables.

    Args:
        data: Prepared data sets, taken together.
        block: Block side r in pixels.
        smallest_head: Side s of the smallest head that can be recognised, in pixels; None: as the
            data sets were prepared.
        paper: Count heads that share a pixel once, which reproduces the published tables.
        track: Shows progress.

    Raises:
        UsageError: If the block is too small to hold two bins.
    """
    if smallest_head is None:
        smallest_head = min(each.manifest.settings.smallest_head for each in data)
    largest = largest_observable_count(block=block, smallest_head=smallest_head)
    histogram = count_windows(data, block=block, collapse_duplicates=paper, track=track)
    starts = fine_starts(largest)
    return BinsTable(
        bins=Bins(block=block, starts=starts, values=average_values(starts, histogram)),
        histogram=tuple(histogram.tolist()),
        smallest_head=smallest_head,
        paper=paper,
        sources=_sources(data),
    )


def count_windows(
    data: Sequence[PreparedDataset],
    *,
    block: int,
    collapse_duplicates: bool,
    track: Track = untracked,
) -> Int64[np.ndarray, " counts"]:
    """Windows of all training images that hold 0, 1, 2, ... heads."""
    total = np.zeros(1, dtype=np.int64)
    images = [(source, record) for source in data for record in source.all_training()]
    for source, record in track(images, label="counting windows"):
        one = window_histogram(
            torch.from_numpy(source.points(record)),
            height=record.height,
            width=record.width,
            block=block,
            collapse_duplicates=collapse_duplicates,
        )
        grown = np.zeros(max(len(total), len(one)), dtype=np.int64)
        grown[: len(total)] += total
        grown[: len(one)] += one
        total = grown
    return total


def bins_path(data: PreparedDataset, *, block: int) -> Path:
    """Where the bins of a prepared data set lie."""
    return data.folder / f"bins-r{block}.json"


def write_bins(data: PreparedDataset, table: BinsTable, *, force: bool = False) -> Path:
    """Write a table into the prepared folder it was made from.

    A table made from data that has been prepared anew since is replaced; one made with other
    settings is not.

    Raises:
        UsageError: If a table of other settings is there and ``force`` is not set.
    """
    path = bins_path(data, block=table.bins.block)
    if path.exists() and not force:
        there = BinsTable.from_file(path)
        if _settings(there) != _settings(table):
            raise UsageError(
                f"{path}: there already, made with other settings: {_describe(there)}",
                looked_for=f"a table made with {_describe(table)}",
                next_step="pass --force to replace it",
            )
        if there == table:
            return path
    write_json(path, table.to_json())
    return path


def training_bins(
    data: Sequence[PreparedDataset], *, block: int, track: Track = untracked
) -> BinsTable:
    """The bins to train with: of a single data set the table beside it, else one over all.

    A table that is missing, or older than the data, is made, and of a single data set written.
    """
    if len(data) > 1:
        return make_bins(data, block=block, track=track)
    path = bins_path(data[0], block=block)
    if path.exists():
        table = BinsTable.from_file(path)
        if table.sources == _sources(data):
            return table
        table = make_bins(
            data,
            block=block,
            smallest_head=table.smallest_head,
            paper=table.paper,
            track=track,
        )
    else:
        table = make_bins(data, block=block, track=track)
    write_bins(data[0], table)
    return table


def _sources(data: Sequence[PreparedDataset]) -> tuple[tuple[str, str], ...]:
    return tuple((each.name, sha256_file(each.folder / MANIFEST)) for each in data)


def _settings(table: BinsTable) -> tuple[tuple[int, ...], int, bool]:
    return table.bins.starts, table.smallest_head, table.paper


def _describe(table: BinsTable) -> str:
    counting = "heads on one pixel once (--paper)" if table.paper else "every head"
    return f"smallest head {table.smallest_head}, counting {counting}"
