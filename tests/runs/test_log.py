"""What a run tells people while it goes on, and for how long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowdcount.runs.log import epoch_summary, time_left

LINE = {
    "epoch": 3,
    "loss": 335.851,
    "waiting": 0.0,
    "images_per_second": 5.1,
    "val": None,
    "best": False,
}
METRICS = {"mae": 7.5, "rmse": 9.25}


def summary(*, seconds_left=0.0, **changes):
    return epoch_summary(LINE | changes, split="val", epochs=80, seconds_left=seconds_left)


def test_the_summary_of_an_epoch_says_how_long_the_run_still_takes():
    assert summary() == "epoch 3/80  loss 335.85  5.1 images/s"
    assert summary(best=True, seconds_left=15_130.0).endswith("  best  4 h 12 min left")
    # Nothing is left after the last epoch.
    assert summary(seconds_left=0.0) == summary()


def test_a_validation_is_in_the_summary_and_that_of_each_set_where_there_are_several():
    assert summary(val=METRICS).endswith("  val MAE 7.50 RMSE 9.25")
    sets = {"sha": METRICS, "shb": {"mae": 2.0, "rmse": 3.0}}
    assert summary(val=METRICS, val_sets=sets).endswith("RMSE 9.25 (sha 7.50, shb 2.00)")


@pytest.mark.parametrize(
    ("share", "named"), [(0.0, ""), (0.05, ""), (0.062, "6% waiting for data"), (1.0, "100%")]
)
def test_the_wait_for_data_is_named_where_there_is_much_of_it(share, named):
    text = summary(waiting=share)
    assert ("waiting" in text) == bool(named)
    assert named in text


@given(before=st.integers(0, 500), taken=st.integers(1, 400), each=st.floats(0.01, 100))
def test_steps_of_an_earlier_process_do_not_make_this_one_faster(before, taken, each):
    steps = before + taken
    left = time_left(steps, total=1000, before=before, seconds=taken * each)
    assert left == pytest.approx((1000 - steps) * each)
