from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from crowdcount.core.blocks import (
    _histogram_of_all,
    _histogram_of_touched,
    head_pixels,
    heads_per_block,
    largest_observable_count,
    window_histogram,
)

side = st.integers(1, 40)
# Outside the image too: annotators click there.
coordinate = st.one_of(st.integers(-5, 45).map(float), st.floats(-5, 45, width=32))
heads = st.lists(st.tuples(coordinate, coordinate), max_size=30)


arrays_of_heads = arrays(
    np.float64, st.tuples(st.integers(0, 30), st.just(2)), elements=st.floats(-5, 45)
)


def array(points):
    return np.array(points, dtype=np.float64).reshape(-1, 2)


@given(heads, st.integers(1, 6), st.integers(1, 6), st.integers(1, 8))
def test_coarse_blocks_are_sums_of_fine_blocks(points, rows, cols, block):
    size = {"height": rows * block, "width": cols * block}
    fine = heads_per_block(array(points), **size, block=1)
    coarse = heads_per_block(array(points), **size, block=block)
    np.testing.assert_array_equal(fine.reshape(rows, block, cols, block).sum(axis=(1, 3)), coarse)


@given(heads, side, side, st.integers(1, 12))
def test_the_order_of_the_heads_does_not_matter(points, height, width, block):
    size = {"height": height, "width": width, "block": block}
    forwards = heads_per_block(array(points), **size)
    np.testing.assert_array_equal(forwards, heads_per_block(array(points[::-1]), **size))


def test_a_head_belongs_to_the_pixel_its_coordinates_are_truncated_to():
    points = array([(7.999, 0), (8, 0), (0, 8), (8.5, 15.9)])
    assert head_pixels(points, height=16, width=16).tolist() == [[7, 0], [8, 0], [0, 8], [8, 15]]
    counts = heads_per_block(points, height=16, width=16, block=8)
    assert counts.tolist() == [[1, 1], [1, 1]]


def test_heads_outside_go_to_the_nearest_edge_pixel():
    points = array([(-3, 4), (20, 4), (5, -0.5), (1e30, 1e30)])
    pixels = head_pixels(points, height=10, width=20)
    assert pixels.tolist() == [[0, 4], [19, 4], [5, 0], [19, 9]]


def test_two_heads_on_one_pixel_count_twice():
    counts = heads_per_block(array([(3, 3), (3.4, 3.2)]), height=8, width=8, block=8)
    assert counts.tolist() == [[2]]


def test_rows_are_down_and_columns_across():
    counts = heads_per_block(array([(17, 3)]), height=10, width=20, block=8)
    assert counts.tolist() == [[0, 0, 1], [0, 0, 0]]


@pytest.mark.parametrize("point", [(float("nan"), 1), (1, float("inf"))])
def test_a_head_without_a_place_is_refused(point):
    with pytest.raises(ValueError, match="finite"):
        head_pixels(array([point]), height=8, width=8)


def test_nonsense_sizes_are_refused():
    with pytest.raises(ValueError, match="block side"):
        heads_per_block(array([]), height=8, width=8, block=0)
    with pytest.raises(ValueError, match="at least one pixel"):
        heads_per_block(array([]), height=0, width=8, block=8)
    with pytest.raises(ValueError, match="block side"):
        window_histogram(array([]), height=8, width=8, block=0)


def brute_force_histogram(points, *, height, width, block):
    pixels = head_pixels(array(points), height=height, width=width).tolist()
    offsets = product(range(height - block + 1), range(width - block + 1))
    counts = [
        sum(left <= x < left + block and top <= y < top + block for x, y in pixels)
        for top, left in offsets
    ]
    return np.bincount(np.array(counts, dtype=np.int64), minlength=1)


@given(
    st.lists(st.tuples(coordinate, coordinate), max_size=8),
    st.integers(1, 14),
    st.integers(1, 14),
    st.integers(1, 9),
)
def test_windows_are_counted_as_if_one_by_one(points, height, width, block):
    size = {"height": height, "width": width, "block": block}
    histogram = window_histogram(array(points), **size)
    assert histogram.tolist() == brute_force_histogram(points, **size).tolist()


@given(st.integers(0, 60), side, side, st.integers(1, 12), st.randoms(use_true_random=False))
def test_both_ways_to_count_windows_agree(number, height, width, block, random):
    rows, cols = height - block + 1, width - block + 1
    assume(rows > 0 and cols > 0)
    # Crowded into a corner, so that windows hold many heads and duplicates are common.
    near = [random.randrange(min(side, 9)) for _ in range(number) for side in (width, height)]
    pixels = np.array(near, dtype=np.int64).reshape(-1, 2)
    size = {"rows": rows, "cols": cols, "block": block}
    touched, every = (count(pixels, **size) for count in (_histogram_of_touched, _histogram_of_all))
    assert touched.tolist() == every.tolist()


@given(heads, side, side, st.integers(1, 12))
def test_every_window_is_in_the_histogram(points, height, width, block):
    histogram = window_histogram(array(points), height=height, width=width, block=block)
    assert histogram.sum() == max(height - block + 1, 0) * max(width - block + 1, 0)
    assert (histogram >= 0).all()


@given(heads, side, side, st.integers(1, 12))
def test_collapsing_counts_each_occupied_pixel_once(points, height, width, block):
    size = {"height": height, "width": width, "block": block}
    once = np.unique(head_pixels(array(points), height=height, width=width), axis=0)
    collapsed = window_histogram(array(points), **size, collapse_duplicates=True)
    assert collapsed.tolist() == window_histogram(array(once), **size).tolist()


def test_the_claim_of_a_huge_image_takes_no_memory():
    side = 2**30
    histogram = window_histogram(array([(5.0, 5.0)]), height=side, width=side, block=2)
    assert histogram.tolist() == [(side - 1) ** 2 - 4, 4]


def test_two_heads_on_one_pixel_by_hand():
    # 3 x 2 windows of side 2 in a 4 x 3 image; the pixel (1, 1) is in four of them.
    points = array([(1.2, 1.7), (1.9, 1.1)])
    size = {"height": 3, "width": 4, "block": 2}
    assert window_histogram(points, **size).tolist() == [2, 0, 4]
    assert window_histogram(points, **size, collapse_duplicates=True).tolist() == [2, 4]


@given(arrays_of_heads, side, side, st.integers(1, 12))
def test_no_head_is_lost(points, height, width, block):
    counts = heads_per_block(points, height=height, width=width, block=block)
    assert counts.shape == (-(-height // block), -(-width // block))
    assert counts.sum() == len(points)


@given(arrays_of_heads, side, side)
def test_blocks_of_one_pixel_are_the_pixels_of_the_heads(points, height, width):
    counts = heads_per_block(points, height=height, width=width, block=1)
    expected = np.zeros_like(counts)
    for column, row in head_pixels(points, height=height, width=width):
        expected[row, column] += 1
    np.testing.assert_array_equal(counts, expected)


@pytest.mark.parametrize(
    ("block", "smallest_head", "expected"),
    [(8, 4, 4), (16, 4, 16), (8, 3, 4), (32, 8, 16), (8, 8, 1), (8, 9, 1)],
)
def test_what_a_block_can_show(block, smallest_head, expected):
    assert largest_observable_count(block=block, smallest_head=smallest_head) == expected


def test_a_head_has_at_least_one_pixel():
    with pytest.raises(ValueError, match="at least 1"):
        largest_observable_count(block=8, smallest_head=0)
