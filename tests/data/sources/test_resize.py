import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from crowdcount.core.limits import MAX_SIDE
from crowdcount.core.types import block_counts
from crowdcount.data.sources.resize import ResizeRule, moved_inside, moved_points, outside
from crowdcount.errors import ConfigError

GOLDEN = Path(__file__).parents[2] / "golden" / "preprocess_sizes.json"
CASES = json.loads(GOLDEN.read_text())

sides = st.integers(1, 6000)
sizes = st.tuples(sides, sides)
scattered = arrays(
    np.float64, st.tuples(st.integers(0, 30), st.just(2)), elements=st.floats(-1e4, 1e4)
)


def test_the_published_sizes_are_all_there():
    assert len(CASES) == 72


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['w']}x{case['h']}")
def test_size_is_the_published_one(case):
    rule = ResizeRule(short_side_min=case["min_size"], long_side_max=case["max_size"])
    assert rule.size(width=case["w"], height=case["h"]) == tuple(case["out"])


@given(sizes)
def test_turning_an_image_turns_its_size(size):
    width, height = size
    rule = ResizeRule(short_side_min=448, long_side_max=2048)
    assert rule.size(width=width, height=height)[::-1] == rule.size(width=height, height=width)


@given(sizes)
def test_both_sides_become_multiples_and_none_too_small(size):
    width, height = size
    new = ResizeRule(short_side_min=448, long_side_max=4096).size(width=width, height=height)
    assert all(side % 32 == 0 and side >= 448 for side in new)


@given(sizes)
def test_a_prepared_size_stays(size):
    width, height = size
    rule = ResizeRule(short_side_min=448)
    once = rule.size(width=width, height=height)
    assert rule.size(width=once[0], height=once[1]) == once


def test_points_scale_by_axis():
    # 868x589 becomes 864x576, so x shrinks less than y.
    moved = moved_points(np.array([[868.0, 589.0], [434.0, 0.0]]), old=(868, 589), new=(864, 576))
    np.testing.assert_allclose(moved, [[864.0, 576.0], [432.0, 0.0]])


@given(scattered, sizes)
def test_moving_inside_changes_no_block_count(points, size):
    width, height = size
    inside = moved_inside(points, size=size)
    before, after = (
        block_counts(torch.from_numpy(each), height=height, width=width, block=8)
        for each in (points, inside)
    )
    assert torch.equal(before, after)


@given(scattered, sizes)
def test_only_outside_heads_are_moved_and_none_stays_outside(points, size):
    inside = moved_inside(points, size=size)
    was_out = outside(points, size=size)
    assert not outside(inside, size=size).any()
    # Between -1 and 0 a coordinate truncates to pixel 0: the head is inside, its sign is lost.
    np.testing.assert_array_equal(inside[~was_out], np.maximum(points[~was_out], 0))


def test_outside_is_beyond_the_last_pixel():
    # In an image 10 wide and 5 high, x = 9.9 is on the last pixel, x = 10 on none; -0.9 is on 0.
    points = np.array([[9.9, 4.9], [10.0, 0.0], [0.0, 5.0], [-0.9, 0.0], [-1.0, 0.0]])
    assert outside(points, size=(10, 5)).tolist() == [False, True, True, False, True]
    assert moved_inside(points, size=(10, 5)).tolist() == [
        [9.9, 4.9],
        [9.0, 0.0],
        [0.0, 4.0],
        [0.0, 0.0],
        [0.0, 0.0],
    ]


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"short_side_min": 0}, "resize.short_side_min"),
        ({"short_side_min": 448, "long_side_max": 447}, "resize.long_side_max"),
        ({"short_side_min": 448, "multiple_of": 0}, "resize.multiple_of"),
        ({"short_side_min": MAX_SIDE + 1}, "resize.short_side_min"),
        ({"short_side_min": 448, "long_side_max": 10**400}, "resize.long_side_max"),
        ({"short_side_min": 448, "multiple_of": MAX_SIDE + 1}, "resize.multiple_of"),
    ],
)
def test_nonsense_is_refused_by_name(wrong, key):
    with pytest.raises(ConfigError, match=key):
        ResizeRule(**wrong)
