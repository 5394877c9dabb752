"""What changes while a model is trained, and a file of it from which training goes on exactly.

Everything else that decides the weights of a run follows from its settings, its data and the
position: the learning rate from the step, a crop from (seed, epoch, index).
"""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from crowdcount.errors import BadInputError
from crowdcount.files import atomic_file, check_format
from crowdcount.training.average import WeightAverage
from crowdcount.training.config import TrainConfig
from crowdcount.training.optimiser import OptimConfig, build_optimiser
from crowdcount.training.randomness import random_states, restore_random_states

FORMAT = 1
"""Version of the file's content; raised when an older reader would misread a newer file."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is, and what the epoch under way has added up so far."""

    epoch: int = 1
    """The epoch under way, from 1 on."""

    step: int = 0
    """Steps of it that are done."""

    steps: int = 0
    """Steps done since the start of the run."""

    loss: float = 0.0
    """Sum of the totals over the steps of the epoch, as the next two are of their terms."""

    classification: float = 0.0
    count: float = 0.0
    gradient_norm: float = 0.0
    """Sum of the norms of the gradients, but for those of the steps skipped."""

    skipped: int = 0
    images: int = 0
    seconds: float = 0.0
    waiting: float = 0.0
    """Seconds of these that were spent waiting for data."""

    def next_epoch(self) -> "Progress":
        """The beginning of the next epoch."""
        return Progress(epoch=self.epoch + 1, steps=self.steps)


class Learner:
    """Everything that changes while a model is trained, and nothing else.

    Attributes:
        model: On ``device``; changed in place by training.
        optimiser: Over its parameters.
        scaler: Of its losses.
        average: Of its weights, where one is kept.
        progress: How far training is.
        precision: Key into ``PRECISIONS``.
        device: Where the model computes.
    """

    def __init__(
        self, model: nn.Module, *, train: TrainConfig, optim: OptimConfig, device: torch.device
    ) -> None:
        """Prepare to train ``model`` from its first step on.

        Args:
            model: On ``device`` already; called with images in [0, 1].
            train: Its average and precision.
            optim: Its optimiser.
            device: Where the model computes.
        """
        self.model = model
        self.optimiser = build_optimiser(model, optim)
        # Scales the loss so that small gradients survive float16; does nothing for other numbers.
        self.scaler = torch.amp.GradScaler(device.type, enabled=train.precision == "fp16")
        self.average = WeightAverage(model, train.ema_decay) if train.ema_decay else None
        self.progress = Progress()
        self.precision = train.precision
        self.device = device

    @property
    def kept(self) -> nn.Module:
        """The model to validate and keep: the average, where there is one."""
        return self.model if self.average is None else self.average.module

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` needs to go on from here."""
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "progress": asdict(self.progress),
            "random": random_states(self.device),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where :meth:`state_dict` was asked, random generators included."""
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.progress = Progress(**state["progress"])
        restore_random_states(state["random"], self.device)


class Cadence:
    """When the next state is due: by steps, by minutes, or else at the end of every epoch."""

    def __init__(self, train: TrainConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._steps = train.checkpoint_every_steps
        self._minutes = train.checkpoint_every_minutes
        self._clock = clock
        self._last = clock()

    def due(self, progress: Progress) -> bool:
        """Whether to save a state now; if so, the minutes count anew."""
        if self._steps is None and self._minutes is None:
            return progress.step == 0
        by_steps = self._steps is not None and progress.steps % self._steps == 0
        minutes = (self._clock() - self._last) / 60
        if by_steps or (self._minutes is not None and minutes >= self._minutes):
            self._last = self._clock()
            return True
        return False


def save_state(path: Path, learner: Learner, *, run: Mapping[str, Any]) -> None:
    """Write the state of a run, whole or not at all.

    Args:
        path: Where to; an earlier state there is replaced.
        learner: What is trained.
        run: Plain values that :func:`load_state` gives back: what else the run has found so far.
    """
    content = {"format": FORMAT, "learner": learner.state_dict(), "run": dict(run)}
    with atomic_file(path) as temporary, temporary.open("wb") as stream:
        torch.save(content, stream)
        # A state that outlives the process must outlive the power, too, before it replaces one.
        stream.flush()
        os.fsync(stream.fileno())


@dataclass(frozen=True, kw_only=True)
class SavedState:
    """What :func:`save_state` was given."""

    learner: dict[str, Any]
    """For :meth:`Learner.load_state_dict`."""

    run: dict[str, Any]


def load_state(path: Path) -> SavedState:
    """Read a state; runs no code from the file.

    Raises:
        BadInputError: If it is damaged, or of another version.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        version = content["format"]
        state = SavedState(learner=content["learner"], run=content["run"])
    except Exception as error:
        raise BadInputError(
            f"{path}: not a training state, or a damaged one",
            next_step="start the run again, with --force",
        ) from error
    same = "go on with the version of crowdcount that wrote it"
    check_format(path, version, expected=FORMAT, next_step=same)
    return state
