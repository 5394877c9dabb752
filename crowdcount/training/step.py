"""One step of training: a batch through the network, its gradient, and the change it makes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from crowdcount.core.types import Batch, BlockPrediction, BlockTarget
from crowdcount.training.accumulation import move_target, split_batch
from crowdcount.training.divergence import Evidence, NotFiniteError
from crowdcount.training.optimiser import set_learning_rate
from crowdcount.training.precision import autocast, in_float32
from crowdcount.training.randomness import random_states
from crowdcount.training.state import Learner

SMALLEST_LOSS_SCALE = 1.0
"""Where a gradient overflows float16 even unscaled, it will at the next step too."""


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


Criterion = Callable[[BlockPrediction, BlockTarget], Terms]
"""From a prediction and its target to the terms of the loss."""


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What one step found."""

    total: float
    """The loss, averaged over the batch."""

    classification: float
    count: float
    gradient_norm: float
    """L2 norm of the gradient before it was clipped."""

    skipped: bool
    """True where the gradient did not fit float16: the weights are as before, and the next step
    is scaled less."""

    images: int


def take_step(
    learner: Learner,
    criterion: Criterion,
    batch: Batch,
    *,
    lr: float,
    accumulate: int = 1,
    clip_norm: float | None = None,
) -> StepResult:
    """Train on one batch.

    The loss of a batch in pieces is the mean over its images, so the gradient of terms that are
    averaged over the batch does not depend on ``accumulate``. Batch normalisation sees pieces.

    Args:
        learner: What is trained; changed in place.
        criterion: The loss of one batch.
        batch: The crops, on the CPU.
        lr: Learning rate of this step.
        accumulate: Pieces in which the batch goes through the network.
        clip_norm: L2 norm to which a longer gradient is shortened; None: none is.

    Raises:
        NotFiniteError: If the loss or its gradient is not finite; the weights are as before.
    """
    device, scaler, optimiser = learner.device, learner.scaler, learner.optimiser
    random = random_states(device)
    images = len(batch.names)
    sums = torch.zeros(4, device=device)
    optimiser.zero_grad(set_to_none=True)
    for piece in split_batch(batch, pieces=accumulate):
        share = len(piece.names) / images
        pixels = piece.images.to(device, memory_format=torch.channels_last, non_blocking=True)
        with autocast(learner.precision, device):
            prediction = learner.model(pixels)
        prediction = in_float32(prediction)
        terms = criterion(prediction, move_target(piece.target, device))
        torch.autograd.backward(scaler.scale(share * terms.total))
        # Of the predictions only whether they are finite is of interest: 0 times them says so.
        finite = 0 * (prediction.logits.detach().sum() + prediction.counts.detach().sum())
        parts = [terms.total, terms.classification, terms.count]
        sums += torch.stack([*(share * part.detach().float() for part in parts), finite])
    scaler.unscale_(optimiser)
    norm = torch.nn.utils.clip_grad_norm_(
        learner.model.parameters(), float("inf") if clip_norm is None else clip_norm
    )
    total, classification, count, finite, gradient = torch.cat([sums, norm[None]]).tolist()
    overflow = scaler.is_enabled() and not math.isfinite(gradient)
    broken = not all(map(math.isfinite, (total, classification, count, finite)))
    if broken or not (math.isfinite(gradient) or (overflow and _can_shrink(scaler))):
        named = {"total": total, "classification": classification, "count": count}
        evidence = Evidence(
            epoch=learner.progress.epoch,
            step=learner.progress.steps + 1,
            values=named | {"gradient": gradient},
            batch=batch,
            model=learner.model.state_dict(),
            random=random,
        )
        raise NotFiniteError(evidence, finite_prediction=math.isfinite(finite))
    set_learning_rate(optimiser, lr)
    scaler.step(optimiser)
    scaler.update()
    if learner.average is not None:
        learner.average.update(learner.model)
    return StepResult(
        total=total,
        classification=classification,
        count=count,
        gradient_norm=gradient,
        skipped=overflow,
        images=images,
    )


def _can_shrink(scaler: torch.amp.GradScaler) -> bool:
    """Whether a smaller scale may let an overflowing gradient fit float16."""
    return scaler.get_scale() > SMALLEST_LOSS_SCALE
