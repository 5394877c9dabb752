"""The training loop: steps over batches, one report an epoch."""

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
    """The batches of each epoch, as many in each as ``len`` says."""

    def epoch(self, number: int, *, skip: int = 0) -> Iterable[Batch]:
        """The batches of one epoch, which depend on its number and the seed alone.

        Args:
            number: From 1 on.
            skip: Leave out so many at the beginning.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class EpochReport:
    """What happened in one epoch."""

    epoch: int
    """From 1 on."""

    steps: int
    """Steps done since the start of the run."""

    loss: float
    """Mean of the total over the steps of the epoch."""

    classification: float
    """Mean of the classification term."""

    count: float
    """Mean of the count term."""

    gradient_norm: float | None
    """Mean norm of the gradient before clipping; None where no step had one that fits float16."""

    skipped: int
    """Steps without effect, because their gradient did not fit float16."""

    lr: float
    """Learning rate of the last step."""

    encoder_lr: float
    """That of the encoder."""

    seconds: float
    """Wall time of the steps."""

    waiting: float
    """Share of ``seconds`` spent waiting for data."""

    images: int
    """Crops seen in this epoch."""

    images_per_second: float
    """Crops a second, waiting included."""

    peak_memory: int
    """The most bytes in use at once so far, as of
    :func:`crowdcount.training.memory.peak_memory`."""

    complete: bool
    """False where the epoch was cut short by a request to stop."""

    without_gradient: tuple[str, ...] = ()
    """Trained tensors whose gradient was 0 throughout in the last step: what they weigh is behind
    units that no longer answer, such as ones that every input saturates, and they stay as they
    are."""


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
    """Train from where ``learner`` is, yielding after each epoch so that the caller can validate.

    Args:
        learner: What is trained; changed in place.
        criterion: The loss of one batch.
        batches: Where the crops of each epoch come from.
        train: How long, how large, when to checkpoint.
        optim: Learning rate at the top, and clipping.
        schedule: Way of the learning rate.
        on_step: Called with the loss after each step.
        on_checkpoint: Called when the state of ``learner`` is to be saved: when it is due, and
            before a request to stop is followed. At the end of an epoch the caller was given its
            report before.
        should_stop: Asked after each step; True ends the training after that step.

    Raises:
        NotFiniteError: If a loss is not finite; carries what reproduces it.
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
                result = take_step(
                    learner,
                    criterion,
                    batch,
                    lr=lr,
                    accumulate=train.accumulate,
                    clip_norm=optim.clip_norm,
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
        report = _report(
            learner.progress,
            lr=lr,
            encoder_lr=lr if optim.encoder_lr is None else lr * optim.encoder_lr / optim.lr,
            peak=peak_memory(learner.device),
            complete=not stopped,
            without_gradient=_without_gradient(learner.model),
        )
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
    """One step further."""
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
    """Names of the tensors that have a gradient, and one of nothing but zeros."""
    gradients = [(name, each.grad) for name, each in model.named_parameters()]
    there = {name: gradient for name, gradient in gradients if gradient is not None}
    if not there:
        return ()
    answers = torch.stack([gradient.any() for gradient in there.values()]).tolist()
    return tuple(name for name, answer in zip(there, answers, strict=True) if not answer)


def _report(
    progress: Progress,
    *,
    lr: float,
    encoder_lr: float,
    peak: int,
    complete: bool,
    without_gradient: tuple[str, ...],
) -> EpochReport:
    """Means of an epoch from its sums."""
    steps = progress.step
    effective = steps - progress.skipped
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
        peak_memory=peak,
        complete=complete,
        without_gradient=without_gradient,
    )
