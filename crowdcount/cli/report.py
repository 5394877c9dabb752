"""Short tables for people, as log lines."""

import logging
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


def say_bins(name: str, table: "BinsTable") -> None:
    """Log the bins of a data set: what stands for each, and how many windows and heads it holds."""
    from crowdcount.core.bins import format_range

    windows = sum(table.histogram)
    heads = sum(count * number for count, number in enumerate(table.histogram))
    log.info("%s: blocks of %d pixels, %d windows", name, table.bins.block, windows)
    rows = []
    ends = [*table.bins.starts[1:], len(table.histogram)]
    for (low, high), value, end in zip(table.bins.ranges, table.bins.values, ends, strict=True):
        held = table.histogram[low:end]
        inside = sum(count * number for count, number in enumerate(held, start=low))
        rows.append(
            (
                format_range(low, high),
                f"{value:.5f}",
                f"{sum(held) / max(windows, 1):.4%}",
                f"{inside / max(heads, 1):.2%}",
            )
        )
    say_table(("bin", "stands for", "windows", "heads"), rows)
    for index in table.empty_bins():
        low, high = table.bins.ranges[index]
        log.warning(
            "%s: no window holds %s heads; %g stands for them",
            name,
            format_range(low, high),
            table.bins.values[index],
        )
