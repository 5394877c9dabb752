"""Bins of prepared data: count windows, choose bins, average, keep the table beside the data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Int64
from pydantic import Field

from crowdcount.core.bins import (
    POLICIES,
    Bins,
    WrittenBins,
    auto_starts,
    average_values,
    format_range,
    middle_values,
)
from crowdcount.core.blocks import largest_observable_count, window_histogram
from crowdcount.core.limits import MAX_BLOCK
from crowdcount.core.progress import Track, untracked
from crowdcount.core.published_bins import PUBLISHED_BINS
from crowdcount.core.settings import parse
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.data.prepared.manifest import MANIFEST, Manifest
from crowdcount.drawing.charts import bar_chart
from crowdcount.errors import BadInputError, ConfigError, InputMissingError, UsageError
from crowdcount.files import read_json, read_toml, sha256_file, write_json
from crowdcount.wording import did_you_mean

AUTO = "auto"
"""The policy that reads the histogram: as many bins as hold enough blocks each."""

REPRESENTATIVES = ("average", "middle")
"""What can stand for a bin: the mean count of its windows, or the middle of its range."""

ENOUGH_BLOCKS = 100
"""Blocks that a bin should hold to be learnt. ``auto`` sees to it; a bin with fewer is named."""


@dataclass(frozen=True, kw_only=True)
class BinsTable:
    """Bins with what they were made from."""

    bins: Bins

    histogram: tuple[int, ...]
    """Windows that hold 0, 1, 2, ... heads, over all training images and pixel offsets."""

    policy: str
    """``fine``, ``dynamic``, ``coarse`` or ``auto``; else the name of the table followed."""

    representatives: str
    """``average`` or ``middle``; ``given`` where a written table gave the values."""

    smallest_head: int | None
    """Side in pixels of the smallest recognisable head; None: as prepared, or none is needed."""

    paper: bool
    """Whether heads on one pixel were counted once, as for the published tables."""

    sources: tuple[tuple[str, str], ...]
    """Name of each data set, and the SHA-256 of its manifest."""

    @property
    def name(self) -> str:
        """The data sets, as a title."""
        return " + ".join(name for name, _ in self.sources)

    @property
    def windows(self) -> tuple[int, ...]:
        """Windows in each bin."""
        return self._sums(self.histogram)

    @property
    def heads(self) -> tuple[int, ...]:
        """Heads in the windows of each bin; a head is in as many windows as cover it."""
        return self._sums([count * windows for count, windows in enumerate(self.histogram)])

    @property
    def blocks(self) -> tuple[float, ...]:
        """Blocks in each bin: the mean over the r x r ways to lay the grid of blocks."""
        return tuple(windows / self.bins.block**2 for windows in self.windows)

    def empty_bins(self) -> tuple[int, ...]:
        """Bins into which no window fell, and which therefore have no average of their own."""
        return tuple(index for index, windows in enumerate(self.windows) if windows == 0)

    def scarce_bins(self) -> tuple[int, ...]:
        """Bins with fewer than ``ENOUGH_BLOCKS`` blocks, the empty ones among them."""
        return tuple(index for index, blocks in enumerate(self.blocks) if blocks < ENOUGH_BLOCKS)

    def _sums(self, per_count: Sequence[int]) -> tuple[int, ...]:
        ends = [*self.bins.starts[1:], None]
        pairs = zip(self.bins.starts, ends, strict=True)
        return tuple(sum(per_count[low:end]) for low, end in pairs)

    def to_json(self) -> dict[str, Any]:
        """The content of a bins file."""
        return {
            "format": 1,
            **self.bins.to_json(),
            "policy": self.policy,
            "representatives": self.representatives,
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
            content = read_json(path)
            bins, made = Bins.from_json(content), parse(_Making, content)
        except (OSError, ValueError) as error:
            raise BadInputError(
                f"{path}: not a bins file: {error}",
                next_step="make it anew: crowdcount bins --force",
            ) from error
        return cls(
            bins=bins,
            histogram=made.histogram,
            policy=made.policy,
            representatives=made.representatives,
            smallest_head=made.smallest_head,
            paper=made.paper,
            sources=tuple((each.name, each.manifest) for each in made.sources),
        )


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A data set in a bins file."""

    name: str
    manifest: str


@dataclass(frozen=True, kw_only=True)
class _Making:
    """What a bins file says besides its bins."""

    histogram: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...]
    smallest_head: Annotated[int, Field(ge=1)] | None
    paper: bool
    sources: tuple[_Source, ...]

    # Files of version 0.1 say nothing of these: they knew no other way.
    policy: str = "fine"
    representatives: str = "average"


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
    """Choose bins, and the count that stands for each, over all training images.

    The images held out for validation are among them, as in the published tables.

    ``fine``, ``dynamic`` and ``coarse`` follow from m = (r // s)^2 alone. ``auto`` makes as many
    bins up to m as hold at least 100 blocks each: 0 is a bin of its own; from 1 on a bin grows,
    count by count, until it holds 100 blocks, and the next begins if as many are left for it.
    Blocks are counted as windows / r^2, the mean over all ways to lay the grid.

    Args:
        data: Prepared data sets, taken together.
        block: Block side r in pixels.
        policy: ``fine``, ``dynamic``, ``coarse`` or ``auto``; or a table to be followed.
        representatives: ``average`` or ``middle``; None: the values of a table that has them, else
            averages.
        smallest_head: Side s of the smallest head that can be recognised, in pixels; None: as the
            data sets were prepared, their m included. A table needs none.
        paper: Count heads that share a pixel once, which reproduces the published tables.
        track: Shows progress.

    Raises:
        UsageError: If there is no such policy or representative, blocks are larger than any, or the
            table is for other blocks.
    """
    _check_choices(policy, representatives, block=block, smallest_head=smallest_head)
    histogram = count_windows(data, block=block, collapse_duplicates=paper, track=track)
    if isinstance(policy, WrittenBins):
        plan = policy
    else:
        largest = (
            min(_largest_count(each.manifest, block=block) for each in data)
            if smallest_head is None
            else largest_observable_count(block=block, smallest_head=smallest_head)
        )
        if policy == AUTO:
            starts = auto_starts(largest, histogram, least=ENOUGH_BLOCKS * block**2)
        else:
            starts = POLICIES[policy](largest)
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


def _largest_count(manifest: Manifest, *, block: int) -> int:
    """M of blocks of a side: as prepared, or for another side what the smallest head gives."""
    settings = manifest.settings
    if block == settings.block:
        return manifest.max_count
    return largest_observable_count(block=block, smallest_head=settings.smallest_head)


def _check_choices(
    policy: str | WrittenBins, representatives: str | None, *, block: int, smallest_head: int | None
) -> None:
    if block > MAX_BLOCK:
        raise UsageError(f"block: must be at most {MAX_BLOCK} pixels, got {block}")
    if representatives not in (None, *REPRESENTATIVES):
        raise UsageError(
            f"representatives: there is no {representatives!r}",
            looked_for=", ".join(REPRESENTATIVES),
        )
    if isinstance(policy, str):
        if policy not in (*POLICIES, AUTO):
            raise UsageError(
                f"policy: there is no {policy!r}", looked_for=", ".join((*POLICIES, AUTO))
            )
        return
    if policy.block not in (None, block):
        raise UsageError(
            f"{policy.name}: a table for blocks of {policy.block} pixels, not of {block}",
            next_step=f"pass --block {policy.block}, or take another table",
        )
    if smallest_head is not None:
        raise UsageError(
            f"{policy.name}: the table says where bins start; the smallest head has no part in it",
            next_step="leave out --smallest-head",
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
            source.points(record),
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
    """Write a table into the prepared folder it was made from, as :func:`write_table` does."""
    path = bins_path(data, block=table.bins.block)
    write_table(path, table, force=force)
    return path


def write_table(path: Path, table: BinsTable, *, force: bool = False) -> None:
    """Write a bins file.

    A table made from data that has been prepared anew since is replaced; one made with other
    settings, or from other data sets, is not.

    Raises:
        UsageError: If such a table is there and ``force`` is not set.
        BadInputError: If what is there is no bins file.
    """
    if path.exists() and not force:
        there = BinsTable.from_file(path)
        if _settings(there) != _settings(table):
            raise UsageError(
                f"{path}: already exists, made with other settings: {_describe(there)}",
                looked_for=f"a table made with {_describe(table)}",
                next_step="pass --force to replace it",
            )
        if there == table:
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
    """The bins to train with: those chosen; of a single data set the table beside it; else fine.

    A table beside a data set that is missing, or older than the data, is made.

    Args:
        data: Prepared data sets, trained on together.
        block: Block side in pixels.
        chosen: A file or the name of a published table; see :func:`find_table`.
        write: Leave a table that is made beside the data.
        track: Shows progress.

    Raises:
        UsageError: If the table chosen is for other blocks.
    """
    if chosen is not None:
        written = find_table(chosen)
        _check_choices(written, None, block=block, smallest_head=None)
        if written.values is not None:
            return Bins(block=block, starts=written.starts, values=written.values)
        return make_bins(data, block=block, policy=written, track=track).bins
    if len(data) > 1:
        return make_bins(data, block=block, track=track).bins
    path = bins_path(data[0], block=block)
    if path.exists():
        table = BinsTable.from_file(path)
        if table.sources == _sources(data):
            return table.bins
        table = _made_again(table, data, track=track)
    else:
        table = make_bins(data, block=block, track=track)
    if write:
        write_bins(data[0], table)
    return table.bins


def _made_again(table: BinsTable, data: Sequence[PreparedDataset], *, track: Track) -> BinsTable:
    """The table that the same settings give on what the data are now."""
    bins, given = table.bins, table.representatives == "given"
    policy: str | WrittenBins = table.policy
    if policy not in (*POLICIES, AUTO):
        values = bins.values if given else None
        policy = WrittenBins(name=table.policy, starts=bins.starts, values=values)
    return make_bins(
        data,
        block=bins.block,
        policy=policy,
        representatives=None if given else table.representatives,
        smallest_head=table.smallest_head,
        paper=table.paper,
        track=track,
    )


READERS: dict[str, Callable[[Path], Any]] = {".json": read_json, ".toml": read_toml}
"""How a table is read, by the ending of its file."""


def find_table(name: str) -> WrittenBins:
    """A published table by its name, or one in a file, whose name ends in .json or .toml.

    Raises:
        InputMissingError: If the file cannot be read.
        BadInputError: If it holds no table.
        ConfigError: If no published table has this name.
    """
    return read_table(Path(name)) if Path(name).suffix in READERS else published_table(name)


def published_table(name: str) -> WrittenBins:
    """A published table of bins.

    Raises:
        ConfigError: If none has this name.
    """
    if name not in PUBLISHED_BINS:
        raise ConfigError(
            f"{name}: no published table of bins{did_you_mean(name, PUBLISHED_BINS)}",
            looked_for=", ".join(PUBLISHED_BINS),
            next_step="see crowdcount bins --list-presets; a file ends in .json or .toml",
        )
    return PUBLISHED_BINS[name]


def read_table(path: Path) -> WrittenBins:
    """A table that somebody wrote into a file, or a bins file.

    Raises:
        InputMissingError: If the file cannot be read.
        BadInputError: If it holds no table.
    """
    example = "starts = [0, 1, 2, 4] in a .toml file, or [0, 1, 2, 4] in a .json file"
    try:
        read = READERS[path.suffix]
        return WrittenBins.from_json(read(path), name=path.name)
    except OSError as error:
        raise InputMissingError(
            f"{path}: cannot read the table of bins: {error.strerror}"
        ) from error
    except KeyError as error:
        raise BadInputError(f"{path}: not a table of bins", looked_for=example) from error
    except ValueError as error:
        raise BadInputError(f"{path}: not a table of bins: {error}", looked_for=example) from error


def bins_chart(table: BinsTable) -> bytes:
    """A PNG with the share of windows and of heads in each bin, on a logarithmic axis."""
    windows, heads = max(sum(table.windows), 1), max(sum(table.heads), 1)
    return bar_chart(
        title=f"{table.name}: bins of {table.bins.block} x {table.bins.block} pixel blocks",
        labels=[format_range(low, high) for low, high in table.bins.ranges],
        series={
            "windows": [100 * each / windows for each in table.windows],
            "heads": [100 * each / heads for each in table.heads],
        },
        xlabel="heads in a block",
        ylabel="share, %",
        log=True,
    )


def _sources(data: Sequence[PreparedDataset]) -> tuple[tuple[str, str], ...]:
    return tuple((each.name, sha256_file(each.folder / MANIFEST)) for each in data)


def _settings(table: BinsTable) -> tuple[Any, ...]:
    """What was asked for; two tables that agree in it differ by their data alone."""
    by_policy = table.policy in (*POLICIES, AUTO)
    return (
        table.policy,
        None if by_policy else table.bins.starts,
        table.representatives,
        table.bins.values if table.representatives == "given" else None,
        table.smallest_head,
        table.paper,
        [name for name, _ in table.sources],
    )


def _describe(table: BinsTable) -> str:
    head = "" if table.smallest_head is None else f", smallest head {table.smallest_head}"
    counting = "heads on one pixel once (--paper)" if table.paper else "every head"
    return (
        f"bins {table.policy}, {table.representatives} values{head}, counting {counting} "
        f"of {table.name}"
    )
