"""A heat table shows its shares as colours, the same bytes for the same numbers."""

import io

import numpy as np
import pytest
from PIL import Image

from crowdcount.drawing.charts import HeatPanel, heat_table

LABELS = {
    "title": "Cuts",
    "rows": ["8 px", "16 px"],
    "columns": ["2 px", "4 px", "8 px"],
    "row_label": "r",
    "column_label": "s",
    "scale_label": "share",
}


def panel(shares, title="train"):
    return HeatPanel(
        title=title, shares=shares, texts=tuple(tuple("" for _ in row) for row in shares)
    )


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).reshape(-1, 3)


def cells(png):
    """Colours that cover more of the picture than letters and the bar of colours do."""
    colours, areas = np.unique(pixels(png), axis=0, return_counts=True)
    large = areas > 5000
    # White is the paper.
    return {
        tuple(colour): area
        for colour, area in zip(colours[large].tolist(), areas[large].tolist(), strict=True)
        if tuple(colour) != (255, 255, 255)
    }


def test_every_share_has_a_colour_of_its_own_and_equal_ones_the_same():
    shares = ((0.0, 0.01, 0.2), (0.0, 0.0, 0.2))
    drawn = cells(heat_table([panel(shares)], **LABELS))
    assert len(drawn) == 3
    by_area = sorted(drawn.values())
    assert by_area[2] == pytest.approx(3 * by_area[0], rel=0.1)
    assert by_area[1] == pytest.approx(2 * by_area[0], rel=0.1)


def test_panels_share_one_scale():
    shares = ((0.1, 0.1, 0.1), (0.1, 0.1, 0.1))
    alone = cells(heat_table([panel(shares)], **LABELS))
    hotter = tuple(tuple(5 * share for share in row) for row in shares)
    together = cells(heat_table([panel(shares), panel(hotter, "test")], **LABELS))
    assert len(together) == 2
    # The hottest of a table is as dark alone as it is together; what was hottest before, is not.
    assert set(alone) & set(together)


def test_tiny_shares_do_not_look_hot():
    def darkest(share):
        return min(
            sum(colour) for colour in cells(heat_table([panel(((share,) * 3,) * 2)], **LABELS))
        )

    assert darkest(0.0) > darkest(0.001) > darkest(0.02) > darkest(0.05) == darkest(0.5)


def test_a_framed_cell_is_pointed_out():
    shares = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    plain, framed = (
        (pixels(heat_table([panel(shares)], **LABELS, framed=cell)) == 0).all(axis=1).sum()
        for cell in (None, (1, 1))
    )
    assert framed > plain + 500


def test_the_same_numbers_give_the_same_bytes_whatever_the_style_of_this_machine():
    import matplotlib

    shares = ((0.0, 0.01, 0.2), (0.0, 0.0, 0.2))
    png = heat_table([panel(shares)], **LABELS)
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30}):
        assert heat_table([panel(shares)], **LABELS) == png
    assert b"Software" not in png


@pytest.mark.parametrize(
    ("panels", "changed", "complaint"),
    [
        ([], {}, "at least one"),
        ([panel(())], {"rows": []}, "at least one"),
        ([panel(((0.0, 0.0, 0.0),))], {}, "not 2 rows by 3 columns"),
        ([panel(((0.0, 0.0), (0.0, 0.0)))], {}, "not 2 rows by 3 columns"),
    ],
)
def test_a_table_that_does_not_add_up_is_refused(panels, changed, complaint):
    with pytest.raises(ValueError, match=complaint):
        heat_table(panels, **(LABELS | changed))
