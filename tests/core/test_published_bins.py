import re

import pytest

from crowdcount.core.bins import POLICIES, Bins
from crowdcount.core.published_bins import PUBLISHED_BINS


@pytest.mark.parametrize("name", PUBLISHED_BINS)
def test_every_published_average_lies_in_its_bin(name):
    table = PUBLISHED_BINS[name]
    if table.values is not None:
        bins = Bins(block=table.block, starts=table.starts, values=table.values)
        for (low, high), value in zip(bins.ranges, bins.values, strict=True):
            assert low <= value
            assert high is None or value <= high
            assert value == low or low != high


@pytest.mark.parametrize("name", PUBLISHED_BINS)
def test_every_published_table_has_its_name_and_source(name):
    table = PUBLISHED_BINS[name]
    assert table.name == name
    assert f"-r{table.block}" in name
    assert re.search(r"commit [0-9a-f]{7}", table.source)


@pytest.mark.parametrize("name", [each for each in PUBLISHED_BINS if not each.startswith("zip-")])
def test_the_policies_make_the_published_tables(name):
    max_count, policy = re.fullmatch(r"[a-z]+-r\d+-t(\d+)(?:-(\w+))?", name).groups()
    assert POLICIES[policy or "fine"](int(max_count)) == PUBLISHED_BINS[name].starts


def test_averages_of_finite_bins_lean_to_their_lower_edge():
    # Blocks with few heads are more common than blocks with many, everywhere.
    for name in ("qnrf-r16-t8-dynamic", "qnrf-r32-t19-dynamic", "qnrf-r32-t19-coarse"):
        table = PUBLISHED_BINS[name]
        pairs = zip(table.starts, table.starts[1:], table.values, strict=False)
        assert all(low < value < low + 0.5 for low, end, value in pairs if end - low == 2)


@pytest.mark.parametrize(
    ("name", "last"),
    [("zip-r8", 4), ("zip-sha-r16", 15), ("zip-shb-r16", 9), ("zip-qnrf-r16", 13)],
)
def test_the_tables_of_zip_give_starts_only(name, last):
    assert PUBLISHED_BINS[name].values is None
    assert PUBLISHED_BINS[name].starts[-1] == last
