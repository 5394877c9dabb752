"""Compare the label correction for several block sides and smallest heads."""

from collections import Counter as Tally
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from crowdcount.core.blocks import heads_per_block, largest_observable_count
from crowdcount.core.progress import Track, untracked
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.drawing.charts import HeatPanel, heat_table
from crowdcount.errors import UsageError
from crowdcount.wording import counted

BLOCKS = (8, 16, 32)
"""Block sides that are compared by default."""

SMALLEST_HEADS = (2, 4, 8)
"""Smallest heads that are compared by default."""


@dataclass(frozen=True, kw_only=True)
class Correction:
    """Effect of the correction on a split, for one block side and one smallest head."""

    split: str
    """The split on disk: ``train`` includes its held-out images."""

    block: int
    """Block side r in pixels."""

    smallest_head: int
    """Side s, in pixels, of the smallest head that can be recognised."""

    max_count: int
    """m: the count to which fuller blocks are corrected."""

    blocks: int
    """Blocks with heads."""

    blocks_corrected: int
    """Blocks with more than m heads."""

    heads: int
    heads_cut: int
    fullest: int
    """Heads of the fullest block."""

    @property
    def blocks_share(self) -> float:
        """Share of the blocks with heads that are corrected, from 0 to 1."""
        return self.blocks_corrected / max(self.blocks, 1)

    @property
    def heads_share(self) -> float:
        """Share of the heads that are cut, from 0 to 1."""
        return self.heads_cut / max(self.heads, 1)

    def to_json(self) -> dict[str, Any]:
        """Return the numbers and shares as a flat mapping."""
        return asdict(self) | {"blocks_share": self.blocks_share, "heads_share": self.heads_share}


def corrections(
    data: PreparedDataset,
    *,
    blocks: Sequence[int] = BLOCKS,
    smallest_heads: Sequence[int] = SMALLEST_HEADS,
    track: Track = untracked,
) -> list[Correction]:
    """Compute the correction for each split, block side r and smallest head s, in this order.

    Uses the points, so that the set need not be prepared again for other block sides.

    Raises:
        UsageError: If a block side or a smallest head is not positive.
        BadInputError: If the points of an image cannot be read.
    """
    if min((*blocks, *smallest_heads), default=1) < 1:
        raise UsageError("block sides and smallest heads must be at least 1 pixel")
    sides, heads = sorted(set(blocks)), sorted(set(smallest_heads))
    splits = dict.fromkeys(record.split for record in data.manifest.images)
    tallies: dict[tuple[str, int], Tally[int]] = {
        (split, side): Tally() for split in splits for side in sides
    }
    for record in track(data.manifest.images, label="counting blocks"):
        points = data.points(record)
        for side in sides:
            counts = heads_per_block(points, height=record.height, width=record.width, block=side)
            tallies[record.split, side].update(counts[counts > 0].tolist())
    return [
        correction(tally, split=split, block=side, smallest_head=head)
        for (split, side), tally in tallies.items()
        for head in heads
    ]


def correction(blocks: Tally[int], *, split: str, block: int, smallest_head: int) -> Correction:
    """Compute the effect of the correction from the number of blocks by their heads."""
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


def correction_table(table: Sequence[Correction], data: PreparedDataset) -> bytes:
    """Draw the shares of heads cut, r by s, with a panel for each split: a PNG file."""
    sides = list(dict.fromkeys(cell.block for cell in table))
    heads = list(dict.fromkeys(cell.smallest_head for cell in table))
    cells = {(cell.split, cell.block, cell.smallest_head): cell for cell in table}
    panels = []
    for split in dict.fromkeys(cell.split for cell in table):
        rows = [[cells[split, side, head] for head in heads] for side in sides]
        panels.append(
            HeatPanel(
                title=f"{split}: {rows[0][0].heads:,} heads",
                shares=tuple(tuple(cell.heads_share for cell in row) for row in rows),
                texts=tuple(tuple(map(_cell_text, row)) for row in rows),
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
    """Format a share with two significant digits: ``0.084%``, ``3.1%``, ``52%``."""
    value = 100 * share
    return f"{value:.0f}%" if share == 0 or value >= 9.95 else f"{value:.2g}%"


def _cell_text(cell: Correction) -> str:
    """Return the text of a cell: share and number of heads cut, and m."""
    cut = f"{percent(cell.heads_share)}\n{counted(cell.heads_cut, 'head')}"
    return f"{cut if cell.heads_cut else 'none'}\nm = {cell.max_count}"
