import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crowdcount.core.types import ImageCount
from crowdcount.drawing.heatmap import heatmap, scale_ticks

PAPER = (24, 24, 28)


def count_of(blocks, *, width, height, working_width=None, working_height=None, block=8):
    blocks = torch.tensor(blocks, dtype=torch.float32)
    return ImageCount(
        total=blocks.double().sum().item(),
        blocks=blocks,
        block=block,
        working_width=working_width or width,
        working_height=working_height or height,
        width=width,
        height=height,
    )


def uniform_count(*, width, height, heads=0.5):
    return count_of(np.full((-(-height // 8), -(-width // 8)), heads), width=width, height=height)


def grey_image(width, height, level=120):
    return np.full((height, width, 3), level, dtype=np.uint8)


def coloured(picture):
    """Which pixels are not grey."""
    return np.ptp(picture.astype(int), axis=2) > 4


@settings(max_examples=25)
@given(st.integers(1, 900), st.integers(1, 900), st.floats(0, 1e7))
def test_any_image_gets_a_picture_with_room_for_its_text(width, height, heads):
    drawn = heatmap(grey_image(width, height), uniform_count(width=width, height=height))
    assert drawn.shape[0] > height
    assert drawn.shape[1] >= width
    assert max(drawn.shape[:2]) >= 320


@pytest.mark.parametrize(
    ("width", "height"),
    [(1, 1), (5, 3), (1, 900), (900, 1), (60, 40), (320, 200), (640, 480), (1500, 700)],
)
@pytest.mark.parametrize("heads", [0.0, 0.004, 1.25, 123456.0])
def test_no_text_touches_the_border(width, height, heads):
    drawn = heatmap(
        grey_image(width, height), uniform_count(width=width, height=height, heads=heads)
    )
    picture_height = height * -(-320 // max(width, height))
    strip = drawn[picture_height:]
    ink = (strip != PAPER).any(axis=2)
    assert ink.any()
    border = np.concatenate([ink[:2].ravel(), ink[-2:].ravel(), ink[:, :2].ravel()])
    assert not border.any()
    assert not ink[:, -2:].any()


def test_a_large_photograph_has_larger_letters():
    heights = [
        heatmap(grey_image(*size), uniform_count(width=size[0], height=size[1])).shape[0] - size[1]
        for size in [(400, 300), (1600, 1200), (3000, 2000)]
    ]
    assert heights == sorted(set(heights))


def test_empty_blocks_show_the_photograph_and_full_ones_their_colour():
    blocks = np.zeros((40, 50))
    blocks[10, 20] = 1.5
    image = np.random.default_rng(0).integers(0, 256, (320, 400, 1), dtype=np.uint8).repeat(3, 2)
    drawn = heatmap(image, count_of(blocks, width=400, height=320))[:320]
    hot = np.zeros((320, 400), dtype=bool)
    hot[80:88, 160:168] = True
    assert (drawn[~hot] == image[~hot]).all()
    assert coloured(drawn)[hot].all()


def test_a_block_lies_where_it_is_on_the_original_photograph():
    # Working image 320 x 160, half the original: a block of 8 covers 16 original pixels.
    blocks = np.zeros((20, 40))
    blocks[3, 39] = 1
    count = count_of(blocks, width=640, height=320, working_width=320, working_height=160)
    rows, cols = np.nonzero(coloured(heatmap(grey_image(640, 320), count)[:320]))
    assert (rows.min(), rows.max(), cols.min(), cols.max()) == (48, 63, 624, 639)


def test_fuller_blocks_are_more_opaque():
    blocks = np.zeros((40, 40))
    blocks[5, :6] = [0.0, 0.1, 0.3, 0.5, 0.8, 1.0]
    image = grey_image(320, 320, level=0)
    image[::2] = 255
    drawn = heatmap(image, count_of(blocks, width=320, height=320)).astype(int)
    # What is left of the stripes under each block.
    contrast = [np.abs(drawn[40, 8 * col] - drawn[41, 8 * col]).sum() for col in range(6)]
    assert contrast[0] == 3 * 255
    assert contrast == sorted(contrast, reverse=True)
    assert len(set(contrast)) == 6


def test_few_heads_are_blue_and_many_are_red():
    blocks = np.zeros((40, 40))
    blocks[0, 0], blocks[0, 1] = 0.15, 1.0
    drawn = heatmap(grey_image(320, 320), count_of(blocks, width=320, height=320)).astype(int)
    few, many = drawn[4, 4], drawn[4, 12]
    assert few[2] > few[0]
    assert many[0] > many[2]


def test_the_trace_of_a_head_is_not_drawn_as_a_crowd():
    image = grey_image(320, 320)
    faint = heatmap(image, uniform_count(width=320, height=320, heads=1e-4))[:320]
    assert np.abs(faint.astype(int) - 120).max() < 12


def test_every_colour_is_of_the_count_and_none_of_the_scene():
    image = np.zeros((320, 320, 3), dtype=np.uint8)
    image[..., 0] = 200
    drawn = heatmap(image, uniform_count(width=320, height=320, heads=0.0))[:320]
    assert not coloured(drawn).any()


def test_a_small_image_is_enlarged_by_whole_pixels():
    image = np.array([[[0] * 3, [250] * 3]], dtype=np.uint8)
    drawn = heatmap(image, uniform_count(width=2, height=1, heads=0.0))
    assert (drawn[:160, :160] == 0).all()
    assert (drawn[:160, 160:320] == 250).all()


def test_another_count_is_another_caption():
    image = grey_image(400, 300)
    one, other = (
        heatmap(image, uniform_count(width=400, height=300, heads=heads)) for heads in (0.5, 0.25)
    )
    assert (one[300:] != other[300:]).any()


def test_the_image_is_not_drawn_on():
    image = grey_image(320, 320)
    heatmap(image, uniform_count(width=320, height=320))
    assert (image == 120).all()


def test_a_count_of_another_image_is_refused():
    with pytest.raises(ValueError, match="the image is 30x20, its count is of 20x30"):
        heatmap(grey_image(30, 20), uniform_count(width=20, height=30))


@given(st.floats(0, 1e6))
def test_ticks_reach_from_0_to_above_the_fullest_block(fullest):
    ticks = scale_ticks(fullest)
    assert ticks[0] == 0
    assert 4 <= len(ticks) <= 6
    assert max(fullest, 0.1) <= ticks[-1] * (1 + 1e-6)
    assert ticks[-2] < max(fullest, 0.1) * (1 + 1e-6)
    assert np.allclose(np.diff(ticks), ticks[1])


@pytest.mark.parametrize(
    ("fullest", "ticks"),
    [
        (0.0, [0, 0.02, 0.04, 0.06, 0.08, 0.1]),
        (0.3, [0, 0.1, 0.2, 0.3]),
        (1.1, [0, 0.25, 0.5, 0.75, 1, 1.25]),
        (4.29992, [0, 1, 2, 3, 4, 5]),
    ],
)
def test_ticks_are_round_numbers(fullest, ticks):
    assert scale_ticks(fullest) == pytest.approx(ticks)
