"""Bins of head counts, and the count that stands for each."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Bins:
    """Consecutive integer intervals that cover every head count from 0 on; the last is open.

    Raises:
        ValueError: If the starts do not begin at 0 and rise, or a value lies outside its bin.
    """

    block: int
    """Side of the blocks that are classified, in pixels."""

    starts: tuple[int, ...]
    """Lower edge of each bin; a bin ends where the next begins."""

    values: tuple[float, ...]
    """Representative count of each bin, in heads."""

    def __post_init__(self) -> None:
        if self.block < 1:
            raise ValueError(f"block side must be at least 1 pixel, got {self.block}")
        if len(self.starts) < 2 or self.starts[0] != 0:
            raise ValueError(f"bins must be two or more and start at 0, got starts {self.starts}")
        if any(low >= high for low, high in zip(self.starts, self.starts[1:], strict=False)):
            raise ValueError(f"bin starts must rise, got {self.starts}")
        if len(self.values) != len(self.starts):
            raise ValueError(
                f"every bin needs one value, got {len(self.values)} for {len(self.starts)} bins"
            )
        for (low, high), value in zip(self.ranges, self.values, strict=True):
            if not (math.isfinite(value) and low <= value <= (math.inf if high is None else high)):
                raise ValueError(f"the value of bin {format_range(low, high)} is {value}")

    @property
    def ranges(self) -> tuple[tuple[int, int | None], ...]:
        """Each bin as ``(lowest, highest)`` head count, both included; None: no upper end."""
        ends: list[int | None] = [start - 1 for start in self.starts[1:]]
        return tuple(zip(self.starts, [*ends, None], strict=True))

    @property
    def max_count(self) -> int:
        """m: the count to which label correction brings fuller blocks."""
        return self.starts[-1]

    def classify(self, counts: Float[Tensor, "*grid"]) -> Int64[Tensor, "*grid"]:
        """The bin of each count. Counts above the last start are of the last bin."""
        edges = torch.tensor(self.starts[1:], dtype=counts.dtype, device=counts.device)
        return torch.bucketize(counts, edges, right=True)

    def to_json(self) -> dict[str, Any]:
        """A plain mapping from which :meth:`from_json` makes the same bins again."""
        return {
            "block": self.block,
            "bins": [
                {"low": low, "high": high, "value": value}
                for (low, high), value in zip(self.ranges, self.values, strict=True)
            ],
        }

    @classmethod
    def from_json(cls, mapping: Mapping[str, Any]) -> "Bins":
        """Bins from the mapping that :meth:`to_json` gives.

        Raises:
            ValueError: If a key is missing or the bins leave a gap.
        """
        try:
            rows = [(row["low"], row["high"], float(row["value"])) for row in mapping["bins"]]
            bins = cls(
                block=mapping["block"],
                starts=tuple(low for low, _, _ in rows),
                values=tuple(value for _, _, value in rows),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a bins table: {error}") from error
        if bins.ranges != tuple((low, high) for low, high, _ in rows):
            raise ValueError("the bins must follow one another without a gap, the last without end")
        return bins


def format_range(low: int, high: int | None) -> str:
    """A bin for people: ``3``, ``2-3`` or ``4+``."""
    if high is None:
        return f"{low}+"
    return str(low) if low == high else f"{low}-{high}"


def fine_starts(max_count: int) -> tuple[int, ...]:
    """One bin for each integer below ``max_count``, and ``[max_count, inf)``."""
    return tuple(range(max_count + 1))


def average_values(
    starts: Sequence[int], histogram: Int64[np.ndarray, " counts"]
) -> tuple[float, ...]:
    """Mean head count of the windows of each bin: a_i = sum(c n(c)) / sum(n(c)) over its counts c.

    The sums are exact integers, so the result does not depend on the order of the images. A bin
    that no window fell into is represented by its lower edge.

    Args:
        starts: Lower edge of each bin.
        histogram: Number of windows that hold 0, 1, 2, ... heads.

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
    """Expected heads of each block: sum_k p_k a_k with p = softmax(logits) over the bins.

    Computed in float32 at least, whatever the type of the logits: thousands of blocks are summed.
    """
    probabilities = logits.float().softmax(dim=1)
    # Not as a matrix product: autocast would round probabilities and values to 8 bits.
    return (probabilities * values.to(probabilities)[:, None, None]).sum(dim=1, keepdim=True)
