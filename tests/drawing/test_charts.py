import io

import numpy as np
import pytest
from PIL import Image

from crowdcount.drawing.charts import COLOURS, HeatPanel, Panel, bar_chart, heat_table, line_chart

ARGUMENTS = {"title": "Crowds", "labels": ["0", "1", "2+"], "xlabel": "bin", "ylabel": "share, %"}


def pixels_of(png, colour):
    """How many pixels of a chart have exactly this colour."""
    image = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((image == wanted).all(axis=2).sum())


@pytest.mark.parametrize("log", [False, True])
def test_the_same_numbers_give_the_same_bytes(log):
    series = {"windows": [90.0, 9.0, 1.0], "heads": [0.0, 70.0, 30.0]}
    first, second = (bar_chart(**ARGUMENTS, series=series, log=log) for _ in range(2))
    assert first == second
    assert b"Software" not in first
    assert first != bar_chart(**ARGUMENTS, series=series | {"heads": [0.0, 70.0, 29.0]}, log=log)


def test_a_style_of_this_machine_changes_nothing():
    import matplotlib

    drawn = bar_chart(**ARGUMENTS, series={"heads": [1.0, 2.0, 3.0]})
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30}):
        assert bar_chart(**ARGUMENTS, series={"heads": [1.0, 2.0, 3.0]}) == drawn


def test_every_series_has_bars_as_large_as_its_numbers():
    png = bar_chart(**ARGUMENTS, series={"few": [1.0, 1.0, 1.0], "many": [4.0, 4.0, 4.0]})
    few, many = pixels_of(png, COLOURS[0]), pixels_of(png, COLOURS[1])
    assert few > 1000
    assert many == pytest.approx(4 * few, rel=0.2)


def test_a_logarithmic_axis_shows_what_a_linear_one_hides():
    series = {"windows": [1e6, 1e3, 1.0]}
    linear, log = (bar_chart(**ARGUMENTS, series=series, log=log) for log in (False, True))
    assert pixels_of(log, COLOURS[0]) > 1.3 * pixels_of(linear, COLOURS[0])


def test_a_chart_of_very_many_labels_stays_a_picture():
    labels = [str(number) for number in range(400)]
    png = bar_chart(title="Crowds", labels=labels, series={"heads": [1.0] * 400})
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.size == (2400, 400)


def test_nothing_but_zeros_can_be_drawn_on_either_axis():
    for log in (False, True):
        assert bar_chart(**ARGUMENTS, series={"windows": [0.0, 0.0, 0.0]}, log=log)


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"labels": [], "series": {"a": []}}, "at least one"),
        ({"series": {}}, "at least one"),
        ({"series": {"a": [1.0, 2.0]}}, "'a' has 2 heights for 3 labels"),
    ],
)
def test_a_chart_that_does_not_add_up_is_refused(changed, complaint):
    with pytest.raises(ValueError, match=complaint):
        bar_chart(**(ARGUMENTS | changed))


# ---- lines


def panels(**lines):
    return [Panel(ylabel="loss", lines=lines, log=True), Panel(ylabel="MAE, heads", lines=lines)]


def drawn_lines(*, up=(1.0, 2.0, 9.0), **more):
    lines = {"up": [(float(x), y) for x, y in enumerate(up, start=1)], **more}
    return line_chart(title="run", xlabel="epoch", panels=panels(**lines))


def test_the_same_lines_give_the_same_bytes_whatever_the_style():
    import matplotlib

    first = drawn_lines()
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30}):
        assert drawn_lines() == first
    assert drawn_lines(up=(1.0, 2.0, 9.5)) != first
    assert b"Software" not in first


def test_every_line_is_drawn_in_a_colour_of_its_own_and_empty_ones_in_none():
    png = drawn_lines(empty=[], down=[(1.0, 9.0), (3.0, 1.0)])
    assert pixels_of(png, COLOURS[0]) > 100
    assert pixels_of(png, COLOURS[1]) > 100
    assert pixels_of(png, COLOURS[2]) == 0


def test_a_single_point_can_be_seen():
    assert pixels_of(drawn_lines(up=(5.0,)), COLOURS[0]) > 20


def test_zeros_and_less_can_be_drawn_on_a_logarithmic_axis():
    assert drawn_lines(up=(0.0, -1.0)) != drawn_lines(up=(0.0, 1.0))


@pytest.mark.parametrize("wrong", [[], [Panel(ylabel="loss", lines={})], panels(up=[])])
def test_a_chart_without_a_point_is_refused(wrong):
    with pytest.raises(ValueError, match="each panel a point"):
        line_chart(title="run", xlabel="epoch", panels=wrong)


@pytest.mark.parametrize("name", ["$x_", "$\\frac$", "_hidden", "tab\there", "群衆"])
def test_any_name_can_be_drawn(name):
    points = [(1.0, 2.0), (2.0, 1.0)]
    panel = Panel(ylabel="MAE, heads", lines={name: points})
    named = line_chart(title=name, xlabel="epoch", panels=[panel])
    other = Panel(ylabel="MAE, heads", lines={"other": points})
    assert named != line_chart(title=name, xlabel="epoch", panels=[other])


@pytest.mark.parametrize("name", ["$\\frac$", "_hidden"])
def test_any_name_can_stand_on_bars_and_tables(name):
    def bars(series):
        return bar_chart(title=name, labels=[name], series={series: [1.0]})

    def table(title):
        panel = HeatPanel(title=title, shares=((0.5,),), texts=(("x",),))
        words = {"row_label": "r", "column_label": "s", "scale_label": "share"}
        return heat_table([panel], title=name, rows=[name], columns=[name], **words)

    assert bars(name) != bars("other")
    assert table(name) != table("other")
