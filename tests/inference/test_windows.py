from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowdcount.inference.windows import window_starts


@st.composite
def sides(draw):
    window = draw(st.integers(1, 40))
    stride = draw(st.integers(1, window))
    return draw(st.integers(window, 200)), window, stride


@given(sides())
def test_windows_cover_the_side_and_nothing_beyond(side):
    length, window, stride = side
    starts = window_starts(length, window=window, stride=stride)
    covered = {place for start in starts for place in range(start, start + window)}
    assert covered == set(range(length))


@given(sides())
def test_windows_advance_by_the_stride_and_are_as_few_as_that_allows(side):
    length, window, stride = side
    starts = window_starts(length, window=window, stride=stride)
    steps = [after - before for before, after in pairwise(starts)]
    assert set(steps[:-1]) <= {stride}
    assert all(0 < step <= stride for step in steps)
    assert len(starts) == 1 + -(-(length - window) // stride)


@given(sides(), st.integers(1, 32))
def test_windows_of_whole_blocks_start_at_blocks(side, block):
    length, window, stride = (block * each for each in side)
    in_blocks = window_starts(side[0], window=side[1], stride=side[2])
    assert window_starts(length, window=window, stride=stride) == [block * n for n in in_blocks]


@pytest.mark.parametrize(
    ("length", "stride", "starts"),
    [(4, 4, [0]), (8, 4, [0, 4]), (9, 4, [0, 4, 5]), (10, 3, [0, 3, 6]), (11, 3, [0, 3, 6, 7])],
)
def test_the_last_window_is_pulled_back_to_the_border(length, stride, starts):
    assert window_starts(length, window=4, stride=stride) == starts


@pytest.mark.parametrize("stride", [0, -1, 5])
def test_a_stride_that_would_leave_gaps_is_refused(stride):
    with pytest.raises(ValueError, match="stride must be 1 to the window, 4"):
        window_starts(10, window=4, stride=stride)


def test_a_side_shorter_than_a_window_is_refused():
    with pytest.raises(ValueError, match="window of 4 does not fit into 3"):
        window_starts(3, window=4, stride=4)
