"""The time left is measured on what this process does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowdcount.workflows.pace import Pace


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
