"""Heads and blocks are drawn where they are, on images of any size."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFont

from crowdcount.core.bins import Bins
from crowdcount.core.image import Sample
from crowdcount.drawing.contact_sheet import (
    LARGEST_NUMBER,
    BlockColours,
    Layout,
    Tile,
    contact_sheet,
    fit_text,
    picture,
    plain_picture,
)

DOT = (0, 255, 255)
FRAME = (255, 255, 255)
PAPER = (24, 24, 28)

sides = st.integers(1, 700)
heads = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=60)


def colours(*, block=8, max_count=4, fullest=4, bins=None):
    return BlockColours(block=block, max_count=max_count, fullest=fullest, bins=bins)


def sample(points, *, width, height, level=100):
    image = np.full((height, width, 3), level, dtype=np.uint8)
    points = np.array(points, dtype=np.float64).reshape(-1, 2)
    return Sample(name="train/a.jpg", image=image, points=points)


def drawn(points, *, width, height, layout=None, **of):
    # One of so many is drawn small, which is quick.
    layout = layout or Layout.of([(width, height)] * 60)
    return picture(sample(points, width=width, height=height), layout=layout, colours=colours(**of))


def opened(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def is_colour(pixels, colour):
    return (pixels == colour).all(axis=-1)


@given(width=sides, height=sides, shares=heads, block=st.integers(1, 40), number=st.integers(1, 60))
def test_every_head_has_its_mark_where_it_is(width, height, shares, block, number):
    points = [(x * width * 0.999999, y * height * 0.999999) for x, y in shares]
    layout = Layout.of([(width, height)] * number)
    seen = drawn(points, width=width, height=height, layout=layout, block=block, max_count=1)
    for x, y in points:
        at = int(y * seen.shape[0] / height), int(x * seen.shape[1] / width)
        assert tuple(seen[at]) == DOT


@given(
    x=st.floats(40, 360),
    y=st.floats(40, 260),
    size=st.sampled_from([(400, 300), (200, 150), (4000, 3000)]),
)
def test_the_middle_of_a_mark_is_the_head(x, y, size):
    stretch = size[0] / 400
    seen = drawn([(x * stretch, y * stretch)], width=size[0], height=size[1])
    rows, cols = np.nonzero(is_colour(seen, DOT))
    scale = seen.shape[1] / 400
    # The centre of pixel k lies at k + 1/2.
    assert abs(cols.mean() + 0.5 - x * scale) < 0.6
    assert abs(rows.mean() + 0.5 - y * scale) < 0.6


@given(width=sides, height=sides)
def test_an_empty_scene_has_no_colour_in_it(width, height):
    assert np.ptp(drawn([], width=width, height=height), axis=2).max() == 0


@given(
    width=sides,
    height=sides,
    x=st.floats(0, 0.999999),
    y=st.floats(0, 0.999999),
    block=st.integers(1, 64),
)
def test_colour_lies_on_the_block_that_holds_the_head_and_on_its_dot(width, height, x, y, block):
    seen = drawn([(x * width, y * height)], width=width, height=height, block=block)
    down, across = seen.shape[0] / height, seen.shape[1] / width
    rows, cols = np.nonzero(np.ptp(seen, axis=2))
    # The largest dot has a radius of a 300th of the longer side, and a shadow.
    dot = max(seen.shape[:2]) / 300 + 3
    inside = (
        ((rows + 0.5) / down // block == y * height // block)
        & ((cols + 0.5) / across // block == x * width // block)
    ) | (np.hypot(rows + 0.5 - y * height * down, cols + 0.5 - x * width * across) < dot)
    assert inside.all()


def test_a_block_has_the_colour_of_its_count():
    table = colours().table()
    points = [
        (block * 64 + 2 + 10 * (head % 3), 2 + 20 * (head // 3))
        for block in range(4)
        for head in range(block + 1)
    ]
    seen = drawn(points, width=320, height=64, block=64)
    scale = seen.shape[1] / 320
    corners = [tuple(seen[int(60 * scale), int((block * 64 + 60) * scale)]) for block in range(5)]
    assert corners[4] == (85, 85, 85)
    assert corners[:4] == [tuple((85 * 0.45 + ink * 0.55).round().astype(int)) for ink in table]


@pytest.mark.parametrize(("heads", "framed"), [(0, False), (4, False), (5, True)])
@pytest.mark.parametrize(("block", "width"), [(64, 320), (8, 320), (8, 3200)])
def test_only_what_the_correction_touches_is_framed(heads, framed, block, width):
    at = 2.5 * block
    points = [(at, at)] * heads
    large = Layout.of([(width, width)])
    fullest = max(heads, 1)
    seen = drawn(points, width=width, height=width, layout=large, block=block, fullest=fullest)
    white = is_colour(seen, FRAME)
    assert white.any() == framed
    if framed:
        rows, cols = np.nonzero(white)
        scale = seen.shape[0] / width
        # Around the block, however small it is drawn.
        assert rows.min() <= at * scale - 3
        assert rows.max() >= at * scale + 2
        assert abs((rows.min() + rows.max() + 1) / 2 - at * scale) <= 1
        assert abs((cols.min() + cols.max() + 1) / 2 - at * scale) <= 1
        assert rows.max() - rows.min() <= max(block * scale, 9) + 4


def test_counts_of_one_bin_share_a_colour():
    bins = Bins(block=64, starts=(0, 1, 3), values=(0.0, 1.5, 3.0))
    points = [
        (block * 64 + 2 + 10 * (head % 3), 2 + 20 * (head // 3))
        for block in range(4)
        for head in range(block + 1)
    ]
    seen = drawn(points, width=320, height=64, block=64, max_count=3, bins=bins)
    scale = seen.shape[1] / 320
    one, two, three, four, none = (
        tuple(seen[int(60 * scale), int((block * 64 + 60) * scale)]) for block in range(5)
    )
    assert one == two != three == four
    assert none == (85, 85, 85)


def test_counts_that_are_given_are_drawn_rather_than_those_of_the_points():
    layout = Layout.of([(64, 64)])
    counts = np.zeros((8, 8), dtype=np.int64)
    counts[7, 0] = 2
    of = colours(fullest=2)
    seen = picture(sample([], width=64, height=64), layout=layout, colours=of, counts=counts)
    rows, cols = np.nonzero(np.ptp(seen, axis=2))
    assert rows.min() == seen.shape[0] * 7 // 8
    assert cols.max() == seen.shape[1] // 8 - 1


def test_a_plain_picture_is_the_image_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (30, 20, 3), dtype=np.uint8)
    shown = Sample(name="a", image=image, points=np.zeros((0, 2)))
    layout = Layout(columns=1, width=60, height=90)
    assert (plain_picture(shown, layout=layout) == image.repeat(3, axis=0).repeat(3, axis=1)).all()


def test_blocks_above_the_last_colour_have_it_too():
    assert colours(max_count=4, fullest=9).top == 4
    assert colours(max_count=64, fullest=9).top == 9
    assert colours(max_count=4, fullest=0).top == 1
    for top in (1, 2, 3, 64):
        table = colours(max_count=top, fullest=top).table()
        assert len(np.unique(table, axis=0)) == len(table) == top


@given(st.lists(st.tuples(sides, sides), min_size=1, max_size=30))
def test_every_picture_fits_its_box_and_keeps_its_shape(sizes):
    layout = Layout.of(sizes)
    for width, height in sizes:
        fitted = layout.fit(width=width, height=height)
        assert 1 <= fitted[0] <= layout.width
        assert 1 <= fitted[1] <= layout.height
        assert fitted[0] == layout.width or fitted[1] == layout.height
        if min(fitted) > 20:
            assert fitted[0] / fitted[1] == pytest.approx(width / height, rel=0.05)


def test_boxes_are_shaped_like_most_images():
    landscape = Layout.of([(640, 480), (640, 480), (480, 640)])
    assert landscape.height / landscape.width == pytest.approx(0.75, abs=0.01)
    assert Layout.of([(1, 1000)]).height / Layout.of([(1, 1000)]).width == pytest.approx(1.5)
    assert [Layout.of([(4, 3)] * n).columns for n in (1, 2, 4, 5, 12)] == [1, 2, 2, 3, 4]


@pytest.mark.parametrize("number", [0, LARGEST_NUMBER + 1])
def test_a_sheet_of_nothing_or_of_too_much_is_refused(number):
    with pytest.raises(ValueError, match="1 to 400"):
        Layout.of([(4, 3)] * number)


@pytest.mark.parametrize(
    ("number", "max_count", "fullest"), [(1, 4, 9), (2, 4, 0), (5, 256, 300), (12, 1, 1)]
)
def test_a_sheet_holds_every_picture_whole_and_its_text_touches_no_border(
    number, max_count, fullest
):
    sizes = [(30 + 7 * index, 90) for index in range(number)]
    layout = Layout.of(sizes)
    pictures = []
    for index, (width, height) in enumerate(sizes):
        across, down = layout.fit(width=width, height=height)
        pictures.append(np.full((down, across, 3), (index + 1, 200, 0), dtype=np.uint8))
    tiles = [Tile(picture=each, name="n" * 300, caption="c" * 300) for each in pictures]
    of = colours(max_count=max_count, fullest=fullest)
    png = contact_sheet(tiles, title="t" * 900, layout=layout, colours=of)
    sheet = opened(png)
    red = sheet[(sheet[..., 1] == 200) & (sheet[..., 2] == 0)][:, 0]
    shown = np.bincount(red, minlength=number + 1)
    assert shown.tolist() == [0, *(each.shape[0] * each.shape[1] for each in pictures)]
    border = np.concatenate([sheet[:2], sheet[-2:]]), np.concatenate([sheet[:, :2], sheet[:, -2:]])
    assert all(is_colour(edge, PAPER).all() for edge in border)
    assert contact_sheet(tiles, title="t" * 900, layout=layout, colours=of) == png


@given(st.text(max_size=80), st.integers(40, 300))
def test_a_shortened_text_is_one_line_that_fits(text, width):
    font = ImageFont.load_default(size=14)
    shown = fit_text(text, width=width, font=font)
    assert font.getlength(shown) <= width
    assert "\n" not in shown
    if font.getlength(shown) < width / 2 and shown.isascii():
        assert len(shown) >= len(text) or "..." in shown


def test_a_text_that_fits_is_left_alone_and_a_long_one_keeps_its_ends():
    font = ImageFont.load_default(size=14)
    assert fit_text("train/IMG_12.jpg", width=500, font=font) == "train/IMG_12.jpg"
    long = fit_text("train/" + "x" * 200 + "_12.jpg", width=200, font=font)
    assert long.startswith("train/")
    assert long.endswith("_12.jpg")
