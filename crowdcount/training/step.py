"""One step of training: a batch through the network, its gradient, and the change it makes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from crowdcount.core.precision import computed
from crowdcount.core.types import Batch, BlockPrediction, BlockTarget
from crowdcount.training.accumulation import move_target, split_batch
from crowdcount.training.divergence import Evidence, NotFiniteError
from crowdcount.training.optimiser import set_learning_rate
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

    The loss of a batch in pieces is the mean over its images, and a criterion knows how large the
    batch is, so the gradient does not depend on ``accumulate``. Batch normalisation sees pieces.

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
    scaler, optimiser = learner.scaler, learner.optimiser
    random = random_states(learner.device)
    optimiser.zero_grad(set_to_none=True)
    sums = _backward(learner, criterion, batch, pieces=accumulate)
    scaler.unscale_(optimiser)
    norm = torch.nn.utils.clip_grad_norm_(
        learner.model.parameters(), math.inf if clip_norm is None else clip_norm
    )
    # The only wait for the device: all numbers of the step at once.
    total, classification, count, finite, gradient = torch.cat([sums, norm[None]]).tolist()
    loss = {"total": total, "classification": classification, "count": count}
    broken = not all(map(math.isfinite, (*loss.values(), finite)))
    overflow = not broken and not math.isfinite(gradient) and _can_shrink(scaler)
    if broken or not (math.isfinite(gradient) or overflow):
        evidence = Evidence(
            epoch=learner.progress.epoch,
            step=learner.progress.steps + 1,
            values=loss | {"gradient": gradient},
            batch=batch,
            model=learner.model.state_dict(),
            random=random,
        )
        raise NotFiniteError(evidence, finite_prediction=math.isfinite(finite))
    set_learning_rate(optimiser, lr)
    # A scaler that is on leaves a step with an overflow out, and shrinks.
    scaler.step(optimiser)
    scaler.update()
    if learner.average is not None:
        learner.average.update(learner.model)
    return StepResult(**loss, gradient_norm=gradient, skipped=overflow, images=len(batch.names))


def _backward(
    learner: Learner, criterion: Criterion, batch: Batch, *, pieces: int
) -> Float[Tensor, " 4"]:
    """Add up the gradients of a batch in pieces, and what its loss is made of.

    Returns:
        Total, classification and count term, and 0 where all predictions were finite; else NaN.
    """
    sums = torch.zeros(4, device=learner.device)
    for piece in split_batch(batch, pieces=pieces):
        share = len(piece.names) / len(batch.names)
        pixels = piece.images.to(
            learner.device, memory_format=torch.channels_last, non_blocking=True
        )
        prediction = computed(learner.model, pixels, precision=learner.precision)
        terms = criterion(prediction, move_target(piece.target, learner.device))
        torch.autograd.backward(learner.scaler.scale(share * terms.total))
        finite = 0 * (prediction.logits.detach().sum() + prediction.counts.detach().sum())
        parts = [terms.total, terms.classification, terms.count]
        sums += torch.stack([*(share * part.detach().float() for part in parts), finite])
    return sums


def _can_shrink(scaler: torch.amp.GradScaler) -> bool:
    """Whether the loss is scaled, and less so may let an overflowing gradient fit float16."""
    return scaler.is_enabled() and scaler.get_scale() > SMALLEST_LOSS_SCALE
