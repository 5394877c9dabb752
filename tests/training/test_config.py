"""Settings of a run that make no sense are refused by name."""

import dataclasses
import math

import pytest

from crowdcount.errors import ConfigError
from crowdcount.training.config import FREE_ON_RESUME, TrainConfig


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"crops_per_image": 0},
        {"accumulate": 0},
        {"accumulate": 9},
        {"validate_every": 0},
        {"crop": 31},
        {"precision": "fp8"},
        {"seed": -1},
        {"workers": -1},
        {"select_on": "train"},
        {"patience": -1},
        {"keep_best": 0},
        {"ema_decay": 1.0},
        {"checkpoint_every_steps": 0},
        {"checkpoint_every_minutes": 0.0},
        {"checkpoint_every_minutes": math.inf},
    ],
)
def test_nonsense_is_refused_by_name(wrong):
    with pytest.raises(ConfigError, match=rf"train\.{next(iter(wrong))}"):
        TrainConfig(**wrong)


def test_what_may_change_on_resume_are_settings():
    names = {f"train.{field.name}" for field in dataclasses.fields(TrainConfig)}
    assert set(FREE_ON_RESUME) < names
