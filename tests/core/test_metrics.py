import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowdcount.core.metrics import count_metrics

heads = st.integers(0, 10**8).map(lambda thousandths: thousandths / 1000)
pairs = st.lists(st.tuples(heads, heads), min_size=1, max_size=30)


def metrics_of(counts):
    return count_metrics([predicted for predicted, _ in counts], [true for _, true in counts])


def test_metrics_by_hand():
    # Errors 10, 2 and 5; the empty scene has no relative error.
    metrics = count_metrics([110.0, 18.0, 5.0], [100.0, 20.0, 0.0])
    assert metrics.mae == pytest.approx(17 / 3)
    assert metrics.rmse == pytest.approx(math.sqrt((100 + 4 + 25) / 3))
    assert metrics.nae == pytest.approx((10 / 100 + 2 / 20) / 2)
    assert metrics.images == 3


@given(st.lists(heads, min_size=1, max_size=30))
def test_exact_counts_have_no_error(true):
    metrics = count_metrics(true, true)
    assert (metrics.mae, metrics.rmse) == (0, 0)
    assert metrics.nae == (0 if any(true) else None)


@given(pairs)
def test_rmse_is_at_least_mae(counts):
    metrics = metrics_of(counts)
    assert metrics.rmse >= metrics.mae * (1 - 1e-12)


@given(pairs, st.randoms(use_true_random=False))
def test_the_order_of_the_images_does_not_matter(counts, random):
    shuffled = random.sample(counts, len(counts))
    assert metrics_of(shuffled) == metrics_of(counts)


def test_empty_scenes_alone_have_no_nae():
    assert count_metrics([1.0], [0.0]).nae is None


@pytest.mark.parametrize(("predicted", "true"), [([], []), ([1.0], [1.0, 2.0]), ([1.0], [])])
def test_counts_that_do_not_pair_up_are_refused(predicted, true):
    with pytest.raises(ValueError, match="as many predicted as true"):
        count_metrics(predicted, true)
