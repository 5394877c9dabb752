import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from crowdcount.core.heads import heads_per_block, largest_observable_count, pixels_of_heads

side = st.integers(1, 40)
# Outside the image too: annotators click there.
points = arrays(np.float64, st.tuples(st.integers(0, 30), st.just(2)), elements=st.floats(-5, 45))


@given(points, side, side, st.integers(1, 12))
def test_no_head_is_lost(points, height, width, block):
    counts = heads_per_block(points, height=height, width=width, block=block)
    assert counts.shape == (-(-height // block), -(-width // block))
    assert counts.sum() == len(points)


@given(points, side, side)
def test_blocks_of_one_pixel_are_the_pixels_of_the_heads(points, height, width):
    counts = heads_per_block(points, height=height, width=width, block=1)
    expected = np.zeros_like(counts)
    for column, row in pixels_of_heads(points, height=height, width=width):
        expected[row, column] += 1
    np.testing.assert_array_equal(counts, expected)


def test_huge_coordinates_go_to_the_edge():
    points = np.array([[1e300, -1e300], [3.9, 2.1]])
    assert pixels_of_heads(points, height=5, width=7).tolist() == [[6, 0], [3, 2]]


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_no_number_is_refused(wrong):
    with pytest.raises(ValueError, match="finite"):
        heads_per_block(np.array([[wrong, 1.0]]), height=8, width=8, block=8)


@pytest.mark.parametrize(
    ("block", "smallest_head", "expected"),
    [(8, 4, 4), (16, 4, 16), (8, 3, 4), (32, 8, 16), (8, 8, 1), (8, 9, 1)],
)
def test_what_a_block_can_show(block, smallest_head, expected):
    assert largest_observable_count(block=block, smallest_head=smallest_head) == expected


def test_a_head_has_at_least_one_pixel():
    with pytest.raises(ValueError, match="at least 1"):
        largest_observable_count(block=8, smallest_head=0)
