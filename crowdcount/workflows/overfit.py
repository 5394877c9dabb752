"""Check that a set-up can learn at all, by training on a few fixed crops."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import numpy as np
import torch

from crowdcount.config import RunConfig
from crowdcount.core.device import resolve_device
from crowdcount.core.image import Sample
from crowdcount.core.progress import Track, untracked
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.data.training.augment import no_augmentation
from crowdcount.data.training.batches import FixedBatches, TrainingCrops
from crowdcount.errors import UsageError
from crowdcount.losses.dace import dace_loss
from crowdcount.models.block_counter import BlockCounter
from crowdcount.training.loop import fit
from crowdcount.training.schedule import ScheduleConfig
from crowdcount.training.state import Learner
from crowdcount.workflows.counter import whole_image_model
from crowdcount.workflows.plan import (
    TrainingSamples,
    TrainPlan,
    first_bins,
    first_model,
    initial_checkpoint,
    plan_training,
)
from crowdcount.workflows.train import Watcher

MOST_PASSES = 200
"""Largest number of passes over the crops; ``train.epochs`` may ask for fewer."""

LOSS_SHARE = 0.25
"""Share of its first value to which the loss must fall."""

COUNT_ERROR = 0.2
"""Largest error of the crops' counts, as a share of their heads."""


@dataclass(frozen=True, kw_only=True)
class OverfitResult:
    """Loss and errors on a few fixed crops, before and after training on them."""

    crops: int
    heads: int
    steps: int
    loss_before: float
    """Mean over the first pass."""

    loss_after: float
    """Mean over the last pass."""

    count_error_before: float
    """Sum of absolute count errors divided by the heads of the crops, before the first step."""

    count_error_after: float
    """The same after the last step, with the weights that training keeps."""

    @property
    def failures(self) -> tuple[str, ...]:
        """The values that did not fall far enough, as text."""
        failures = []
        if not self.loss_after <= LOSS_SHARE * self.loss_before:
            failures.append(
                f"the loss fell from {self.loss_before:.6g} to {self.loss_after:.6g}, "
                f"and must to {LOSS_SHARE * self.loss_before:.6g}"
            )
        if not self.count_error_after <= COUNT_ERROR:
            failures.append(
                f"counts are {self.count_error_after:.1%} of the heads off, "
                f"and must be {COUNT_ERROR:.0%} at most"
            )
        return tuple(failures)


def overfit(
    config: RunConfig,
    data: Sequence[PreparedDataset],
    *,
    crops: int,
    device: str = "auto",
    offline: bool = False,
    watcher: Watcher | None = None,
    track: Track = untracked,
) -> OverfitResult:
    """Train on a few fixed crops and measure how well the model learns them.

    Model, loss, optimiser and precision are those of a run with these settings. The learning rate
    follows one cosine. No run folder is made.

    Args:
        config: All settings.
        data: Prepared data sets, trained on together.
        crops: Number of crops, each of another image. Crops with heads are preferred.
        device: ``auto``, ``cpu``, ``cuda:0``, ...
        offline: Make every download an error.
        watcher: Follows the training.
        track: Shows the progress of preparations.

    Raises:
        UsageError: If there are fewer training images, or no crop holds a head.
        NotFiniteError: If a loss is not finite.
        MemoryExhaustedError: If a step needs more memory than there is.
    """
    plan = plan_training(config, data)
    samples = _fixed_crops(plan, number=crops)
    target = resolve_device(device)
    init = initial_checkpoint(config, offline=offline)
    bins = first_bins(config, data, init=init, track=track)
    model = first_model(config, bins, init=init, offline=offline)
    model = model.to(target).to(memory_format=torch.channels_last)
    train = dataclasses.replace(config.train, epochs=min(config.train.epochs, MOST_PASSES))
    batches = FixedBatches(samples, block=config.model.block, batch_size=train.batch_size)
    learner = Learner(model, train=train, optim=config.optim, device=target)
    before = _count_error(model, batches, device=target)
    if watcher is not None:
        watcher.started(epochs=train.epochs, steps=len(batches))
    reports = fit(
        learner,
        partial(dace_loss, bins=model.bins, config=config.loss),
        batches,
        train=train,
        optim=config.optim,
        schedule=ScheduleConfig(warmup=config.schedule.warmup),
        on_step=None if watcher is None else watcher.stepped,
    )
    losses = [report.loss for report in reports]
    return OverfitResult(
        crops=len(samples),
        heads=sum(len(sample.points) for sample in samples),
        steps=train.epochs * len(batches),
        loss_before=losses[0],
        loss_after=losses[-1],
        count_error_before=before,
        count_error_after=_count_error(
            cast(BlockCounter, learner.validated_model), batches, device=target
        ),
    )


def _fixed_crops(plan: TrainPlan, *, number: int) -> list[Sample]:
    """Cut one crop each from ``number`` images, from those with heads if there are enough."""
    if number > plan.training_images:
        raise UsageError(
            f"--overfit {number}: there are {plan.training_images} training images",
            next_step=f"ask for {plan.training_images} crops at most",
        )
    seed = plan.config.train.seed
    crops = TrainingCrops(
        TrainingSamples(plan.data), size=plan.crop, config=no_augmentation(), seed=seed
    )
    crowded: list[Sample] = []
    empty: list[Sample] = []
    for index in np.random.default_rng(seed).permutation(plan.training_images):
        crop = crops[0, int(index), 0]
        (crowded if len(crop.points) else empty).append(crop)
        if len(crowded) == number:
            break
    if not crowded:
        raise UsageError(
            "--overfit: no crop holds a head, so there is nothing to learn",
            next_step="larger crops (--set train.crop=...), or another seed (--seed)",
        )
    return [*crowded, *empty][:number]


@torch.no_grad()
def _count_error(model: BlockCounter, batches: FixedBatches, *, device: torch.device) -> float:
    """Return the sum of absolute count errors divided by the sum of heads."""
    count = whole_image_model(model.eval())
    error = heads = 0.0
    for batch in batches.epoch(1):
        counts = count(batch.images.to(device)).counts.sum(dim=(1, 2, 3)).cpu()
        error += float((counts - batch.target.heads).abs().sum())
        heads += float(batch.target.heads.sum())
    return error / heads
