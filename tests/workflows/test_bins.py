"""Bins of prepared data: exact, kept beside the data, never silently of other settings."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crowdcount.data.prepared import PreparedDataset
from crowdcount.errors import BadInputError, UsageError
from crowdcount.workflows.bins import BinsTable, bins_path, make_bins, training_bins, write_bins
from crowdcount.workflows.preprocess import preprocess

REAL = os.environ.get("CROWDCOUNT_TEST_DATA")

# SPEC section 2: windows that hold 0, 1, 2, ... heads, and the averages made from them.
PUBLISHED = {
    "part_A": (
        (160050505, 8903991, 509370, 89927, 21173, 5017, 1117, 257, 51, 12),
        4.29992,
    ),
    "part_B": ((306656205, 2810354, 95231, 10591, 1751, 440, 147, 68, 11, 2), 4.41009),
}


@pytest.fixture
def data(prepared: PreparedDataset, tmp_path: Path) -> PreparedDataset:
    """A prepared set of one's own, to write into."""
    shutil.copytree(prepared.folder, tmp_path / "square")
    return PreparedDataset.open(tmp_path / "square")


@pytest.mark.skipif(REAL is None, reason="CROWDCOUNT_TEST_DATA names no data")
@pytest.mark.parametrize("part", PUBLISHED)
def test_the_published_numbers_come_out_digit_for_digit(part, tmp_path):
    (result,) = preprocess(Path(str(REAL)) / "ShanghaiTech" / part, out=tmp_path / part, jobs=2)
    table = make_bins([PreparedDataset.open(result.folder)], block=8, paper=True)
    histogram, last = PUBLISHED[part]
    assert table.histogram[: len(histogram)] == histogram
    assert not any(table.histogram[len(histogram) :])
    assert [round(value, 5) for value in table.bins.values] == [0, 1, 2, 3, last]


def test_windows_of_all_training_images_are_counted_the_held_out_ones_too(data):
    table = make_bins([data], block=8)
    windows = [(r.width - 7) * (r.height - 7) for r in data.all_training()]
    assert len(data.manifest.held_out) > 0
    assert sum(table.histogram) == sum(windows)


def test_two_sets_together_add_up(data):
    once, twice = make_bins([data], block=8), make_bins([data, data], block=8)
    assert np.array_equal(np.array(once.histogram) * 2, twice.histogram)
    assert once.bins == twice.bins


def test_duplicates_count_twice_unless_the_paper_is_followed(data):
    record = data.all_training()[0]
    path = data.folder / record.split / "points" / f"{record.file}.npy"
    np.save(path, np.array([[100.5, 100.5], [100.5, 100.5]]))
    doubled, collapsed = make_bins([data], block=8), make_bins([data], block=8, paper=True)
    heads = [sum(c * n for c, n in enumerate(t.histogram)) for t in (doubled, collapsed)]
    assert heads[0] - heads[1] >= 64


@pytest.mark.parametrize(("smallest_head", "largest"), [(8, 1), (4, 4), (2, 16)])
def test_the_smallest_head_decides_the_last_bin(data, smallest_head, largest):
    table = make_bins([data], block=8, smallest_head=smallest_head)
    assert table.bins.max_count == largest


def test_bins_without_windows_are_named(data):
    table = make_bins([data], block=8, smallest_head=1)
    assert 63 in table.empty_bins()
    assert 0 not in table.empty_bins()
    assert table.bins.values[63] == 63


def test_a_file_gives_back_the_same_table(data):
    table = make_bins([data], block=8)
    assert BinsTable.from_file(write_bins(data, table)) == table


def test_a_table_of_other_settings_is_kept_unless_forced(data):
    path = write_bins(data, make_bins([data], block=8))
    before = path.read_bytes()
    other = make_bins([data], block=8, paper=True)
    with pytest.raises(UsageError, match=r"made with other settings"):
        write_bins(data, other)
    assert path.read_bytes() == before
    write_bins(data, other, force=True)
    assert BinsTable.from_file(path) == other


def test_training_makes_missing_bins_and_renews_old_ones(data):
    path = bins_path(data, block=16)
    table = training_bins([data], block=16)
    assert BinsTable.from_file(path) == table
    stale = replace(table, histogram=(1, 2, 3), sources=(("square", "0" * 64),))
    write_bins(data, stale, force=True)
    assert training_bins([data], block=16) == table == BinsTable.from_file(path)


def test_training_takes_the_table_that_is_there(data):
    chosen = make_bins([data], block=8, paper=True, smallest_head=2)
    write_bins(data, chosen)
    assert training_bins([data], block=8) == chosen


def test_a_damaged_file_says_how_to_mend_it(data):
    path = bins_path(data, block=8)
    path.write_text('{"bins": 3}')
    with pytest.raises(BadInputError, match=r"bins --force"):
        training_bins([data], block=8)
