from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.testing import assert_close

from crowdcount.core.blocks import (
    _histogram_of_all,
    _histogram_of_touched,
    block_counts,
    block_target,
    corrected_counts,
    head_pixels,
    pad_to_multiple,
    window_histogram,
)

side = st.integers(1, 40)
# Outside the image too: annotators click there.
coordinate = st.one_of(st.integers(-5, 45).map(float), st.floats(-5, 45, width=32))
heads = st.lists(st.tuples(coordinate, coordinate), max_size=30)


def tensor(points):
    return torch.tensor(points, dtype=torch.float32).reshape(-1, 2)


@given(heads, side, side, st.integers(1, 12))
def test_no_head_is_lost(points, height, width, block):
    counts = block_counts(tensor(points), height=height, width=width, block=block)
    assert counts.shape == (1, -(-height // block), -(-width // block))
    assert counts.sum() == len(points)


@given(heads, st.integers(1, 6), st.integers(1, 6), st.integers(1, 8))
def test_coarse_blocks_are_sums_of_fine_blocks(points, rows, cols, block):
    size = {"height": rows * block, "width": cols * block}
    fine = block_counts(tensor(points), **size, block=1)
    coarse = block_counts(tensor(points), **size, block=block)
    assert_close(fine.reshape(1, rows, block, cols, block).sum(dim=(2, 4)), coarse)


@given(heads, side, side, st.integers(1, 12))
def test_the_order_of_the_heads_does_not_matter(points, height, width, block):
    size = {"height": height, "width": width, "block": block}
    forwards = block_counts(tensor(points), **size)
    assert_close(forwards, block_counts(tensor(points[::-1]), **size))


def test_a_head_belongs_to_the_pixel_its_coordinates_are_truncated_to():
    points = tensor([(7.999, 0), (8, 0), (0, 8), (8.5, 15.9)])
    assert head_pixels(points, height=16, width=16).tolist() == [[7, 0], [8, 0], [0, 8], [8, 15]]
    counts = block_counts(points, height=16, width=16, block=8)
    assert counts.tolist() == [[[1, 1], [1, 1]]]


def test_heads_outside_go_to_the_nearest_edge_pixel():
    points = tensor([(-3, 4), (20, 4), (5, -0.5), (1e30, 1e30)])
    pixels = head_pixels(points, height=10, width=20)
    assert pixels.tolist() == [[0, 4], [19, 4], [5, 0], [19, 9]]


def test_two_heads_on_one_pixel_count_twice():
    counts = block_counts(tensor([(3, 3), (3.4, 3.2)]), height=8, width=8, block=8)
    assert counts.tolist() == [[[2]]]


def test_rows_are_down_and_columns_across():
    counts = block_counts(tensor([(17, 3)]), height=10, width=20, block=8)
    assert counts.tolist() == [[[0, 0, 1], [0, 0, 0]]]


@pytest.mark.parametrize("point", [(float("nan"), 1), (1, float("inf"))])
def test_a_head_without_a_place_is_refused(point):
    with pytest.raises(ValueError, match="finite"):
        head_pixels(tensor([point]), height=8, width=8)


def test_nonsense_sizes_are_refused():
    with pytest.raises(ValueError, match="block side"):
        block_counts(tensor([]), height=8, width=8, block=0)
    with pytest.raises(ValueError, match="at least one pixel"):
        block_counts(tensor([]), height=0, width=8, block=8)
    with pytest.raises(ValueError, match="block side"):
        window_histogram(tensor([]), height=8, width=8, block=0)


def test_correction_lowers_full_blocks_and_leaves_the_others():
    counts = torch.tensor([[[0.0, 4.0, 9.0]]])
    assert corrected_counts(counts, max_count=4).tolist() == [[[0, 4, 4]]]
    assert counts.tolist() == [[[0, 4, 9]]]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 16))
def test_padding_keeps_the_image_and_adds_zeros_at_the_end(height, width, multiple):
    image = torch.ones(2, 3, height, width)
    padded = pad_to_multiple(image, multiple)
    assert padded.shape[2] % multiple == padded.shape[3] % multiple == 0
    assert padded.shape[2] - height < multiple
    assert padded.shape[3] - width < multiple
    assert_close(padded[:, :, :height, :width], image)
    assert padded.sum() == image.sum()


@given(st.lists(heads, min_size=1, max_size=3), side, side)
def test_the_target_of_a_batch_holds_the_counts_of_each_image(batch, height, width):
    points = tuple(tensor(each) for each in batch)
    target = block_target(points, height=height, width=width, block=8)
    assert target.heads.tolist() == [len(each) for each in batch]
    for counts, each in zip(target.counts, points, strict=True):
        assert_close(counts, block_counts(each, height=height, width=width, block=8))
    assert target.points == points
    assert target.block == 8


def test_float64_decides_the_block_though_points_travel_in_float32():
    # In float32 this head would lie at 8.0, in the next block.
    target = block_target(
        (torch.tensor([[8 - 1e-9, 0]], dtype=torch.float64),), height=8, width=16, block=8
    )
    assert target.counts.tolist() == [[[[1, 0]]]]
    assert target.points[0].dtype == torch.float32


def brute_force_histogram(points, *, height, width, block):
    pixels = head_pixels(tensor(points), height=height, width=width).tolist()
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
    histogram = window_histogram(tensor(points), **size)
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
    histogram = window_histogram(tensor(points), height=height, width=width, block=block)
    assert histogram.sum() == max(height - block + 1, 0) * max(width - block + 1, 0)
    assert (histogram >= 0).all()


@given(heads, side, side, st.integers(1, 12))
def test_collapsing_counts_each_occupied_pixel_once(points, height, width, block):
    size = {"height": height, "width": width, "block": block}
    once = head_pixels(tensor(points), height=height, width=width).unique(dim=0).float()
    collapsed = window_histogram(tensor(points), **size, collapse_duplicates=True)
    assert collapsed.tolist() == window_histogram(once.reshape(-1, 2), **size).tolist()


def test_two_heads_on_one_pixel_by_hand():
    # 3 x 2 windows of side 2 in a 4 x 3 image; the pixel (1, 1) is in four of them.
    points = tensor([(1.2, 1.7), (1.9, 1.1)])
    size = {"height": 3, "width": 4, "block": 2}
    assert window_histogram(points, **size).tolist() == [2, 0, 4]
    assert window_histogram(points, **size, collapse_duplicates=True).tolist() == [2, 4]
