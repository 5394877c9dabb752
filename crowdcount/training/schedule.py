"""The learning rate over a training run, as a pure function of the step."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from crowdcount.core.settings import NaturalInt, NonNegativeFloat, PositiveInt, settings

ScheduleName = Literal["cosine", "restarts"]


@settings("schedule")
class ScheduleConfig:
    """Settings of the learning rate schedule. Its top is ``optim.lr``."""

    name: ScheduleName = "cosine"
    """Shape of the schedule."""

    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """``cosine``: share of the training over which the rate rises linearly from near zero."""

    warmup_epochs: NaturalInt = 50
    """``restarts``: epochs before the first cosine begins."""

    warmup_lr: NonNegativeFloat = 1e-6
    """``restarts``: rate of the first epoch, from which the warm-up leads to the top linearly."""

    period: PositiveInt = 5
    """``restarts``: epochs of the first cosine."""

    period_factor: PositiveInt = 2
    """``restarts``: length of each cosine over that of the one before."""

    min_lr: NonNegativeFloat = 1e-7
    """``restarts``: rate at the end of each cosine."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Position of a step in a training run."""

    step: int
    """Number of steps before it."""

    steps_per_epoch: int
    epochs: int

    @property
    def progress(self) -> float:
        """Completed share of the training after this step, above 0 and at most 1.

        After it, because the first step of a warm-up from zero would otherwise change nothing.
        """
        return (self.step + 1) / (self.steps_per_epoch * self.epochs)

    @property
    def epoch(self) -> int:
        """The epoch of this step, from 0 on."""
        return self.step // self.steps_per_epoch


def learning_rate(moment: Moment, config: ScheduleConfig, *, lr: float) -> float:
    """Return the learning rate of a step, where ``lr`` is the top of the schedule."""
    return SCHEDULES[config.name](moment, config, lr)


def _cosine(moment: Moment, config: ScheduleConfig, lr: float) -> float:
    """Rise linearly over the warm-up, then follow one half-period of a cosine down to zero."""
    if moment.progress < config.warmup:
        return lr * moment.progress / config.warmup
    done = (moment.progress - config.warmup) / (1 - config.warmup)
    return lr * _half_cosine(min(done, 1.0))


def _restarts(moment: Moment, config: ScheduleConfig, lr: float) -> float:
    """Warm up linearly, then follow cosines that restart from the top; constant within an epoch.

    Source:
        The published schedule of CLIP-EBC: Loshchilov and Hutter, "SGDR",
        https://arxiv.org/abs/1608.03983, after a warm-up.
    """
    epoch = moment.epoch
    if epoch < config.warmup_epochs:
        return config.warmup_lr + (lr - config.warmup_lr) * epoch / config.warmup_epochs
    epoch -= config.warmup_epochs
    period = config.period
    while epoch >= period:
        epoch -= period
        period *= config.period_factor
    return config.min_lr + (lr - config.min_lr) * _half_cosine(epoch / period)


def _half_cosine(done: float) -> float:
    """Fall from 1 at 0 to 0 at 1."""
    return 0.5 * (1 + math.cos(math.pi * done))


SCHEDULES: dict[ScheduleName, Callable[[Moment, ScheduleConfig, float], float]] = {
    "cosine": _cosine,
    "restarts": _restarts,
}
"""Schedules: functions of the step, the settings and the rate at the top."""
