"""What a run tells people while it goes on."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowdcount.runs.log import Pace, epoch_in_words
from crowdcount.training.loop import EpochReport

REPORT = EpochReport(
    epoch=3,
    steps=30,
    loss=335.851,
    classification=300.0,
    count=35.851,
    gradient_norm=2.0,
    skipped=0,
    lr=1e-3,
    encoder_lr=1e-3,
    seconds=10.0,
    waiting=0.0,
    images=51,
    images_per_second=5.1,
    peak_memory=1,
    complete=True,
)


def words(report, **changes):
    return epoch_in_words(
        report,
        None,
        sets={},
        split="val",
        **{"epochs": 80, "better": False, "seconds_left": None, **changes},
    )


def test_the_line_of_an_epoch_says_how_long_it_will_go_on():
    assert words(REPORT) == "epoch 3/80  loss 335.85  5.1 images/s"
    assert words(REPORT, better=True, seconds_left=15_130.0).endswith("  best  4 h 12 min left")
    # Nothing is left after the last epoch.
    assert words(REPORT, seconds_left=0.0) == words(REPORT)


@pytest.mark.parametrize(
    ("share", "named"), [(0.0, ""), (0.05, ""), (0.062, "6% waiting for data"), (1.0, "100%")]
)
def test_the_wait_for_data_is_named_where_there_is_much_of_it(share, named):
    said = words(replace(REPORT, waiting=share))
    assert ("waiting" in said) == bool(named)
    assert named in said


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@given(before=st.integers(0, 500), taken=st.integers(1, 400), each=st.floats(0.01, 100))
def test_steps_of_an_earlier_process_do_not_make_this_one_faster(before, taken, each):
    clock = Clock()
    pace = Pace(total=1000, done=before, clock=clock)
    assert pace.seconds_left(before) is None
    clock.now += taken * each
    left = 1000 - before - taken
    assert pace.seconds_left(before + taken) == pytest.approx(left * each)


def test_pauses_between_steps_count():
    clock = Clock()
    pace = Pace(total=30, clock=clock)
    for _ in range(2):  # epochs of ten steps of a second, with ten seconds of validation
        clock.now += 10 * 1.0 + 10
    assert pace.seconds_left(20) == 20.0
