import json
import math
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from crowdcount.core.bins import (
    POLICIES,
    Bins,
    WrittenBins,
    auto_starts,
    average_values,
    coarse_starts,
    dynamic_starts,
    expected_counts,
    fine_starts,
    format_range,
    middle_values,
)

# Windows of 8 x 8 pixels with 0 to 9 heads in the ShanghaiTech training images, as published.
PUBLISHED_WINDOWS = {
    "sha": [160050505, 8903991, 509370, 89927, 21173, 5017, 1117, 257, 51, 12],
    "shb": [306656205, 2810354, 95231, 10591, 1751, 440, 147, 68, 11, 2],
}

starts_lists = st.sets(st.integers(1, 40), min_size=1, max_size=10).map(
    lambda inner: (0, *sorted(inner))
)


def bins_of(starts):
    return Bins(block=8, starts=starts, values=tuple(start + 0.0 for start in starts))


@given(starts_lists, st.lists(st.integers(0, 60), min_size=1, max_size=50))
def test_a_count_is_of_the_bin_whose_range_holds_it(starts, counts):
    bins = bins_of(starts)
    classes = bins.classify(torch.tensor(counts, dtype=torch.float32)).tolist()
    for count, index in zip(counts, classes, strict=True):
        low, high = bins.ranges[index]
        assert low <= count <= (math.inf if high is None else high)


@given(starts_lists)
def test_the_ranges_follow_one_another_without_a_gap(starts):
    ranges = bins_of(starts).ranges
    assert [high + 1 for _, high in ranges[:-1]] == [low for low, _ in ranges[1:]]
    assert ranges[0][0] == 0
    assert ranges[-1] == (bins_of(starts).max_count, None)


@given(starts_lists, st.data())
def test_bins_survive_json(starts, data):
    values = tuple(
        data.draw(st.floats(low, low + 50 if high is None else high))
        for low, high in bins_of(starts).ranges
    )
    bins = Bins(block=16, starts=starts, values=values)
    assert Bins.from_json(json.loads(json.dumps(bins.to_json()))) == bins


@given(starts_lists, st.lists(st.integers(0, 10**12), min_size=1, max_size=80))
def test_every_average_lies_in_its_bin(starts, windows):
    Bins(block=8, starts=starts, values=average_values(starts, np.array(windows)))


@given(starts_lists, st.lists(st.integers(0, 10**9), min_size=1, max_size=80))
def test_averages_keep_the_number_of_heads(starts, windows):
    values = average_values(starts, np.array(windows))
    ends = [*starts[1:], len(windows) + starts[-1]]
    of_bins = sum(
        value * sum(windows[low:end]) for value, low, end in zip(values, starts, ends, strict=True)
    )
    assert of_bins == pytest.approx(sum(count * n for count, n in enumerate(windows)), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "max_count", "published"),
    [("sha", 4, 4.29992), ("sha", 2, 2.24479), ("shb", 4, 4.41009), ("shb", 2, 2.15171)],
)
def test_the_published_averages_come_out_to_the_digit(name, max_count, published):
    values = average_values(fine_starts(max_count), np.array(PUBLISHED_WINDOWS[name]))
    assert round(values[-1], 5) == published
    assert values[:-1] == tuple(range(max_count))


def test_averages_are_exact_where_floats_would_not_be():
    # 3 * 2^60 windows: their sum of heads is beyond the integers that float64 and int64 hold.
    n = 2**60
    assert average_values((0, 2), np.array([5, 0, n, n, n, n])) == (0.0, 3.5)


def test_a_bin_without_windows_is_represented_by_its_lower_edge():
    assert average_values((0, 1, 3, 7), np.array([10, 0, 0, 0, 2])) == (0.0, 1.0, 4.0, 7.0)


def test_average_by_hand():
    # Bin 1-2 holds 30 windows with one head and 10 with two: 50 / 40.
    assert average_values((0, 1, 3), np.array([100, 30, 10, 4])) == (0.0, 1.25, 3.0)


def test_classes_by_hand():
    bins = Bins(block=8, starts=(0, 1, 4), values=(0.0, 2.0, 5.5))
    counts = torch.tensor([[0.0, 1.0, 3.0, 4.0, 90.0]])
    assert bins.classify(counts).tolist() == [[0, 1, 1, 2, 2]]
    assert bins.ranges == ((0, 0), (1, 3), (4, None))


def test_ranges_for_people():
    assert [format_range(3, 3), format_range(2, 3), format_range(4, None)] == ["3", "2-3", "4+"]


def test_fine_bins_are_single_integers_up_to_the_last():
    assert fine_starts(4) == (0, 1, 2, 3, 4)


def test_dynamic_bins_become_pairs_in_the_upper_half():
    assert dynamic_starts(8) == (0, 1, 2, 3, 4, 6, 8)
    assert dynamic_starts(16) == (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16)


def test_coarse_bins_are_pairs_but_for_zero():
    assert coarse_starts(8) == (0, 1, 3, 5, 7)
    assert coarse_starts(4) == (0, 1, 3)


@pytest.mark.parametrize("policy", POLICIES)
@given(max_count=st.integers(1, 300))
def test_every_policy_makes_bins_of_one_or_two_counts_with_zero_alone(policy, max_count):
    starts = POLICIES[policy](max_count)
    widths = [after - before for before, after in pairwise(starts)]
    assert starts[:2] == (0, 1)
    assert widths == sorted(widths)
    assert set(widths) <= {1, 2}
    # The open bin leaves out at most the one count that a pair would need to be whole.
    assert max_count - 1 <= starts[-1] <= max_count


@given(
    st.integers(1, 7),
    st.lists(st.integers(0, 12), min_size=1, max_size=10),
    st.integers(1, 20),
)
def test_auto_makes_as_many_well_filled_bins_as_there_can_be(max_count, windows, least):
    histogram = np.array([5, *windows])

    def held(starts):
        ends = [*starts[1:], len(histogram)]
        return [histogram[low:end].sum() for low, end in zip(starts, ends, strict=True)]

    starts = auto_starts(max_count, histogram, least=least)
    tables = [
        (0, 1, *inner)
        for size in range(max_count)
        for inner in combinations(range(2, max_count + 1), size)
    ]
    good = [table for table in tables if min(held(table)[1:]) >= least]
    assert starts in (good or [(0, 1)])
    assert len(starts) == max(map(len, good), default=2)


def test_auto_by_hand():
    # 3 and 4 together hold ten windows; what is left above them does not, and joins them.
    histogram = np.array([900, 90, 20, 6, 4, 3, 1])
    assert auto_starts(8, histogram, least=10) == (0, 1, 2, 3)
    assert auto_starts(8, histogram, least=4) == (0, 1, 2, 3, 4, 5)
    assert auto_starts(2, histogram, least=4) == (0, 1, 2)
    assert auto_starts(8, histogram, least=500) == (0, 1)
    assert auto_starts(8, np.array([7]), least=1) == (0, 1)


@given(starts_lists)
def test_the_middle_of_a_bin_is_as_far_from_its_ends(starts):
    bins = Bins(block=8, starts=starts, values=middle_values(starts))
    for (low, high), value in zip(bins.ranges[:-1], bins.values, strict=False):
        assert value - low == high - value
    assert bins.values[-1] == starts[-1]


@pytest.mark.parametrize(
    ("content", "values", "block"),
    [
        ([0, 1, 3], None, None),
        ({"starts": [0, 1, 3]}, None, None),
        ({"starts": [0, 1, 3], "values": [0, 1.5, 3], "block": 16}, (0.0, 1.5, 3.0), 16),
        (
            Bins(block=8, starts=(0, 1, 3), values=(0.0, 1.5, 4.0)).to_json() | {"format": 1},
            (0.0, 1.5, 4.0),
            8,
        ),
    ],
)
def test_a_table_can_be_written_in_several_ways(content, values, block):
    table = WrittenBins.from_json(json.loads(json.dumps(content)), name="mine")
    assert table == WrittenBins(name="mine", starts=(0, 1, 3), values=values, block=block)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (3, "expected a list of starts"),
        ({"edges": [0, 1]}, "the key 'starts'"),
        ({"starts": [0, 1], "vales": [0, 1]}, "vales: no such setting; did you mean 'values'"),
        ({"starts": [0, 1.5]}, "starts.1: expected a whole number, got 1.5"),
        ({"starts": [False, True]}, "starts.0: expected a whole number"),
        ({"starts": "0, 1"}, "starts: expected a list"),
        ({"starts": [0, 1], "values": [0, "1"]}, "values.1: expected a number"),
        ({"starts": [0, 1], "block": "8"}, "block: expected a whole number"),
        ({"starts": [0, 1], "block": 0}, "block side"),
        ({"starts": [0, 2, 2]}, "rise"),
        ({"starts": [1, 2]}, "start at 0"),
        ({"starts": [0, 1], "values": [0, 0.5]}, r"value of bin 1\+"),
        ({"bins": 3, "block": 8}, "not a bins table"),
        ({"bins": [{"low": 0, "high": None, "value": "x"}], "block": 8}, r"bins\.0\.value: "),
        ({"starts": [0, 1], "values": [0, 10**400]}, r"value of bin 1\+ is inf"),
    ],
)
def test_an_impossible_table_is_refused(content, complaint):
    with pytest.raises(ValueError, match=complaint):
        WrittenBins.from_json(content, name="mine")


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"block": 0}, "block side"),
        ({"starts": (0,), "values": (0.0,)}, "two or more"),
        ({"starts": (1, 2)}, "start at 0"),
        ({"starts": (0, 0)}, "rise"),
        ({"values": (0.0,)}, "one value"),
        ({"values": (0.5, 1.0)}, "value of bin 0"),
        ({"values": (0.0, 0.9)}, r"value of bin 1\+"),
        ({"values": (0.0, math.inf)}, r"value of bin 1\+"),
        ({"values": (0.0, math.nan)}, r"value of bin 1\+"),
        ({"values": (0.0, 1e308)}, r"value of bin 1\+"),
        ({"block": 1025}, "block side"),
        ({"starts": (0, 2**24 + 1), "values": (0.0, 2.0**24 + 1)}, "no bin may start above"),
    ],
)
def test_nonsense_bins_are_refused(changed, complaint):
    good = {"block": 8, "starts": (0, 1), "values": (0.0, 1.5)}
    with pytest.raises(ValueError, match=complaint):
        Bins(**(good | changed))


@pytest.mark.parametrize(
    "rows",
    [
        [{"low": 0, "high": 0, "value": 0}, {"low": 2, "high": None, "value": 3}],
        [{"low": 0, "high": 0, "value": 0}, {"low": 1, "high": 4, "value": 3}],
        [{"low": 0, "high": 0}, {"low": 1, "high": None, "value": 3}],
        None,
    ],
)
def test_a_mapping_that_is_no_bins_table_is_refused(rows):
    with pytest.raises(ValueError, match="bins"):
        Bins.from_json({"block": 8, "bins": rows})


@given(st.lists(st.floats(-20, 20, width=32), min_size=3, max_size=3))
def test_an_expected_count_lies_between_the_values_of_the_bins(logits):
    values = torch.tensor([0.0, 1.0, 2.25])
    count = expected_counts(torch.tensor(logits).reshape(1, 3, 1, 1), values)
    assert -1e-6 <= count.item() <= 2.25 + 1e-6


def test_expected_counts_by_hand():
    # Three bins as likely as each other, then certainty of the last: 3.5 / 3 and 2.5 heads.
    logits = torch.zeros(1, 3, 1, 2)
    logits[0, 2, 0, 1] = 100
    counts = expected_counts(logits, torch.tensor([0.0, 1.0, 2.5]))
    assert_close(counts, torch.tensor([[[[3.5 / 3, 2.5]]]]))


def test_expected_counts_are_float32_at_half_precision():
    logits = torch.tensor([0.0, 1.0]).reshape(1, 2, 1, 1).to(torch.bfloat16)
    counts = expected_counts(logits, torch.tensor([0.0, 2.25]))
    assert counts.dtype == torch.float32
    assert_close(counts.item(), 2.25 / (1 + math.exp(-1)), rtol=1e-6, atol=0)


def test_expected_counts_are_not_rounded_under_autocast():
    logits = torch.randn(1, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    values = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.29992])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        counts = expected_counts(logits, values)
    assert_close(counts, expected_counts(logits, values), rtol=0, atol=0)
