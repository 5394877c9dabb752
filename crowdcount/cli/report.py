"""Short tables for people, as log lines."""

import logging
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crowdcount.workflows.bins import BinsTable

log = logging.getLogger("crowdcount")


def say_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Log a table with its columns aligned: the first to the left, the others to the right."""
    for line in table_lines(header, rows):
        log.info("  %s", line)


def table_lines(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, left: int = 1
) -> list[str]:
    """The lines of a table: the first ``left`` columns to the left, the others to the right."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return [
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]


BAR_WIDTH = 24


def say_bins(table: "BinsTable") -> None:
    """Log bins: what stands for each, its share of windows and heads, and a bar of its windows.

    Bars are logarithmic, and whole for as many windows as the fullest bin holds: the bins that
    matter most hold a thousandth of the windows or fewer.
    """
    from crowdcount.core.bins import format_range

    bins, windows, heads = table.bins, table.windows, table.heads
    labels = [format_range(low, high) for low, high in bins.ranges]
    log.info("%s: blocks of %d pixels, %d windows", table.name, bins.block, sum(windows))
    longest = math.log1p(max(windows)) or 1
    rows = [
        (
            label,
            f"{value:.5f}",
            f"{held / max(sum(windows), 1):.4%}",
            f"{inside / max(sum(heads), 1):.2%}",
            ("#" * round(BAR_WIDTH * math.log1p(held) / longest)).ljust(BAR_WIDTH),
        )
        for label, value, held, inside in zip(labels, bins.values, windows, heads, strict=True)
    ]
    say_table(("bin", "stands for", "windows", "heads", "windows, log".ljust(BAR_WIDTH)), rows)
    _warn_of_scarce_bins(table, labels)


def _warn_of_scarce_bins(table: "BinsTable", labels: Sequence[str]) -> None:
    from crowdcount.workflows.bins import AUTO, ENOUGH_BLOCKS

    empty = table.empty_bins()
    if empty:
        log.warning(
            "%s: no window at all in bins %s", table.name, ", ".join(labels[i] for i in empty)
        )
    scarce = [index for index in table.scarce_bins() if index not in empty]
    if scarce:
        log.warning(
            "%s: bins with fewer than %d blocks to learn from: %s%s",
            table.name,
            ENOUGH_BLOCKS,
            ", ".join(f"{labels[index]} ({table.blocks[index]:.1f})" for index in scarce),
            "" if table.policy == AUTO else "; --policy auto merges such bins",
        )
