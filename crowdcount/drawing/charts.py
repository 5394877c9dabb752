"""Charts for reports, drawn by matplotlib without a screen and without its global state."""

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")
"""Paul Tol's bright scheme, which colour-blind people can distinguish."""

LABEL_WIDTH = 0.6
"""Inches of width for each label."""

LARGEST_WIDTH = 24.0
"""Inches. If the labels need more, only every second, third, ... is written."""

MOST_DOTS = 50
"""Lines with fewer points than this have a dot at each."""

# Where all shares are small, a table must look harmless.
_LEAST_TOP = 0.05

# Inches of a table's cell, for three lines of text.
_CELL_WIDTH, _CELL_HEIGHT = 1.15, 0.8


def bar_chart(
    *,
    title: str,
    labels: Sequence[str],
    series: Mapping[str, Sequence[float]],
    xlabel: str = "",
    ylabel: str = "",
    log: bool = False,
) -> bytes:
    """Draw bars in groups: one group for each label, one bar in it for each series.

    Args:
        title: Title of the chart.
        labels: Text below each group.
        series: Heights of the bars, one for each group, by name in the legend.
        xlabel: Meaning of the labels.
        ylabel: Meaning of the heights, with their unit.
        log: Draw heights on a logarithmic axis; a height of 0 has no bar.

    Returns:
        A PNG file, the same for the same arguments.

    Raises:
        ValueError: If there is nothing to draw, or a series does not fit the labels.
    """
    if not labels or not series:
        raise ValueError("a bar chart needs at least one label and one series")
    for name, heights in series.items():
        if len(heights) != len(labels):
            raise ValueError(f"series {name!r} has {len(heights)} heights for {len(labels)} labels")
    from matplotlib.figure import Figure
    from matplotlib.style import context

    # The style that ships with matplotlib, not that of a matplotlibrc on this machine.
    with context("default"):
        wanted = max(1.5 + LABEL_WIDTH * len(labels), 4.0)
        figure = Figure(figsize=(min(wanted, LARGEST_WIDTH), 4.0), layout="constrained")
        axes = figure.add_subplot(title=_literal(title), xlabel=xlabel, ylabel=ylabel)
        width = 0.8 / len(series)
        for index, (name, heights) in enumerate(series.items()):
            shift = (index - (len(series) - 1) / 2) * width
            centres = [group + shift for group in range(len(labels))]
            colour = COLOURS[index % len(COLOURS)]
            axes.bar(centres, heights, width=width, label=_literal(name), color=colour)
        step = math.ceil(wanted / LARGEST_WIDTH)
        axes.set_xticks(range(0, len(labels), step), list(map(_literal, labels[::step])))
        positive = [height for heights in series.values() for height in heights if height > 0]
        if log and positive:
            # From a power of ten well below the smallest bar, which stays visible.
            axes.set_yscale("log")
            axes.set_ylim(bottom=10.0 ** math.floor(math.log10(min(positive) / 2)))
            axes.yaxis.set_major_formatter("{x:g}")
        axes.spines[["top", "right"]].set_visible(False)
        axes.yaxis.grid(visible=True, color="0.9")
        axes.set_axisbelow(True)
        figure.legend(loc="outside lower center", ncols=len(series), frameon=False)
        return _png(figure)


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One part of a line chart: quantities of the same unit."""

    ylabel: str
    """Meaning of the heights, with their unit."""

    lines: Mapping[str, Sequence[tuple[float, float]]]
    """Points of each line from left to right, by name in the legend; lines without points are left
    out."""

    log: bool = False
    """Draw heights on a logarithmic axis, without those of 0 and below."""


def line_chart(*, title: str, xlabel: str, panels: Sequence[Panel]) -> bytes:
    """Draw lines in panels one above the other, over a shared axis.

    Args:
        title: Title of the chart.
        xlabel: Meaning of the shared axis.
        panels: From top to bottom.

    Returns:
        A PNG file, the same for the same arguments.

    Raises:
        ValueError: If there is no panel, or a panel has nothing to draw.
    """
    if not panels or not all(any(panel.lines.values()) for panel in panels):
        raise ValueError("a line chart needs at least one panel, and each panel a point")
    from matplotlib.figure import Figure
    from matplotlib.style import context
    from matplotlib.ticker import MaxNLocator

    with context("default"):
        figure = Figure(figsize=(8.0, 1.0 + 2.4 * len(panels)), layout="constrained")
        figure.suptitle(_literal(title))
        rows = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
        for axes, panel in zip(rows, panels, strict=True):
            lines = {_literal(name): points for name, points in panel.lines.items() if points}
            for index, (name, points) in enumerate(lines.items()):
                # A line of one point is invisible without a dot; many dots would hide the line.
                axes.plot(
                    *zip(*points, strict=True),
                    label=name,
                    color=COLOURS[index % len(COLOURS)],
                    marker="o" if len(points) < MOST_DOTS else "",
                    markersize=4,
                )
            if panel.log and any(y > 0 for points in lines.values() for _, y in points):
                axes.set_yscale("log", nonpositive="mask")
            axes.set_ylabel(panel.ylabel)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(visible=True, color="0.9")
            axes.set_axisbelow(True)
            axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
        axes.set_xlabel(xlabel)
        return _png(figure)


@dataclass(frozen=True, kw_only=True)
class HeatPanel:
    """One table of cells; the share of a cell decides its colour."""

    title: str
    shares: tuple[tuple[float, ...], ...]
    """From 0 to 1."""

    texts: tuple[tuple[str, ...], ...]
    """One or several lines of text in each cell."""


def heat_table(
    panels: Sequence[HeatPanel],
    *,
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    row_label: str,
    column_label: str,
    scale_label: str,
    framed: tuple[int, int] | None = None,
) -> bytes:
    """Draw tables side by side, their cells coloured by share on one scale.

    Args:
        panels: The tables, all with the same rows and columns.
        title: Title of the picture.
        rows: Names of the rows.
        columns: Names of the columns.
        row_label: Meaning of the row names.
        column_label: Meaning of the column names.
        scale_label: Meaning of the shares.
        framed: Row and column of the cell to frame in every table.

    Returns:
        A PNG file, the same for the same arguments.

    Raises:
        ValueError: If there is nothing to draw, or a panel does not fit the rows and columns.
    """
    if not panels or not rows or not columns:
        raise ValueError("a heat table needs at least one panel, one row and one column")
    for panel in panels:
        for cells in (panel.shares, panel.texts):
            if [len(row) for row in cells] != [len(columns)] * len(rows):
                raise ValueError(
                    f"panel {panel.title!r} is not {len(rows)} rows by {len(columns)} columns"
                )
    from matplotlib.figure import Figure
    from matplotlib.style import context
    from matplotlib.ticker import PercentFormatter

    top = max(_LEAST_TOP, max(share for panel in panels for row in panel.shares for share in row))
    with context("default"):
        width = max(_CELL_WIDTH * len(columns), 2.4) * len(panels) + 1.9
        height = _CELL_HEIGHT * len(rows) + 1.5
        figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
        figure.suptitle(_literal(title))
        grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, panel in zip(grid, panels, strict=True):
            image = _draw_table(axes, panel, top=top, framed=framed)
            axes.set_xticks(range(len(columns)), list(map(_literal, columns)))
            axes.set_yticks(range(len(rows)), list(map(_literal, rows)))
            axes.set_xlabel(column_label)
        grid[0].set_ylabel(row_label)
        bar = figure.colorbar(image, ax=list(grid), label=scale_label, shrink=0.9, pad=0.02)
        bar.ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        return _png(figure)


def _draw_table(
    axes: "Axes", panel: HeatPanel, *, top: float, framed: tuple[int, int] | None
) -> "AxesImage":
    from matplotlib.colors import PowerNorm
    from matplotlib.patches import Rectangle

    # The root spreads the small shares, among which people choose.
    norm = PowerNorm(0.5, vmin=0, vmax=top)
    image = axes.imshow(panel.shares, cmap="YlOrRd", norm=norm, aspect="auto")
    for row, (shares, texts) in enumerate(zip(panel.shares, panel.texts, strict=True)):
        for column, (share, text) in enumerate(zip(shares, texts, strict=True)):
            ink = "white" if norm(share) > 0.6 else "black"
            axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=8.5)
    axes.set_title(_literal(panel.title), fontsize=10)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for line, count in ((axes.axhline, len(panel.shares)), (axes.axvline, len(panel.shares[0]))):
        for edge in range(1, count):
            line(edge - 0.5, color="white", linewidth=2)
    if framed is not None:
        row, column = framed
        corner = (column - 0.47, row - 0.47)
        axes.add_patch(Rectangle(corner, 0.94, 0.94, fill=False, edgecolor="black", linewidth=2))
    return image


def _png(figure: "Figure") -> bytes:
    """Encode a figure as a PNG file without date or version."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # A letter that the font lacks becomes a box; that must not stop a run or warn.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _literal(name: str) -> str:
    """Escape a name that matplotlib would read as a formula, or leave out of the legend."""
    shown = name.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown
