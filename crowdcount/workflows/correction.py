"""What the label correction would touch, for several block sides and smallest heads."""

from collections import Counter as Tally
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from crowdcount.core.blocks import heads_per_block, largest_observable_count
from crowdcount.core.progress import Track, untracked
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.drawing.heat_table import HeatPanel, heat_table
from crowdcount.errors import UsageError

BLOCKS = (8, 16, 32)
"""Block sides to compare when none are named."""

SMALLEST_HEADS = (2, 4, 8)
"""Smallest heads to compare when none are named."""


@dataclass(frozen=True, kw_only=True)
class Correction:
    """What the correction touches in a split, at one block side and one smallest head."""

    split: str
    """As prepared: the images of ``train`` held out for validation are among its images."""

    block: int
    """Block side r in pixels."""

    smallest_head: int
    """Side s, in pixels, of the smallest head that can be recognised."""

    max_count: int
    """m: heads of a block above this are cut."""

    blocks: int
    """Blocks that hold a head."""

    blocks_corrected: int
    """Those that hold more than m."""

    heads: int
    heads_cut: int
    fullest: int
    """Heads of the fullest block."""

    @property
    def blocks_share(self) -> float:
        """Share of the blocks with heads that is corrected, from 0 to 1."""
        return self.blocks_corrected / max(self.blocks, 1)

    @property
    def heads_share(self) -> float:
        """Share of the heads that is cut, from 0 to 1."""
        return self.heads_cut / max(self.heads, 1)

    def to_json(self) -> dict[str, Any]:
        """The numbers as one flat mapping."""
        return asdict(self) | {"blocks_share": self.blocks_share, "heads_share": self.heads_share}


def corrections(
    data: PreparedDataset,
    *,
    blocks: Sequence[int] = BLOCKS,
    smallest_heads: Sequence[int] = SMALLEST_HEADS,
    track: Track = untracked,
) -> list[Correction]:
    """What the label correction touches, by split, block side and smallest head, in this order.

    Read from the points, so that a set need not be prepared anew to compare block sides.

    Args:
        data: The prepared data set.
        blocks: Block sides r in pixels.
        smallest_heads: Smallest heads s in pixels; m is (r // s)^2.
        track: Shows progress.

    Raises:
        UsageError: If a block side or a smallest head is not positive.
        BadInputError: If the points of an image cannot be read.
    """
    if min((*blocks, *smallest_heads), default=1) < 1:
        raise UsageError("block sides and smallest heads must be at least 1 pixel")
    sides, heads = sorted(set(blocks)), sorted(set(smallest_heads))
    splits = dict.fromkeys(record.split for record in data.manifest.images)
    found: dict[tuple[str, int], Tally[int]] = {
        (split, side): Tally() for split in splits for side in sides
    }
    for record in track(data.manifest.images, label="counting blocks"):
        points = data.points(record)
        for side in sides:
            counts = heads_per_block(points, height=record.height, width=record.width, block=side)
            found[record.split, side].update(counts[counts > 0].tolist())
    return [
        correction(tally, split=split, block=side, smallest_head=head)
        for (split, side), tally in found.items()
        for head in heads
    ]


def correction(blocks: Tally[int], *, split: str, block: int, smallest_head: int) -> Correction:
    """What the correction touches.

    Args:
        blocks: How many blocks hold 1, 2, 3, ... heads.
        split: What they are of.
        block: Their side r in pixels.
        smallest_head: Smallest head s that can be recognised, in pixels.
    """
    most = largest_observable_count(block=block, smallest_head=smallest_head)
    above = {count: number for count, number in blocks.items() if count > most}
    return Correction(
        split=split,
        block=block,
        smallest_head=smallest_head,
        max_count=most,
        blocks=blocks.total(),
        blocks_corrected=sum(above.values()),
        heads=sum(count * number for count, number in blocks.items()),
        heads_cut=sum((count - most) * number for count, number in above.items()),
        fullest=max(blocks, default=0),
    )


def correction_table(found: Sequence[Correction], data: PreparedDataset) -> bytes:
    """The shares of heads cut as a picture, r by s, one panel a split: a PNG file."""
    sides = list(dict.fromkeys(each.block for each in found))
    heads = list(dict.fromkeys(each.smallest_head for each in found))
    by_cell = {(each.split, each.block, each.smallest_head): each for each in found}
    panels = []
    for split in dict.fromkeys(each.split for each in found):
        rows = [[by_cell[split, side, head] for head in heads] for side in sides]
        panels.append(
            HeatPanel(
                title=f"{split}: {rows[0][0].heads:,} heads",
                shares=tuple(tuple(each.heads_share for each in row) for row in rows),
                texts=tuple(tuple(_cell(each) for each in row) for row in rows),
            )
        )
    settings = data.manifest.settings
    framed = None
    if settings.max_count is None and settings.block in sides and settings.smallest_head in heads:
        framed = sides.index(settings.block), heads.index(settings.smallest_head)
    return heat_table(
        panels,
        title=f"{data.name}: heads cut by the label correction"
        + ("" if framed is None else " (framed: as prepared)"),
        rows=[f"{side} px" for side in sides],
        columns=[f"{head} px" for head in heads],
        row_label="block side r",
        column_label="smallest head s",
        scale_label="share of heads cut",
        framed=framed,
    )


def percent(share: float) -> str:
    """A share for people, small ones with more digits: ``0.084%``, ``3.1%``, ``52%``."""
    shown = 100 * share
    return f"{shown:.0f}%" if share == 0 or shown >= 9.95 else f"{shown:.2g}%"


def _cell(found: Correction) -> str:
    """What a cell of the picture says: share and number of heads, and m."""
    limit = f"m = {found.max_count}"
    if found.heads_cut == 0:
        return f"none\n{limit}"
    noun = "head" if found.heads_cut == 1 else "heads"
    return f"{percent(found.heads_share)}\n{found.heads_cut:,} {noun}\n{limit}"
