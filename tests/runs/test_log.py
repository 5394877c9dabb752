"""What a run tells people while it goes on, and for how long."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowdcount.errors import BadInputError
from crowdcount.runs.log import draw_curves, epoch_summary, read_log, time_left

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


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"epoch": None}, "epoch"),
        ({"seconds": "a while"}, "seconds"),
        ({"images": 10**400}, "images"),
        ({"images": None}, "images"),
        ({"loss": float("nan")}, "loss"),
        ({"val": {"mae": "low", "rmse": 1.0, "nae": None, "images": 1}}, "val.mae"),
        ({"val": {"mae": 1.0}}, "val.rmse"),
        ({"best": 1}, "best"),
    ],
)
def test_a_line_of_a_log_with_another_type_is_named(tmp_path, changes, named):
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(LINE) + "\n" + json.dumps(LINE | changes) + "\n")
    with pytest.raises(BadInputError, match=f"line 2 is not part of a run's log: {named}: "):
        read_log(path)


def test_a_log_of_an_earlier_version_is_read(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(LINE | {"kept": 3}) + '\n{"epoch": 4}\n{"half a li')
    assert read_log(path) == [LINE, {"epoch": 4}]


def test_the_curves_of_a_log_are_drawn_and_times_do_not_change_them():
    line = LINE | {"classification": 330.0, "count": 5.851, "lr": 1e-4, "encoder_lr": 1e-5}
    sets = {"sha": METRICS, "shb": {"mae": 2.0, "rmse": 3.0}}
    log = [line | {"epoch": 1}, line | {"epoch": 2, "val": METRICS, "val_sets": sets}]
    curves = draw_curves(log, title="ours", split="val")
    assert curves.startswith(b"\x89PNG\r\n")
    timed = [each | {"seconds": 9.0, "waiting": 0.5} for each in log]
    assert draw_curves(timed, title="ours", split="val") == curves
    for changed in (log[:1], [log[0], log[1] | {"lr": 1e-5}], [log[0], log[1] | {"val_sets": {}}]):
        assert draw_curves(changed, title="ours", split="val") != curves
