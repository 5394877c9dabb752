"""Bins of prepared data: count windows, choose bins and their values, write bins files."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Int64
from pydantic import Field

from crowdcount.core.bins import (
    POLICIES,
    Bins,
    StoredBins,
    WrittenBins,
    auto_starts,
    average_values,
    format_range,
    middle_values,
)
from crowdcount.core.blocks import largest_observable_count, window_histogram
from crowdcount.core.limits import MAX_BLOCK
from crowdcount.core.progress import Track, untracked
from crowdcount.core.settings import PositiveInt, check_choice, parse
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.data.prepared.find import find_prepared
from crowdcount.data.prepared.manifest import MANIFEST
from crowdcount.drawing.charts import bar_chart
from crowdcount.errors import BadInputError, UsageError
from crowdcount.files import read_json, refuse_existing, sha256_file, write_bytes, write_json
from crowdcount.workflows.bins_tables import check_block, find_table, published_table, read_table

log = logging.getLogger("crowdcount")

AUTO = "auto"
"""The policy that makes as many bins as hold enough blocks each."""

STDOUT = Path("-")

REPRESENTATIVES = ("average", "middle")
"""The value of a bin: the mean count of its windows, or the middle of its range."""

ENOUGH_BLOCKS = 100
"""Blocks that a bin needs to be learnt: ``auto`` guarantees them, else a warning names the bin."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A prepared data set that bins were made from."""

    name: str
    manifest: str
    """SHA-256 of its manifest."""


@dataclass(frozen=True, kw_only=True)
class BinsTable:
    """Bins with the settings and data they were made from: the content of a bins file."""

    bins: StoredBins

    # Files of version 0.1 have no policy and no representatives: there was no choice.
    policy: str = "fine"
    """``fine``, ``dynamic``, ``coarse`` or ``auto``; else the name of the given table."""

    representatives: str = "average"
    """``average`` or ``middle``; ``given`` if the values come from a given table."""

    smallest_head: PositiveInt | None
    """Side in pixels of the smallest recognisable head; None: as prepared, or not needed."""

    paper: bool
    """Whether heads on the same pixel count once, as in the published tables."""

    histogram: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...]
    """Number of windows with 0, 1, 2, ... heads, over all training images and pixel offsets."""

    sources: tuple[Source, ...]

    @property
    def name(self) -> str:
        """Names of the data sets, as a title."""
        return " + ".join(source.name for source in self.sources)

    @property
    def windows(self) -> tuple[int, ...]:
        """Number of windows in each bin."""
        return self._sums(self.histogram)

    @property
    def heads(self) -> tuple[int, ...]:
        """Number of heads in each bin; a head counts in every window that covers it."""
        return self._sums([count * windows for count, windows in enumerate(self.histogram)])

    @property
    def blocks(self) -> tuple[float, ...]:
        """Number of blocks in each bin, averaged over the r x r offsets of the block grid."""
        return tuple(windows / self.bins.block**2 for windows in self.windows)

    def settings(self) -> dict[str, Any]:
        """Return the arguments of :func:`make_bins`, without the block, that such a table needs."""
        given = self.representatives == "given"
        policy: str | WrittenBins = self.policy
        if policy not in (*POLICIES, AUTO):
            values = self.bins.values if given else None
            policy = WrittenBins(name=self.policy, starts=self.bins.starts, values=values)
        return {
            "policy": policy,
            "representatives": None if given else self.representatives,
            "smallest_head": self.smallest_head,
            "paper": self.paper,
        }

    def empty_bins(self) -> tuple[int, ...]:
        """Return the indices of bins without windows, which have no average of their own."""
        return tuple(index for index, windows in enumerate(self.windows) if windows == 0)

    def scarce_bins(self) -> tuple[int, ...]:
        """Return the indices of bins with fewer than ``ENOUGH_BLOCKS`` blocks, empty ones too."""
        return tuple(index for index, blocks in enumerate(self.blocks) if blocks < ENOUGH_BLOCKS)

    def _sums(self, per_count: Sequence[int]) -> tuple[int, ...]:
        ends = [*self.bins.starts[1:], None]
        return tuple(
            map(sum, (per_count[i:j] for i, j in zip(self.bins.starts, ends, strict=True)))
        )

    def to_json(self) -> dict[str, Any]:
        """Return the content of a bins file, in which block and bins stand beside the rest."""
        stored = self.bins.to_json()
        return {"format": 1, "block": stored["block"]} | dataclasses.asdict(self) | stored

    @classmethod
    def from_file(cls, path: Path) -> "BinsTable":
        """Read a bins file.

        Raises:
            BadInputError: If the file does not hold a bins table.
        """
        try:
            content = read_json(path)
            return parse(cls, {**content, "bins": content})
        except (OSError, TypeError, ValueError) as error:
            raise BadInputError(
                f"{path}: not a bins file: {error}",
                next_step="make it again: crowdcount bins --force",
            ) from error


def make_bins(
    data: Sequence[PreparedDataset],
    *,
    block: int,
    policy: str | WrittenBins = "fine",
    representatives: str | None = None,
    smallest_head: int | None = None,
    paper: bool = False,
    track: Track = untracked,
) -> BinsTable:
    """Choose bins, and the value of each, from all training images.

    These include the images held out for validation, as for the published tables.

    ``fine``, ``dynamic`` and ``coarse`` depend on m = (r // s)^2 only. ``auto`` makes as many bins
    up to m as have at least 100 blocks each: 0 is a bin; from 1 on a bin grows by one count until
    it has 100 blocks, and the next bin starts if 100 blocks remain. The number of blocks is
    windows / r^2, the mean over all offsets of the grid.

    Args:
        data: Prepared data sets, used together.
        block: Block side r in pixels.
        policy: ``fine``, ``dynamic``, ``coarse`` or ``auto``; or a table of bins.
        representatives: ``average`` or ``middle``; None: the values of the table, else averages.
        smallest_head: Side s in pixels of the smallest recognisable head; None: as the data sets
            were prepared, their m included. A table needs none.
        paper: Count heads on the same pixel once, which reproduces the published tables.
        track: Progress reporting.

    Raises:
        UsageError: If the policy or the representatives are unknown, the block is too large, or
            the table is for another block side.
    """
    _check_choices(policy, representatives, block=block, smallest_head=smallest_head)
    histogram = count_windows(data, block=block, collapse_duplicates=paper, track=track)
    if isinstance(policy, WrittenBins):
        plan = policy
    else:
        largest = min(
            (
                source.manifest.max_count
                if smallest_head is None and block == source.manifest.settings.block
                else largest_observable_count(
                    block=block,
                    smallest_head=smallest_head or source.manifest.settings.smallest_head,
                )
            )
            for source in data
        )
        starts = (
            auto_starts(largest, histogram, least=ENOUGH_BLOCKS * block**2)
            if policy == AUTO
            else POLICIES[policy](largest)
        )
        plan = WrittenBins(name=policy, starts=starts)
    if representatives is None and plan.values is not None:
        values, representatives = plan.values, "given"
    elif representatives == "middle":
        values = middle_values(plan.starts)
    else:
        values, representatives = average_values(plan.starts, histogram), "average"
    return BinsTable(
        bins=Bins(block=block, starts=plan.starts, values=values),
        histogram=tuple(histogram.tolist()),
        policy=plan.name,
        representatives=representatives,
        smallest_head=smallest_head,
        paper=paper,
        sources=_sources(data),
    )


def _check_choices(
    policy: str | WrittenBins, representatives: str | None, *, block: int, smallest_head: int | None
) -> None:
    if block > MAX_BLOCK:
        raise UsageError(f"block: must be at most {MAX_BLOCK} pixels, got {block}")
    if representatives is not None:
        check_choice("representatives", representatives, REPRESENTATIVES)
    if isinstance(policy, str):
        check_choice("policy", policy, (*POLICIES, AUTO))
        return
    check_block(policy, block=block)
    if smallest_head is not None:
        raise UsageError(
            f"{policy.name}: the table sets the starts of bins, so the smallest head has no effect",
            next_step="leave out --smallest-head",
        )


def count_windows(
    data: Sequence[PreparedDataset],
    *,
    block: int,
    collapse_duplicates: bool,
    track: Track = untracked,
) -> Int64[np.ndarray, " counts"]:
    """Count the windows with 0, 1, 2, ... heads over all training images."""
    total = [0]
    images = [(source, record) for source in data for record in source.all_training()]
    for source, record in track(images, label="counting windows"):
        histogram = window_histogram(
            source.points(record),
            height=record.height,
            width=record.width,
            block=block,
            collapse_duplicates=collapse_duplicates,
        )
        total = list(map(sum, zip_longest(total, histogram.tolist(), fillvalue=0)))
    return np.array(total, dtype=np.int64)


def make_bins_files(
    folders: Sequence[Path],
    *,
    environment: Mapping[str, str],
    policy: str | None = None,
    table: Path | None = None,
    preset: str | None = None,
    block: int | None = None,
    representatives: str | None = None,
    smallest_head: int | None = None,
    paper: bool = False,
    together: bool = False,
    output: Path | None = None,
    chart: Path | None = None,
    printed: bool = False,
    force: bool = False,
    dry_run: bool = False,
    track: Track = untracked,
) -> list[tuple[BinsTable, Path | None]]:
    """Make the bins of each data set as :func:`make_bins` does, or of all together; write them.

    Bins are those of a policy, of a table in a file or of a published one (``preset``), or else
    ``fine``. A ``block`` of None is that of the table, or 8. Without ``output`` each table goes
    into its prepared folder; ``-`` writes none, and ``printed`` says that the caller prints the
    tables, so that one for several data sets needs no file. ``chart`` is a PNG file to draw the
    bins into. ``force`` replaces the chart, and tables made with other settings.

    Returns:
        Each table, and the path of its file if it has one.

    Raises:
        UsageError: If bins are given in several ways, or tables and files do not fit together.
    """
    if [policy, table, preset].count(None) < 2:
        raise UsageError("choose one of --policy, --table and --preset")
    plan: str | WrittenBins = policy or "fine"
    if table is not None or preset is not None:
        plan = published_table(preset or "") if table is None else read_table(table)
        block = block or plan.block
    block = 8 if block is None else block
    data = [PreparedDataset.open(path) for path in find_prepared(folders, environment=environment)]
    groups = [data] if together else [[source] for source in data]
    if len(groups) > 1 and (output or chart):
        raise UsageError(
            "the bins of several data sets do not fit into one file",
            looked_for=", ".join(str(source.folder) for source in data),
            next_step="name one of them with --data, or take them --together",
        )
    refuse_existing(chart, force=force)
    if together and len(data) > 1 and output is None and not (printed or dry_run):
        raise UsageError(
            "one table for several data sets does not belong into the folder of one of them",
            next_step="name a file with -o FILE, or print the table with --json",
        )
    tables = []
    for group in groups:
        made = make_bins(
            group,
            block=block,
            policy=plan,
            representatives=representatives,
            smallest_head=smallest_head,
            paper=paper,
            track=track,
        )
        path = bins_path(group[0], block=block) if output is None and len(group) == 1 else output
        path = None if path == STDOUT else path
        if path is not None and not dry_run:
            write_table(path, made, force=force)
        warn_of_scarce_bins(made)
        tables.append((made, path))
    if chart is not None and not dry_run:
        write_bytes(chart, bins_chart(tables[0][0]))
        log.info("chart %s", chart)
    return tables


def warn_of_scarce_bins(table: BinsTable) -> None:
    """Warn of bins that have no windows, or too few blocks to be learnt."""
    labels = [format_range(low, high) for low, high in table.bins.ranges]
    empty = table.empty_bins()
    if empty:
        names = ", ".join(labels[index] for index in empty)
        log.warning("%s: no window at all in bins %s", table.name, names)
    scarce = [index for index in table.scarce_bins() if index not in empty]
    if scarce:
        names = ", ".join(f"{labels[index]} ({table.blocks[index]:.1f})" for index in scarce)
        advice = "" if table.policy == AUTO else "; --policy auto merges such bins"
        log.warning(
            "%s: bins with fewer than %d blocks: %s%s", table.name, ENOUGH_BLOCKS, names, advice
        )


def bins_path(data: PreparedDataset, *, block: int) -> Path:
    """Return the path of the bins file in a prepared folder."""
    return data.folder / f"bins-r{block}.json"


def write_bins(data: PreparedDataset, table: BinsTable, *, force: bool = False) -> Path:
    """Write a table into its prepared folder; see :func:`write_table`."""
    path = bins_path(data, block=table.bins.block)
    write_table(path, table, force=force)
    return path


def write_table(path: Path, table: BinsTable, *, force: bool = False) -> None:
    """Write a bins file.

    An existing table of the same settings and data sets is replaced, even if the data were prepared
    again; another table is not.

    Raises:
        UsageError: If another table exists and ``force`` is not set.
        BadInputError: If the existing file is not a bins file.
    """
    if path.exists() and not force:
        existing = BinsTable.from_file(path)
        if (existing.name, existing.settings()) != (table.name, table.settings()):
            raise UsageError(
                f"{path}: already exists, made with other settings: {_describe(existing)}",
                looked_for=f"a table made with {_describe(table)}",
                next_step="pass --force to replace it",
            )
        if existing == table:
            return
    write_json(path, table.to_json())


def training_bins(
    data: Sequence[PreparedDataset],
    *,
    block: int,
    chosen: str | None = None,
    write: bool = True,
    track: Track = untracked,
) -> Bins:
    """Return the bins for training: the chosen ones, else the data set's table, else fine bins.

    The choice is a file or the name of a published table; see :func:`find_table`. The table of a
    single data set is made if it is missing or older than the data, and then written into its
    folder, unless ``write`` is false.

    Raises:
        UsageError: If the chosen table is for another block side.
    """
    if chosen is not None:
        written = find_table(chosen)
        check_block(written, block=block)
        if written.values is not None:
            return Bins(block=block, starts=written.starts, values=written.values)
        return make_bins(data, block=block, policy=written, track=track).bins
    if len(data) > 1:
        return make_bins(data, block=block, track=track).bins
    path, settings = bins_path(data[0], block=block), {}
    if path.exists():
        table = BinsTable.from_file(path)
        if table.sources == _sources(data):
            return table.bins
        settings = table.settings()
    table = make_bins(data, block=block, track=track, **settings)
    if write:
        write_bins(data[0], table)
    return table.bins


def bins_chart(table: BinsTable) -> bytes:
    """Draw a PNG with the share of windows and of heads in each bin, on a logarithmic axis."""
    windows, heads = max(sum(table.windows), 1), max(sum(table.heads), 1)
    return bar_chart(
        title=f"{table.name}: bins of {table.bins.block} x {table.bins.block} pixel blocks",
        labels=[format_range(low, high) for low, high in table.bins.ranges],
        series={
            "windows": [100 * number / windows for number in table.windows],
            "heads": [100 * number / heads for number in table.heads],
        },
        xlabel="heads in a block",
        ylabel="share, %",
        log=True,
    )


def _sources(data: Sequence[PreparedDataset]) -> tuple[Source, ...]:
    return tuple(
        Source(name=source.name, manifest=sha256_file(source.folder / MANIFEST)) for source in data
    )


def _describe(table: BinsTable) -> str:
    head = "" if table.smallest_head is None else f", smallest head {table.smallest_head}"
    counting = "heads on the same pixel once (--paper)" if table.paper else "every head"
    return (
        f"bins {table.policy}, {table.representatives} values{head}, counting {counting} "
        f"of {table.name}"
    )
