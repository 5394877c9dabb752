"""Charts for reports, drawn by matplotlib without a screen and without its global state."""

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")
"""Told apart by colour-blind people too: Paul Tol's bright scheme."""

WIDTH_OF_A_LABEL = 0.6
"""Inches that a chart grows by for each label."""

LARGEST_WIDTH = 24.0
"""Inches. Where labels are more than fit, only every second, third, ... is written."""

MOST_DOTS = 50
"""Lines of fewer points have a dot at each."""


def bar_chart(
    *,
    title: str,
    labels: Sequence[str],
    series: Mapping[str, Sequence[float]],
    xlabel: str = "",
    ylabel: str = "",
    log: bool = False,
) -> bytes:
    """Bars in groups: one group for each label, one bar in it for each series.

    Args:
        title: What the chart shows.
        labels: What stands under each group.
        series: For each name in the legend, the height of its bar in every group.
        xlabel: What the labels are.
        ylabel: What the heights are, with their unit.
        log: Draw heights on a logarithmic axis, on which a height of 0 has no bar.

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

    # The style that ships with matplotlib, whatever a matplotlibrc on this machine asks for.
    with context("default"):
        wanted = max(1.5 + WIDTH_OF_A_LABEL * len(labels), 4.0)
        figure = Figure(figsize=(min(wanted, LARGEST_WIDTH), 4.0), layout="constrained")
        axes = figure.add_subplot(title=title, xlabel=xlabel, ylabel=ylabel)
        width = 0.8 / len(series)
        for index, (name, heights) in enumerate(series.items()):
            middles = [
                group + (index - (len(series) - 1) / 2) * width for group in range(len(labels))
            ]
            colour = COLOURS[index % len(COLOURS)]
            axes.bar(middles, list(heights), width=width, label=name, color=colour)
        every = math.ceil(wanted / LARGEST_WIDTH)
        axes.set_xticks(range(0, len(labels), every), labels[::every])
        drawn = [height for heights in series.values() for height in heights if height > 0]
        if log and drawn:
            # From a power of ten well below the smallest bar, so that it is seen to be one.
            axes.set_yscale("log")
            axes.set_ylim(bottom=10.0 ** math.floor(math.log10(min(drawn) / 2)))
            axes.yaxis.set_major_formatter("{x:g}")
        axes.spines[["top", "right"]].set_visible(False)
        axes.yaxis.grid(visible=True, color="0.9")
        axes.set_axisbelow(True)
        figure.legend(loc="outside lower center", ncols=len(series), frameon=False)
        return png_bytes(figure)


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One part of a chart of lines: quantities of the same unit."""

    ylabel: str
    """What the heights are, with their unit."""

    lines: Mapping[str, Sequence[tuple[float, float]]]
    """For each name in the legend, its points from left to right; a name without any is passed
    over."""

    log: bool = False
    """Draw heights on a logarithmic axis, on which those of 0 and below are not seen."""


def line_chart(*, title: str, xlabel: str, panels: Sequence[Panel]) -> bytes:
    """Lines in panels one above the other, over the same axis.

    Args:
        title: What the chart shows.
        xlabel: What the axis of all panels is.
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
        for axes, panel in zip(
            figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0], panels, strict=True
        ):
            drawn = {name: points for name, points in panel.lines.items() if points}
            for index, (name, points) in enumerate(drawn.items()):
                across, heights = zip(*points, strict=True)
                # A line of one point is none; among many, dots would hide it.
                marker = "o" if len(points) < MOST_DOTS else ""
                colour = COLOURS[index % len(COLOURS)]
                axes.plot(
                    across,
                    heights,
                    label=_literal(name),
                    color=colour,
                    marker=marker,
                    markersize=4,
                )
            if panel.log and any(y > 0 for points in drawn.values() for _, y in points):
                axes.set_yscale("log", nonpositive="mask")
            axes.set_ylabel(panel.ylabel)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(visible=True, color="0.9")
            axes.set_axisbelow(True)
            axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
        axes.set_xlabel(xlabel)
        return png_bytes(figure)


def png_bytes(figure: "Figure") -> bytes:
    """A figure as a PNG file that says nothing of when or by which version it was drawn."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # A box in place of a letter that the font lacks is no reason to stop a run, or to speak.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _literal(name: str) -> str:
    """A name of somebody's own, as it is.

    To matplotlib, dollars mean formulas, and a leading underscore a line that no legend names.
    """
    shown = name.replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown
