"""The learning rate rises over the warm-up and falls along cosines."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowdcount.errors import ConfigError
from crowdcount.training.schedule import SCHEDULES, Moment, ScheduleConfig, learning_rate

CONFIG = ScheduleConfig(warmup=0.1)
TOP = 2e-3
GOLDEN = Path(__file__).parents[1] / "golden" / "lr_schedule.json"


def cosine(step, config=CONFIG):
    """The rate of a step of 20 epochs of 5 steps."""
    return learning_rate(Moment(step=step, steps_per_epoch=5, epochs=20), config, lr=TOP)


@pytest.mark.parametrize("name", SCHEDULES)
@given(st.integers(0, 99), st.integers(1, 7))
def test_never_leaves_its_range(name, step, steps):
    config = ScheduleConfig(name=name, warmup_epochs=3)
    moment = Moment(step=step, steps_per_epoch=steps, epochs=100)
    assert 0 <= learning_rate(moment, config, lr=TOP) <= TOP * (1 + 1e-12)


def test_cosine_rises_then_falls_to_nothing():
    rates = [cosine(step) for step in range(100)]
    assert rates[:10] == sorted(rates[:10])
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert 0 < rates[0] < TOP
    assert rates[9] == TOP
    assert rates[-1] == pytest.approx(0.0, abs=1e-12)


def test_cosine_by_hand():
    assert cosine(4) == pytest.approx(1e-3)
    assert cosine(54) == pytest.approx(1e-3)


def test_without_warm_up_the_cosine_is_near_the_top_at_once():
    assert cosine(0, ScheduleConfig(warmup=0.0)) == pytest.approx(TOP, rel=1e-3)


@pytest.mark.parametrize(
    ("fixture", "warmup_lr"), [("default_warmup_lr_1e-6", 1e-6), ("warmup_lr_1e-3", 1e-3)]
)
def test_restarts_are_the_published_schedule(fixture, warmup_lr):
    config = ScheduleConfig(name="restarts", warmup_lr=warmup_lr)
    published = json.loads(GOLDEN.read_text())[fixture]
    for epoch, rate in published.items():
        # Every step of an epoch has its rate.
        for step in (0, 6):
            moment = Moment(step=int(epoch) * 7 + step, steps_per_epoch=7, epochs=2600)
            assert learning_rate(moment, config, lr=1e-4) == pytest.approx(rate, rel=1e-9), epoch


@pytest.mark.parametrize(
    ("setting", "by_hand"),
    [
        # Two epochs of warm-up, then a cosine of four: 1e-3, 2e-3 | 1, cos 1/4, 1/2, 3/4 of it.
        ({}, {0: 0.0, 1: 1e-3, 2: 2e-3, 4: 1e-3, 6: 2e-3, 10: 1e-3}),
        ({"warmup_lr": 1e-3}, {0: 1e-3, 1: 1.5e-3}),
        ({"warmup_epochs": 4}, {2: 1e-3, 4: 2e-3, 6: 1e-3}),
        ({"period": 2}, {2: 2e-3, 3: 1e-3, 4: 2e-3}),
        ({"period_factor": 1}, {6: 2e-3, 8: 1e-3, 10: 2e-3}),
        ({"min_lr": 1e-3}, {2: 2e-3, 4: 1.5e-3}),
    ],
)
def test_every_setting_of_restarts_acts(setting, by_hand):
    settings = {"warmup_epochs": 2, "warmup_lr": 0.0, "period": 4, "min_lr": 0.0} | setting
    config = ScheduleConfig(name="restarts", **settings)
    for epoch, rate in by_hand.items():
        moment = Moment(step=epoch, steps_per_epoch=1, epochs=20)
        assert learning_rate(moment, config, lr=2e-3) == pytest.approx(rate), epoch


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "cosin"},
        {"warmup": 1.0},
        {"warmup_epochs": -1},
        {"warmup_lr": -1e-9},
        {"period": 0},
        {"period_factor": 0},
        {"min_lr": math.nan},
    ],
)
def test_nonsense_is_refused_by_name(wrong):
    with pytest.raises(ConfigError, match=rf"schedule\.{next(iter(wrong))}"):
        ScheduleConfig(**wrong)
