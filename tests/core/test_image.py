import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowdcount.core.image import (
    NORMALISATIONS,
    Normalisation,
    WorkingSize,
    resized,
    scaled_size,
)
from crowdcount.core.limits import MAX_SIDE

sides = st.integers(1, 10_000)


@given(sides, sides, st.integers(1, 600), st.integers(0, 4000))
def test_a_working_size_is_inside_its_range(width, height, short_min, more):
    working = WorkingSize(short_side_min=short_min, long_side_max=short_min + more)
    scale = working.scale(width=width, height=height)
    short, long = sorted((width * scale, height * scale))
    assert long <= working.long_side_max * (1 + 1e-9)
    # A short side below the minimum is forgiven only where the long side is at its maximum.
    assert short >= short_min * (1 - 1e-9) or long == pytest.approx(working.long_side_max)


@pytest.mark.parametrize(
    ("width", "height", "scale"),
    [
        (1024, 768, 1.0),
        (448, 2048, 1.0),
        (300, 224, 2.0),
        (224, 300, 2.0),
        (4096, 3000, 0.5),
        (1, 1, 448.0),
        # Too long for both: the maximum wins, whether the short side is small or not.
        (4096, 100, 0.5),
        (4096, 600, 0.5),
        (1024, 112, 2.0),
    ],
)
def test_the_scale_of_an_image(width, height, scale):
    working = WorkingSize(short_side_min=448, long_side_max=2048)
    assert working.scale(width=width, height=height) == scale


@pytest.mark.parametrize(("low", "high"), [(0, 100), (101, 100), (448, MAX_SIDE + 1)])
def test_a_range_without_a_size_is_refused(low, high):
    with pytest.raises(ValueError, match="short_side_min <= long_side_max"):
        WorkingSize(short_side_min=low, long_side_max=high)


@given(sides, sides, st.floats(1e-6, 10))
def test_a_scaled_side_is_within_half_a_pixel_of_its_length(width, height, scale):
    new = scaled_size(width=width, height=height, scale=scale)
    for side, exact in zip(new, (width * scale, height * scale), strict=True):
        assert side >= 1
        assert abs(side - exact) <= 0.5 or side == 1


def test_an_image_of_the_right_size_is_not_touched():
    image = np.zeros((4, 6, 3), dtype=np.uint8)
    assert resized(image, width=6, height=4) is image


def test_resizing_takes_width_and_height_in_that_order():
    image = np.zeros((4, 6, 3), dtype=np.uint8)
    assert resized(image, width=12, height=5).shape == (5, 12, 3)


@given(st.integers(0, 255), st.integers(1, 30), st.integers(1, 30))
def test_a_plain_image_stays_plain_at_any_size(level, width, height):
    image = np.full((11, 7, 3), level, dtype=np.uint8)
    assert (resized(image, width=width, height=height) == level).all()


def test_fine_stripes_shrink_to_grey_and_not_to_false_patterns():
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    inner = resized(stripes, width=20, height=20)[4:-4, 4:-4]
    assert np.abs(inner.astype(int) - 128).max() < 25


@pytest.mark.parametrize("name", NORMALISATIONS)
def test_channel_statistics_are_of_rgb_in_0_to_1(name):
    statistics = NORMALISATIONS[name]
    # A mean of 0 and a deviation of 1 leave pixels as they are, which MobileCLIP expects.
    assert all(0 <= value < 1 for value in statistics.mean)
    assert all(0 < value <= 1 for value in statistics.std)


@pytest.mark.parametrize("wrong", [-0.1, 1.1, math.nan, math.inf, 1e308])
def test_statistics_that_no_channel_has_are_refused(wrong):
    half = (0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="channel statistics need"):
        Normalisation(mean=(0.5, wrong, 0.5), std=half)
    with pytest.raises(ValueError, match="channel statistics need"):
        Normalisation(mean=half, std=(0.5, 0.5, wrong))
    with pytest.raises(ValueError, match="channel statistics need"):
        Normalisation(mean=half, std=(0.5, 0.5, 0.0))
