"""Bins of head counts, and the representative count of each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from pydantic import BeforeValidator
from torch import Tensor

from crowdcount.core.limits import MAX_BLOCK, MAX_COUNT
from crowdcount.core.settings import STRICT, parse


@dataclass(frozen=True, kw_only=True)
class Bins:
    """Consecutive integer intervals that cover every head count from 0 on; the last is open.

    Raises:
        ValueError: If the starts do not begin at 0 and rise, a value lies outside its bin, or
            numbers are larger than any block or crowd.
    """

    block: int
    """Side of the blocks that are classified, in pixels."""

    starts: tuple[int, ...]
    """Lower edge of each bin; a bin ends where the next begins."""

    values: tuple[float, ...]
    """Representative count of each bin, in heads."""

    def __post_init__(self) -> None:
        if not 1 <= self.block <= MAX_BLOCK:
            raise ValueError(f"block side must be 1 to {MAX_BLOCK} pixels, got {self.block}")
        check_starts(self.starts)
        if len(self.values) != len(self.starts):
            raise ValueError(
                f"every bin needs one value, got {len(self.values)} for {len(self.starts)} bins"
            )
        for (low, high), value in zip(self.ranges, self.values, strict=True):
            if not low <= value <= (MAX_COUNT if high is None else high):
                raise ValueError(f"the value of bin {format_range(low, high)} is {value}")

    @property
    def ranges(self) -> tuple[tuple[int, int | None], ...]:
        """Each bin as ``(lowest, highest)`` head count, both included; None: no upper end."""
        return bin_ranges(self.starts)

    @property
    def max_count(self) -> int:
        """m: the count to which label correction lowers fuller blocks."""
        return self.starts[-1]

    def classify(self, counts: Float[Tensor, "*grid"]) -> Int64[Tensor, "*grid"]:
        """Return the bin of each count. Counts above the last start belong to the last bin."""
        edges = torch.tensor(self.starts[1:], dtype=counts.dtype, device=counts.device)
        return torch.bucketize(counts, edges, right=True)

    def to_json(self) -> dict[str, Any]:
        """Convert the bins to a plain mapping, which :meth:`from_json` reads."""
        return {
            "block": self.block,
            "bins": [
                {"low": low, "high": high, "value": value}
                for (low, high), value in zip(self.ranges, self.values, strict=True)
            ],
        }

    @classmethod
    def from_json(cls, mapping: Any) -> "Bins":
        """Read bins from the mapping that :meth:`to_json` writes.

        Raises:
            ValueError: If it is no such mapping or the bins leave a gap.
        """
        try:
            table = parse(_Table, mapping)
        except ValueError as error:
            raise ValueError(f"not a bins table: {error}") from error
        bins = cls(
            block=table.block,
            starts=tuple(row.low for row in table.bins),
            values=tuple(row.value for row in table.bins),
        )
        if bins.ranges != tuple((row.low, row.high) for row in table.bins):
            raise ValueError("the bins must follow each other without a gap, the last open")
        return bins


StoredBins = Annotated[Bins, BeforeValidator(lambda bins: Bins.from_json(bins))]
"""Bins as a field of a file that holds them as :meth:`Bins.to_json` writes them."""


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A bin as :meth:`Bins.to_json` writes it."""

    low: int
    high: int | None
    value: float


@dataclass(frozen=True, kw_only=True)
class _Table:
    """Bins as :meth:`Bins.to_json` writes them."""

    block: int
    bins: tuple[_Row, ...]


@dataclass(frozen=True, kw_only=True)
class WrittenBins:
    """A table of bins from a publication or a user's file: starts, and perhaps values.

    Raises:
        ValueError: If the starts, values or block are not those of bins.
    """

    __pydantic_config__ = STRICT

    name: str
    """Name of a published table, or of a file."""

    starts: tuple[int, ...]
    """Lower edge of each bin."""

    values: tuple[float, ...] | None = None
    """Representative count of each bin; None: computed from data."""

    block: int | None = None
    """Block side for which the table was made, in pixels; None: any."""

    source: str = ""
    """Publication of the table."""

    def __post_init__(self) -> None:
        check_starts(self.starts)
        values = middle_values(self.starts) if self.values is None else self.values
        Bins(block=1 if self.block is None else self.block, starts=self.starts, values=values)

    @classmethod
    def from_json(cls, content: Any, *, name: str) -> "WrittenBins":
        """Read a table from a list of starts, a mapping, or the content of a bins file.

        Args:
            content: ``[0, 1, 2, 4]``; or ``{"starts": [0, 1, 2, 4]}`` with optional ``values`` and
                ``block``; or a mapping of :meth:`Bins.to_json`, with any other keys.
            name: Name of the table.

        Raises:
            ValueError: If the content has none of these forms, or does not describe bins.
        """
        if isinstance(content, Mapping) and "bins" in content:
            bins = Bins.from_json(content)
            return cls(name=name, starts=bins.starts, values=bins.values, block=bins.block)
        table = {"starts": content} if isinstance(content, list) else content
        if not isinstance(table, Mapping) or "starts" not in table:
            raise ValueError("expected a list of starts, such as [0, 1, 2, 4], or the key 'starts'")
        return parse(cls, {**table, "name": name})


def bin_ranges(starts: Sequence[int]) -> tuple[tuple[int, int | None], ...]:
    """Return ``(lowest, highest)`` head count of each bin, both included; None: no upper end."""
    ends: list[int | None] = [start - 1 for start in starts[1:]]
    return tuple(zip(starts, [*ends, None], strict=True))


def check_starts(starts: Sequence[int]) -> None:
    """Refuse lower edges that leave a head count without a bin.

    Raises:
        ValueError: If they are fewer than two, do not begin at 0, do not rise, or exceed
            ``MAX_COUNT``.
    """
    if len(starts) < 2 or starts[0] != 0:
        raise ValueError(f"bins must be two or more and start at 0, got starts {tuple(starts)}")
    if any(low >= high for low, high in pairwise(starts)):
        raise ValueError(f"bin starts must rise, got {tuple(starts)}")
    if starts[-1] > MAX_COUNT:
        raise ValueError(f"no bin may start above {MAX_COUNT} heads, got {starts[-1]}")


def format_range(low: int, high: int | None) -> str:
    """Write a bin as ``3``, ``2-3`` or ``4+``."""
    if high is None:
        return f"{low}+"
    return str(low) if low == high else f"{low}-{high}"


def fine_starts(max_count: int) -> tuple[int, ...]:
    """Start one bin at each integer up to ``max_count``; the last is ``[max_count, inf)``."""
    return tuple(range(max_count + 1))


def dynamic_starts(max_count: int) -> tuple[int, ...]:
    """Start one bin at each integer in the lower half of ``0..max_count``, pairs in the upper half.

    Pairs begin at ceil(m / 2), every two counts up to m; the last to begin is the open bin. For
    m = 8: 0, 1, 2, 3, [4, 5], [6, 7], [8, inf). For m = 19 they begin at 10, and the last bin is
    [18, inf).
    """
    half = -(-max_count // 2)
    return (*range(half), *range(half, max_count + 1, 2))


def coarse_starts(max_count: int) -> tuple[int, ...]:
    """Start a bin of 0 alone, then pairs: [1, 2], [3, 4], ...; the last at an odd number up to m.

    For m = 8 the last bin is [7, inf), for m = 19 it is [19, inf).
    """
    return (0, *range(1, max_count + 1, 2))


POLICIES: dict[str, Callable[[int], tuple[int, ...]]] = {
    "fine": fine_starts,
    "dynamic": dynamic_starts,
    "coarse": coarse_starts,
}
"""Functions from m to the starts of bins. ``auto``, the fourth policy, needs a histogram too."""


def auto_starts(
    max_count: int, histogram: Int64[np.ndarray, " counts"], *, least: int
) -> tuple[int, ...]:
    """Start as many bins as possible when each must hold at least ``least`` windows.

    0 is a bin of its own. From 1 on a bin grows, count by count, until it holds ``least`` windows;
    the next begins if it starts at ``max_count`` or below and the counts above hold ``least``
    windows too. The last bin holds all counts from its start on. Where all counts above 0 together
    hold fewer than ``least`` windows, they are one bin.

    Args:
        max_count: m: the largest count that can be observed; no bin starts above it.
        histogram: Number of windows that hold 0, 1, 2, ... heads.
        least: Windows that every bin but that of 0 must hold; at least 1.
    """
    above = int(histogram[1:].sum())
    starts, inside = [0, 1], 0
    for count in range(1, min(max_count, len(histogram))):
        inside += int(histogram[count])
        above -= int(histogram[count])
        if inside >= least and above >= least:
            starts.append(count + 1)
            inside = 0
    return tuple(starts)


def middle_values(starts: Sequence[int]) -> tuple[float, ...]:
    """Return the midpoint of each bin, and the lower edge of the last, open one."""
    finite = [(low + end - 1) / 2 for low, end in pairwise(starts)]
    return (*finite, float(starts[-1]))


def average_values(
    starts: Sequence[int], histogram: Int64[np.ndarray, " counts"]
) -> tuple[float, ...]:
    """Compute the mean head count of each bin's windows: a_i = sum(c n(c)) / sum(n(c)).

    The sums are exact integers, so the result does not depend on the order of the images. A bin
    without windows is represented by its lower edge. The histogram holds n(0), n(1), n(2), ...

    Source:
        Ma et al., "CLIP-EBC", https://arxiv.org/abs/2403.09281, average count representatives.
    """
    windows = [int(n) for n in histogram]
    values = []
    for low, end in zip(starts, [*starts[1:], max(len(windows), starts[-1] + 1)], strict=True):
        total = sum(windows[low:end])
        heads = sum(count * n for count, n in enumerate(windows[low:end], start=low))
        values.append(float(Fraction(heads, total)) if total else float(low))
    return tuple(values)


def expected_counts(
    logits: Float[Tensor, "batch bins rows cols"], values: Float[Tensor, " bins"]
) -> Float[Tensor, "batch 1 rows cols"]:
    """Compute the expected heads of each block: sum_k p_k a_k with p = softmax(logits).

    Computed in float32 at least, whatever the type of the logits: thousands of blocks are summed.
    """
    probabilities = logits.float().softmax(dim=1)
    # Not as a matrix product: autocast would round probabilities and values to 8 bits.
    return (probabilities * values.to(probabilities)[:, None, None]).sum(dim=1, keepdim=True)
