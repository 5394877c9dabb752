"""The training loop: steps over batches, one report per epoch."""

import time
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from crowdcount.core.types import Batch
from crowdcount.training.config import TrainConfig
from crowdcount.training.memory import explained_memory, peak_memory
from crowdcount.training.optimiser import OptimConfig
from crowdcount.training.schedule import Moment, ScheduleConfig, learning_rate
from crowdcount.training.state import Cadence, Learner, Progress
from crowdcount.training.step import Criterion, StepResult, take_step


@runtime_checkable
class EpochBatches(Sized, Protocol):
    """The batches of each epoch; ``len`` is their number."""

    def epoch(self, number: int, *, skip: int = 0) -> Iterable[Batch]:
        """Return the batches of epoch ``number`` (from 1 on) without the first ``skip``.

        They depend on the number and the seed alone.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """Losses, rates and times of one epoch."""

    epoch: int
    """From 1 on."""

    steps: int
    """Completed steps of the run."""

    loss: float
    """Mean of the loss over the steps of the epoch."""

    classification: float
    """Mean of the classification term."""

    count: float
    """Mean of the count term."""

    gradient_norm: float | None
    """Mean norm of the gradient before clipping; None if every step overflowed float16."""

    skipped: int
    """Steps without effect, because their gradient overflowed float16."""

    lr: float
    """Learning rate of the last step."""

    encoder_lr: float
    """Learning rate of the encoder."""

    seconds: float
    """Wall time of the steps."""

    waiting: float
    """Share of ``seconds`` spent waiting for data."""

    images: int
    """Crops of this epoch."""

    images_per_second: float
    """Crops per second, waiting included."""

    peak_memory: int
    """Most bytes in use at once so far; see :func:`crowdcount.training.memory.peak_memory`."""

    complete: bool
    """False if a request to stop ended the epoch early."""

    without_gradient: tuple[str, ...] = ()
    """Trained tensors whose gradient was 0 everywhere in the last step. Where that lasts, the units
    behind them are saturated for every input, and they no longer learn."""


def fit(
    learner: Learner,
    criterion: Criterion,
    batches: EpochBatches,
    *,
    train: TrainConfig,
    optim: OptimConfig,
    schedule: ScheduleConfig,
    on_step: Callable[[float], None] | None = None,
    on_checkpoint: Callable[[], None] = lambda: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Iterator[EpochReport]:
    """Train from the position of ``learner``, yielding after each epoch for validation.

    Args:
        learner: The training; changed in place.
        criterion: The loss of one batch.
        batches: The crops of each epoch.
        train: Epochs, pieces of a batch, times of checkpoints.
        optim: Learning rate at the top, and clipping.
        schedule: Shape of the learning rate.
        on_step: Called with the loss after each step.
        on_checkpoint: Called when the state of ``learner`` is to be saved: when it is due, and
            before the training stops on request. At the end of an epoch its report comes first.
        should_stop: Called after each step; True ends the training.

    Raises:
        NotFiniteError: If a loss is not finite; carries the evidence.
        MemoryExhaustedError: If a step needs more memory than there is.
    """
    steps = len(batches)
    cadence = Cadence(train)
    while learner.progress.epoch <= train.epochs:
        learner.model.train()
        stopped = False
        began = time.perf_counter()
        epoch = batches.epoch(learner.progress.epoch, skip=learner.progress.step)
        for batch in epoch:
            waited = time.perf_counter() - began
            done = learner.progress.steps
            moment = Moment(step=done, steps_per_epoch=steps, epochs=train.epochs)
            lr = learning_rate(moment, schedule, lr=optim.lr)
            with explained_memory(batch, step=done + 1, train=train):
                pieces, clip = train.accumulate, optim.clip_norm
                result = take_step(
                    learner, criterion, batch, lr=lr, accumulate=pieces, clip_norm=clip
                )
            seconds = time.perf_counter() - began
            learner.progress = _after(learner.progress, result, seconds=seconds, waited=waited)
            if on_step is not None:
                on_step(result.total)
            if learner.progress.step < steps:
                stopped = should_stop()
                if stopped or cadence.due(learner.progress):
                    on_checkpoint()
                if stopped:
                    break
            began = time.perf_counter()
        encoder_lr = lr if optim.encoder_lr is None else lr * optim.encoder_lr / optim.lr
        report = _report(learner, lr=lr, encoder_lr=encoder_lr, complete=not stopped)
        if not stopped:
            learner.progress = learner.progress.next_epoch()
        yield report
        if stopped or report.epoch == train.epochs:
            return
        stopped = should_stop()
        if stopped or cadence.due(learner.progress):
            on_checkpoint()
        if stopped:
            return


def _after(progress: Progress, result: StepResult, *, seconds: float, waited: float) -> Progress:
    """Add a step to the progress of an epoch."""
    return replace(
        progress,
        step=progress.step + 1,
        steps=progress.steps + 1,
        loss=progress.loss + result.total,
        classification=progress.classification + result.classification,
        count=progress.count + result.count,
        gradient_norm=progress.gradient_norm + (0.0 if result.skipped else result.gradient_norm),
        skipped=progress.skipped + result.skipped,
        images=progress.images + result.images,
        seconds=progress.seconds + seconds,
        waiting=progress.waiting + waited,
    )


def _without_gradient(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the tensors whose gradient is zero everywhere."""
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    if not gradients:
        return ()
    nonzero = torch.stack([gradient.any() for gradient in gradients.values()]).tolist()
    return tuple(name for name, learns in zip(gradients, nonzero, strict=True) if not learns)


def _report(learner: Learner, *, lr: float, encoder_lr: float, complete: bool) -> EpochReport:
    """Compute the means of an epoch from its sums."""
    progress = learner.progress
    steps, effective = progress.step, progress.step - progress.skipped
    return EpochReport(
        epoch=progress.epoch,
        steps=progress.steps,
        loss=progress.loss / steps,
        classification=progress.classification / steps,
        count=progress.count / steps,
        gradient_norm=progress.gradient_norm / effective if effective else None,
        skipped=progress.skipped,
        lr=lr,
        encoder_lr=encoder_lr,
        seconds=progress.seconds,
        waiting=progress.waiting / progress.seconds,
        images=progress.images,
        images_per_second=progress.images / progress.seconds,
        peak_memory=peak_memory(learner.device),
        complete=complete,
        without_gradient=_without_gradient(learner.model),
    )
