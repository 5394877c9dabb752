"""The training loop: steps over batches, running averages of weights, one report an epoch."""

import time
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from pydantic import ConfigDict
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from crowdcount.core.types import Batch, BlockPrediction, BlockTarget
from crowdcount.errors import ConfigError, DivergedError
from crowdcount.training.schedule import OptimConfig, build_optimiser, learning_rate


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of a training run that belong to no single component."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    epochs: int = 200
    """Passes over the training images."""

    batch_size: int = 8
    """Crops a step."""

    crop: int | None = None
    """Side of the square training crops in pixels; none: what the backbone is usually given."""

    seed: int = 42
    """Seed of weights, order and augmentation."""

    workers: int | None = None
    """Processes that prepare crops; none: one less than there are processors, four at most."""

    validate_every: int = 1
    """Epochs between two validations; the last epoch is always validated."""

    ema_decay: float = 0.0
    """Decay a step of the averaged weights that are validated and kept; 0 keeps the plain ones."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "validate_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"train.{name} must be at least 1, got {getattr(self, name)}")
        if self.crop is not None and self.crop < 32:
            raise ConfigError(f"train.crop must be at least 32 pixels, got {self.crop}")
        if self.seed < 0:
            raise ConfigError(f"train.seed must be >= 0, got {self.seed}")
        if self.workers is not None and self.workers < 0:
            raise ConfigError(f"train.workers must be >= 0, got {self.workers}")
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"train.ema_decay must be in [0, 1), got {self.ema_decay}")


@runtime_checkable
class Terms(Protocol):
    """What a criterion gives: the scalar to minimise and the parts it is made of."""

    @property
    def total(self) -> Tensor:
        """What is minimised."""
        ...

    @property
    def classification(self) -> Tensor:
        """Cross-entropy over the bins."""
        ...

    @property
    def count(self) -> Tensor:
        """The count term, not weighted."""
        ...


@runtime_checkable
class EpochBatches(Sized, Protocol):
    """The batches of each epoch, as many in each as ``len`` says."""

    def epoch(self, number: int) -> Iterable[Batch]:
        """The batches of one epoch, which depend on its number and the seed alone."""
        ...


Criterion = Callable[[BlockPrediction, BlockTarget], Terms]
"""From a prediction and its target to the terms of the loss."""


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """What happened in one epoch."""

    epoch: int
    """From 1 on."""

    steps: int
    """Steps done since the start of the run."""

    loss: float
    """Mean of the total over the steps of the epoch; NaN where the epoch had no step."""

    classification: float
    """Mean of the classification term."""

    count: float
    """Mean of the count term."""

    lr: float
    """Learning rate of the last step."""

    seconds: float
    """Wall time of the steps."""

    waiting: float
    """Share of ``seconds`` spent waiting for data."""

    images: int
    """Crops seen in this epoch."""

    complete: bool
    """False where the epoch was cut short by a request to stop."""


class WeightAverage(nn.Module):
    """Exponential moving average of a model's weights and batch-norm statistics.

    The decay rises with the number of updates as (1 + n) / (10 + n) up to its setting, so that the
    random weights of the start are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()

        def update(average: Tensor, value: Tensor, updates: Tensor | int) -> Tensor:
            if not average.is_floating_point():
                return value
            rising = min(decay, (1 + int(updates)) / (10 + int(updates)))
            return average.lerp(value, 1 - rising)

        self.average = AveragedModel(model, avg_fn=update, use_buffers=True)

    @property
    def module(self) -> nn.Module:
        """The model with averaged weights."""
        return self.average.module

    def update(self, model: nn.Module) -> None:
        """Take the weights of ``model`` into the average."""
        self.average.update_parameters(model)


def move_target(target: BlockTarget, device: torch.device) -> BlockTarget:
    """The same target on another device."""
    return BlockTarget(
        counts=target.counts.to(device, non_blocking=True),
        points=tuple(points.to(device, non_blocking=True) for points in target.points),
        heads=target.heads.to(device, non_blocking=True),
        block=target.block,
    )


def fit(
    model: nn.Module,
    criterion: Criterion,
    batches: EpochBatches,
    *,
    train: TrainConfig,
    optim: OptimConfig,
    device: torch.device,
    average: WeightAverage | None = None,
    on_step: Callable[[float], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[EpochReport]:
    """Train ``model`` in place, yielding after each epoch so that the caller can validate and save.

    Args:
        model: On ``device`` already; called with images in [0, 1].
        criterion: The loss of one batch.
        batches: Where the crops of each epoch come from.
        train: How long, how large.
        optim: Optimiser and schedule.
        device: Where the model computes.
        average: Updated after each step, where given.
        on_step: Called with the loss after each step.
        should_stop: Asked after each step; True ends the training after that step.

    Raises:
        DivergedError: If a loss is not finite; names the step, the images and the term.
    """
    optimiser = build_optimiser(model, optim)
    total_steps = len(batches) * train.epochs
    step = 0
    for epoch in range(1, train.epochs + 1):
        model.train()
        sums = torch.zeros(3, dtype=torch.float64)
        started = asked = time.perf_counter()
        waited, images, steps_before, lr = 0.0, 0, step, 0.0
        for batch in batches.epoch(epoch):
            waited += time.perf_counter() - asked
            # The first step of a warm-up from zero would otherwise change nothing.
            lr = learning_rate((step + 1) / total_steps, optim)
            for group in optimiser.param_groups:
                group["lr"] = lr
            pixels = batch.images.to(device, memory_format=torch.channels_last)
            terms = criterion(model(pixels), move_target(batch.target, device))
            parts = torch.stack([terms.total, terms.classification, terms.count]).detach().cpu()
            sums += parts
            _require_finite(parts, step=step + 1, epoch=epoch, names=batch.names)
            optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(terms.total)
            optimiser.step()
            if average is not None:
                average.update(model)
            step += 1
            images += len(batch.names)
            if on_step is not None:
                on_step(float(parts[0]))
            if should_stop():
                break
            asked = time.perf_counter()
        steps, seconds = step - steps_before, time.perf_counter() - started
        means = (sums / steps).tolist()
        complete = steps == len(batches)
        yield EpochReport(
            epoch=epoch,
            steps=step,
            loss=means[0],
            classification=means[1],
            count=means[2],
            lr=lr,
            seconds=seconds,
            waiting=waited / seconds,
            images=images,
            complete=complete,
        )
        if should_stop():
            return


def _require_finite(parts: Tensor, *, step: int, epoch: int, names: tuple[str, ...]) -> None:
    """Stop at a loss that is not finite, before it reaches the weights."""
    if torch.isfinite(parts).all():
        return
    named = zip(("total", "classification", "count"), parts.tolist(), strict=True)
    values = ", ".join(f"{name} {value:g}" for name, value in named)
    raise DivergedError(
        f"training diverged at step {step} (epoch {epoch}): {values}",
        looked_for=f"finite losses; the batch was {', '.join(names)}",
        next_step="lower the learning rate (--lr), or look at these images",
    )
