"""Charts for reports, drawn by matplotlib without a screen and without its global state."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb")
"""Told apart by colour-blind people too: Paul Tol's bright scheme."""

WIDTH_OF_A_LABEL = 0.6
"""Inches that a chart grows by for each label."""

LARGEST_WIDTH = 24.0
"""Inches. Where labels are more than fit, only every second, third, ... is written."""


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


def png_bytes(figure: "Figure") -> bytes:
    """A figure as a PNG file that says nothing of when or by which version it was drawn."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()
