"""The state of a training run, and the file from which it is resumed exactly.

Everything else that decides the weights of a run follows from its settings, its data and the
position: the learning rate from the step, a crop from (seed, epoch, index).
"""

import copy
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
from crowdcount.training.config import TrainConfig
from crowdcount.training.optimiser import OptimConfig, build_optimiser
from crowdcount.training.randomness import random_states, restore_random_states

FORMAT = 1
"""Version of the file's content; raised when an older reader would misread a newer file."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Position of a run, and the sums over the current epoch so far."""

    epoch: int = 1
    """The current epoch, from 1 on."""

    step: int = 0
    """Completed steps of the epoch."""

    steps: int = 0
    """Completed steps of the run."""

    loss: float = 0.0
    """Sum of the loss over the steps of the epoch; the next two are sums of its terms."""

    classification: float = 0.0
    count: float = 0.0
    gradient_norm: float = 0.0
    """Sum of the norms of the gradients, without the steps skipped."""

    skipped: int = 0
    images: int = 0
    seconds: float = 0.0
    waiting: float = 0.0
    """Those of ``seconds`` spent waiting for data."""

    def next_epoch(self) -> "Progress":
        """Return the beginning of the next epoch."""
        return Progress(epoch=self.epoch + 1, steps=self.steps)


class WeightAverage:
    """Exponential moving average of a model's weights and batch-norm statistics.

    The decay rises with the number of updates as (1 + n) / (10 + n) up to its setting, so that the
    random initial weights are soon forgotten.

    Attributes:
        module: The model with averaged weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(model).requires_grad_(requires_grad=False)
        self._decay = decay
        self._updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Add the weights of ``model`` to the average; the first ones replace it."""
        updates = self._updates
        decay = min(self._decay, (1 + updates) / (10 + updates)) if updates else 0.0
        current = model.state_dict()
        for name, average in self.module.state_dict().items():
            if average.is_floating_point():
                average.lerp_(current[name], 1 - decay)
            else:
                average.copy_(current[name])
        self._updates += 1

    def state_dict(self) -> dict[str, Any]:
        """Return the state for :meth:`load_state_dict`."""
        return {"module": self.module.state_dict(), "updates": self._updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that :meth:`state_dict` returned."""
        self.module.load_state_dict(state["module"])
        self._updates = int(state["updates"])


class Learner:
    """Everything that changes while a model is trained.

    Attributes:
        model: On ``device``; changed in place by training.
        optimiser: Updates its parameters.
        scaler: Scales its losses so that small gradients survive float16; idle otherwise.
        average: The average of its weights, if one is kept.
        progress: The position of the training.
        precision: Key into ``PRECISIONS``.
        device: Where the model computes.
    """

    def __init__(
        self, model: nn.Module, *, train: TrainConfig, optim: OptimConfig, device: torch.device
    ) -> None:
        """Prepare to train ``model``, which is on ``device`` and takes images in [0, 1]."""
        self.model = model
        self.optimiser = build_optimiser(model, optim)
        self.scaler = torch.amp.GradScaler(device.type, enabled=train.precision == "fp16")
        self.average = WeightAverage(model, train.ema_decay) if train.ema_decay else None
        self.progress = Progress()
        self.precision = train.precision
        self.device = device

    @property
    def validated_model(self) -> nn.Module:
        """The model to validate and keep: the average, if there is one."""
        return self.model if self.average is None else self.average.module

    def state_dict(self) -> dict[str, Any]:
        """Return the state for :meth:`load_state_dict`."""
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "progress": asdict(self.progress),
            "random": random_states(self.device),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state that :meth:`state_dict` returned, random generators included."""
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.progress = Progress(**state["progress"])
        restore_random_states(state["random"], self.device)


class Cadence:
    """Decides when to save a state: by steps, by minutes, or else after every epoch."""

    def __init__(self, train: TrainConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._steps = train.checkpoint_every_steps
        self._minutes = train.checkpoint_every_minutes
        self._clock = clock
        self._last = clock()

    def due(self, progress: Progress) -> bool:
        """Return whether to save a state now; if so, the minutes are counted anew."""
        if self._steps is None and self._minutes is None:
            return progress.step == 0
        by_steps = self._steps is not None and progress.steps % self._steps == 0
        minutes = (self._clock() - self._last) / 60
        if by_steps or (self._minutes is not None and minutes >= self._minutes):
            self._last = self._clock()
            return True
        return False


def save_state(path: Path, learner: Learner, *, run: Mapping[str, Any]) -> None:
    """Write the state of a run atomically, replacing an earlier one.

    Args:
        path: The file.
        learner: The training.
        run: Plain values that :func:`load_state` returns: results of the run so far.
    """
    content = {"format": FORMAT, "learner": learner.state_dict(), "run": dict(run)}
    with atomic_file(path) as temporary, temporary.open("wb") as stream:
        torch.save(content, stream)
        # The state must survive a power failure before it replaces the earlier one.
        stream.flush()
        os.fsync(stream.fileno())


@dataclass(frozen=True, kw_only=True)
class SavedState:
    """The content of a state file."""

    learner: dict[str, Any]
    """For :meth:`Learner.load_state_dict`."""

    run: dict[str, Any]


def load_state(path: Path) -> SavedState:
    """Read a state file; runs no code from it.

    Raises:
        BadInputError: If it is damaged or of another version.
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
    again = "go on with the version of crowdcount that wrote it"
    check_format(path, version, expected=FORMAT, next_step=again)
    return state
