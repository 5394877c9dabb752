"""Tables whose cells are coloured by their share, panel beside panel on one scale of colours."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crowdcount.drawing.charts import png_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

# Where all shares are small the table must look harmless, not as hot as one full of cuts.
_LEAST_TOP = 0.05

# A cell of three lines fits into this many inches.
_CELL_WIDTH, _CELL_HEIGHT = 1.15, 0.8


@dataclass(frozen=True, kw_only=True)
class HeatPanel:
    """One table: rows of cells, each with a share that decides its colour and a text."""

    title: str
    shares: tuple[tuple[float, ...], ...]
    """From 0 to 1."""

    texts: tuple[tuple[str, ...], ...]
    """What stands in each cell; may have several lines."""


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
    """Draw panels side by side.

    Args:
        panels: The tables, all with the same rows and columns.
        title: What they show.
        rows: What each row is of.
        columns: What each column is of.
        row_label: What the rows differ in.
        column_label: What the columns differ in.
        scale_label: What the shares are of.
        framed: Row and column of a cell to point out in every panel.

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
    # The style that ships with matplotlib, whatever a matplotlibrc on this machine asks for.
    with context("default"):
        wide = max(_CELL_WIDTH * len(columns), 2.4)
        figure = Figure(
            figsize=(wide * len(panels) + 1.9, _CELL_HEIGHT * len(rows) + 1.5),
            dpi=150,
            layout="constrained",
        )
        figure.suptitle(title)
        grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
        for axes, panel in zip(grid, panels, strict=True):
            drawn = _panel(axes, panel, top=top, framed=framed)
            axes.set_xticks(range(len(columns)), columns)
            axes.set_yticks(range(len(rows)), rows)
            axes.set_xlabel(column_label)
        grid[0].set_ylabel(row_label)
        bar = figure.colorbar(drawn, ax=list(grid), label=scale_label, shrink=0.9, pad=0.02)
        bar.ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=None))
        return png_bytes(figure)


def _panel(
    axes: "Axes", panel: HeatPanel, *, top: float, framed: tuple[int, int] | None
) -> "AxesImage":
    from matplotlib.colors import PowerNorm
    from matplotlib.patches import Rectangle

    # The root spreads the small shares, among which people choose.
    norm = PowerNorm(0.5, vmin=0, vmax=top)
    drawn = axes.imshow(panel.shares, cmap="YlOrRd", norm=norm, aspect="auto")
    for row, (shares, texts) in enumerate(zip(panel.shares, panel.texts, strict=True)):
        for column, (share, text) in enumerate(zip(shares, texts, strict=True)):
            ink = "white" if norm(share) > 0.6 else "black"
            axes.text(column, row, text, ha="center", va="center", color=ink, fontsize=8.5)
    axes.set_title(panel.title, fontsize=10)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for line, count in ((axes.axhline, len(panel.shares)), (axes.axvline, len(panel.shares[0]))):
        for edge in range(1, count):
            line(edge - 0.5, color="white", linewidth=2)
    if framed is not None:
        row, column = framed
        corner = (column - 0.47, row - 0.47)
        axes.add_patch(Rectangle(corner, 0.94, 0.94, fill=False, edgecolor="black", linewidth=2))
    return drawn
