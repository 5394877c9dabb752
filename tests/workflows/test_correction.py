"""What the correction touches: by hand, as the manifest says, and with no head lost."""

import io
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.data.prepared.manifest import PreprocessConfig
from crowdcount.errors import UsageError
from crowdcount.workflows.correction import correction, correction_table, corrections, percent
from crowdcount.workflows.preprocess import preprocess

REAL = os.environ.get("CROWDCOUNT_TEST_DATA")

tallies = st.dictionaries(st.integers(1, 80), st.integers(1, 500)).map(Counter)


def of(tally, *, block=8, smallest_head=4):
    return correction(tally, split="train", block=block, smallest_head=smallest_head)


@given(tallies, st.integers(1, 40), st.integers(1, 40))
def test_what_is_left_and_what_is_cut_make_all_heads(tally, block, smallest_head):
    found = of(tally, block=block, smallest_head=smallest_head)
    left = sum(min(count, found.max_count) * number for count, number in tally.items())
    assert left + found.heads_cut == found.heads
    assert found.blocks_corrected <= min(found.heads_cut, found.blocks)
    assert (found.heads_cut > 0) == (found.fullest > found.max_count)
    assert 0 <= found.heads_share < 1
    assert 0 <= found.blocks_share <= 1


def test_by_hand():
    # 7 blocks of 1, two of 5 and one of 9 heads; m = 4 cuts 1 + 1 + 5 of 26.
    found = of(Counter({1: 7, 5: 2, 9: 1}))
    assert (found.max_count, found.blocks, found.blocks_corrected) == (4, 10, 3)
    assert (found.heads, found.heads_cut, found.fullest) == (26, 7, 9)
    assert (found.blocks_share, found.heads_share) == (0.3, 7 / 26)


def test_a_split_without_heads_has_nothing_to_cut():
    found = of(Counter())
    assert (found.blocks, found.heads, found.fullest, found.heads_share) == (0, 0, 0, 0.0)


@given(st.lists(st.integers(1, 900), min_size=1, max_size=4, unique=True))
def test_raw_counts_sum_to_the_heads_for_every_r(prepared, blocks):
    found = corrections(prepared, blocks=blocks, smallest_heads=[4])
    assert {each.block for each in found} == set(blocks)
    for each in found:
        assert each.heads == prepared.manifest.totals[each.split].heads


@pytest.mark.parametrize(("block", "smallest_head"), [(8, 4), (64, 64), (100, 100)])
def test_the_report_says_what_the_preparation_says(scenes, tmp_path, block, smallest_head):
    config = PreprocessConfig(block=block, smallest_head=smallest_head)
    (result,) = preprocess(scenes, out=tmp_path / "out", config=config)
    data = PreparedDataset.open(result.folder)
    found = corrections(data, blocks=[block], smallest_heads=[smallest_head])
    assert {each.split: (each.heads, each.blocks_corrected, each.heads_cut) for each in found} == {
        split: (total.heads, total.blocks_corrected, total.heads_cut)
        for split, total in data.manifest.totals.items()
    }
    counts = [np.load(path)["raw"] for path in (data.folder / "train" / "blocks").iterdir()]
    train = next(each for each in found if each.split == "train")
    assert train.blocks == sum((each > 0).sum() for each in counts)
    assert train.fullest == max(each.max() for each in counts)
    # Otherwise the comparison above is one of zeros.
    assert train.heads_cut > 0 or (block, smallest_head) == (8, 4)


def test_rows_come_by_split_r_and_s_once_each(prepared):
    found = corrections(prepared, blocks=[16, 8, 16], smallest_heads=[4, 2])
    assert [(each.split, each.block, each.smallest_head) for each in found] == [
        (split, block, head) for split in ("train", "test") for block in (8, 16) for head in (2, 4)
    ]


@pytest.mark.parametrize("wrong", [{"blocks": [0]}, {"smallest_heads": [4, -1]}])
def test_nonsense_is_refused(prepared, wrong):
    with pytest.raises(UsageError, match="at least 1 pixel"):
        corrections(prepared, **wrong)


def test_the_picture_frames_the_settings_of_the_set_where_they_are_shown(prepared):
    shown = corrections(prepared)
    framed = correction_table(shown, prepared)
    assert Image.open(io.BytesIO(framed)).width > 400
    given_count = PreprocessConfig(max_count=3)
    elsewhere = replace(prepared, manifest=replace(prepared.manifest, settings=given_count))
    assert correction_table(shown, elsewhere) != framed


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0%"), (0.000843, "0.084%"), (0.0311, "3.1%"), (0.0996, "10%"), (0.52, "52%")],
)
def test_shares_for_people(share, text):
    assert percent(share) == text


@pytest.mark.skipif(REAL is None, reason="CROWDCOUNT_TEST_DATA names no data")
def test_part_a_is_cut_as_it_was_prepared(tmp_path):
    (result,) = preprocess(Path(str(REAL)) / "ShanghaiTech" / "part_A", out=tmp_path, jobs=2)
    data = PreparedDataset.open(result.folder)
    for each in corrections(data, blocks=[8], smallest_heads=[4]):
        total = data.manifest.totals[each.split]
        assert (each.blocks_corrected, each.heads_cut) == (total.blocks_corrected, total.heads_cut)
    train = corrections(data, blocks=[8], smallest_heads=[4])[0]
    assert (train.blocks, train.blocks_corrected, train.heads_cut) == (150069, 111, 137)
