"""Bins of prepared data: exact, kept beside the data, never silently of other settings."""

import json
import os
import shutil
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from crowdcount.core.bins import POLICIES, WrittenBins
from crowdcount.core.published_bins import PUBLISHED_BINS
from crowdcount.core.types import block_counts
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.errors import BadInputError, ConfigError, InputMissingError, UsageError
from crowdcount.workflows.bins import (
    AUTO,
    BinsTable,
    Source,
    bins_chart,
    bins_path,
    make_bins,
    training_bins,
    write_bins,
    write_table,
)
from crowdcount.workflows.bins_tables import find_table, read_table
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
    bins = training_bins([data], block=16)
    table = BinsTable.from_file(path)
    assert bins == table.bins
    stale = replace(table, histogram=(1, 2, 3), sources=(Source(name="square", manifest="0" * 64),))
    write_bins(data, stale, force=True)
    assert training_bins([data], block=16) == bins
    assert BinsTable.from_file(path) == table


def test_training_takes_the_table_that_is_there(data):
    chosen = make_bins([data], block=8, paper=True, smallest_head=2)
    write_bins(data, chosen)
    assert training_bins([data], block=8) == chosen.bins


@pytest.mark.parametrize(
    "settings",
    [
        {"policy": "coarse", "representatives": "middle"},
        {"policy": "auto"},
        {"policy": PUBLISHED_BINS["sha-r8-t4"]},
        {"policy": WrittenBins(name="mine.toml", starts=(0, 1, 3))},
    ],
)
def test_a_table_made_again_keeps_its_settings(data, settings):
    table = make_bins([data], block=8, **settings)
    stale = replace(table, histogram=(1, 2, 3), sources=(Source(name="square", manifest="0" * 64),))
    path = write_bins(data, stale)
    assert training_bins([data], block=8) == table.bins
    assert BinsTable.from_file(path) == table


def test_training_takes_the_table_that_is_chosen_for_several_sets_too(data, tmp_path):
    write_bins(data, make_bins([data], block=8, policy="coarse"))
    before = bins_path(data, block=8).read_bytes()
    for sets in ([data], [data, data]):
        published = training_bins(sets, block=8, chosen="sha-r8-t4")
        assert published.values == (0, 1, 2, 3, 4.29992)
        starts = training_bins(sets, block=8, chosen="zip-r8")
        assert starts == make_bins([data], block=8, policy=PUBLISHED_BINS["zip-r8"]).bins
        joint = make_bins(sets, block=8, policy="dynamic")
        write_table(tmp_path / "joint.json", joint, force=True)
        assert training_bins(sets, block=8, chosen=str(tmp_path / "joint.json")) == joint.bins
    assert bins_path(data, block=8).read_bytes() == before
    with pytest.raises(UsageError, match=r"blocks of 8 pixels, not 16"):
        training_bins([data], block=16, chosen="sha-r8-t4")


@pytest.mark.parametrize("block", [1, 5, 13, 100, 448, 500])
@pytest.mark.parametrize("policy", [*POLICIES, AUTO])
def test_every_policy_makes_bins_for_blocks_of_any_side(data, block, policy):
    table = make_bins([data], block=block, policy=policy, smallest_head=max(block // 4, 1))
    assert (table.bins.block, table.policy) == (block, policy)
    assert sum(table.windows) == sum(table.histogram)
    heads = sum(count * windows for count, windows in enumerate(table.histogram))
    of_values = sum(v * n for v, n in zip(table.bins.values, table.windows, strict=True))
    assert sum(table.heads) == heads
    assert of_values == pytest.approx(heads)


def test_auto_leaves_no_scarce_bin_where_fine_does(data):
    random = np.random.default_rng(0)
    for record in data.all_training():
        path = data.folder / record.split / "points" / f"{record.file}.npy"
        np.save(path, random.uniform(0, 448, size=(2000, 2)))
    images = tuple(replace(record, heads=2000) for record in data.manifest.images)
    crowded = replace(data, manifest=replace(data.manifest, images=images))
    fine = make_bins([crowded], block=16, smallest_head=2)
    auto = make_bins([crowded], block=16, smallest_head=2, policy=AUTO)
    assert fine.scarce_bins()
    assert not auto.scarce_bins()
    assert set(fine.empty_bins()) <= set(fine.scarce_bins())
    assert 4 < len(auto.bins.starts) < len(fine.bins.starts)


def test_a_block_is_a_window_of_the_grid_on_average(data):
    # What the r x r ways to lay the grid hold, counted one by one, is what the windows say.
    table = make_bins([data], block=8, smallest_head=8)
    occupied = 0.0
    for record in data.all_training():
        points = torch.from_numpy(data.points(record))
        for dx, dy in product(range(8), repeat=2):
            rows, cols = (record.height - dy) // 8, (record.width - dx) // 8
            inside = (points[:, 0] >= dx) & (points[:, 1] >= dy)
            inside &= (points[:, 0] < dx + 8 * cols) & (points[:, 1] < dy + 8 * rows)
            moved = points[inside] - torch.tensor([dx, dy])
            counts = block_counts(moved, height=8 * rows, width=8 * cols, block=8)
            occupied += int((counts > 0).sum()) / 64
    assert table.blocks[1] == pytest.approx(occupied)


def test_the_middle_stands_for_a_bin_when_asked(data):
    written = WrittenBins(name="mine", starts=(0, 1, 4), values=(0.0, 1.1, 5.0))
    given = make_bins([data], block=8, policy=written)
    middle = make_bins([data], block=8, policy=written, representatives="middle")
    average = make_bins([data], block=8, policy=written, representatives="average")
    assert (given.representatives, given.bins.values) == ("given", (0.0, 1.1, 5.0))
    assert (middle.representatives, middle.bins.values) == ("middle", (0.0, 2.0, 4.0))
    assert average.bins == make_bins([data], block=8, policy=replace(written, values=None)).bins


def test_a_published_table_brings_its_values_and_the_data_their_histogram(data):
    table = make_bins([data], block=8, policy=PUBLISHED_BINS["qnrf-r8-t4"])
    assert table.bins.values[-1] == 4.21937
    assert table.histogram == make_bins([data], block=8).histogram
    assert (table.policy, table.smallest_head) == ("qnrf-r8-t4", None)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"policy": "finest"}, "'finest'"),
        ({"representatives": "median"}, "'median'"),
        ({"policy": PUBLISHED_BINS["zip-sha-r16"]}, "blocks of 16 pixels, not 8"),
        ({"policy": PUBLISHED_BINS["zip-r8"], "smallest_head": 4}, "smallest head"),
    ],
)
def test_impossible_choices_are_refused_before_anything_is_counted(settings, complaint):
    with pytest.raises(UsageError, match=complaint):
        make_bins([], block=8, **settings)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mine.json", "[0, 1, 2, 4]"),
        ("mine.json", '{"starts": [0, 1, 2, 4]}'),
        ("mine.toml", "starts = [0, 1, 2, 4]"),
    ],
)
def test_a_table_is_read_from_a_file(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    table = find_table(str(tmp_path / name))
    assert table == WrittenBins(name=name, starts=(0, 1, 2, 4))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("mine.json", "[0, 1"),
        ("mine.json", "[1, 2]"),
        ("mine.toml", "starts: 3"),
        ("mine.toml", "\udcff"),
        ("mine.csv", "0,1,2"),
    ],
)
def test_a_file_that_holds_no_table_is_named(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content, errors="surrogateescape")
    with pytest.raises(BadInputError, match=rf"{name}: not a table of bins") as caught:
        read_table(path)
    assert "starts = [0, 1, 2, 4]" in str(caught.value)


def test_a_table_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputMissingError, match=r"none\.json"):
        find_table(str(tmp_path / "none.json"))
    with pytest.raises(ConfigError, match=r"did you mean 'sha-r8-t4'\?"):
        find_table("sha-r8-t5")


def test_a_joint_table_is_not_mistaken_for_that_of_one_set(data, tmp_path):
    path = tmp_path / "bins.json"
    write_table(path, make_bins([data, data], block=8))
    with pytest.raises(UsageError, match=r"of square \+ square"):
        write_table(path, make_bins([data], block=8))


def test_files_that_know_nothing_of_policies_are_of_fine_bins(data):
    table = make_bins([data], block=8)
    content = table.to_json()
    del content["policy"], content["representatives"]
    path = bins_path(data, block=8)
    path.write_text(json.dumps(content))
    assert BinsTable.from_file(path) == table


def test_a_chart_shows_the_bins_and_the_same_bins_give_the_same_chart(data):
    coarse, fine = (make_bins([data], block=8, policy=each) for each in ("coarse", "fine"))
    assert bins_chart(fine) == bins_chart(fine) != bins_chart(coarse)
    assert bins_chart(make_bins([data], block=500, smallest_head=125))  # no window at all


def test_a_damaged_file_says_how_to_mend_it(data):
    path = bins_path(data, block=8)
    path.write_text('{"bins": 3}')
    with pytest.raises(BadInputError, match=r"bins --force"):
        training_bins([data], block=8)
