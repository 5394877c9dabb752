"""One training step: a batch through the network, its gradient, and the update of the weights."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from crowdcount.core.precision import predict_blocks
from crowdcount.core.types import Batch, BlockPrediction, BlockTarget, LossTerms
from crowdcount.training.divergence import Evidence, NotFiniteError
from crowdcount.training.optimiser import set_learning_rate
from crowdcount.training.randomness import random_states
from crowdcount.training.state import Learner

SMALLEST_LOSS_SCALE = 1.0
"""A gradient that overflows float16 at this scale will overflow at the next step, too."""


Criterion = Callable[[BlockPrediction, BlockTarget], LossTerms]
"""Scores a prediction against its target."""


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """Loss and gradient of one step."""

    total: float
    """The loss, averaged over the batch."""

    classification: float
    count: float
    gradient_norm: float
    """L2 norm of the gradient before clipping."""

    skipped: bool
    """Whether the gradient overflowed float16. The weights are then unchanged, and the loss scale
    is smaller in the next step."""

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

    The loss of a batch in pieces is the mean over its images, and a criterion knows the size of the
    batch, so the gradient does not depend on ``accumulate``. Batch normalisation sees pieces.

    Args:
        learner: The model and its optimiser; changed in place.
        criterion: The loss.
        batch: The crops, on the CPU.
        lr: Learning rate of this step.
        accumulate: Pieces in which the batch goes through the network.
        clip_norm: L2 norm to which a longer gradient is shortened; None: no clipping.

    Raises:
        NotFiniteError: If the loss or its gradient is not finite; the weights are unchanged.
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
    can_shrink = scaler.is_enabled() and scaler.get_scale() > SMALLEST_LOSS_SCALE
    overflow = not broken and not math.isfinite(gradient) and can_shrink
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
    # After an overflow the scaler skips the update and lowers its scale.
    scaler.step(optimiser)
    scaler.update()
    if learner.average is not None:
        learner.average.update(learner.model)
    return StepResult(**loss, gradient_norm=gradient, skipped=overflow, images=len(batch.names))


def _backward(
    learner: Learner, criterion: Criterion, batch: Batch, *, pieces: int
) -> Float[Tensor, " 4"]:
    """Accumulate the gradient of a batch over its pieces.

    Returns:
        Total, classification and count term, and 0 if all predictions are finite, else NaN.
    """
    sums = torch.zeros(4, device=learner.device)
    for piece in _split(batch, pieces=pieces):
        share = len(piece.names) / len(batch.names)
        pixels = piece.images.to(
            learner.device, memory_format=torch.channels_last, non_blocking=True
        )
        prediction = predict_blocks(learner.model, pixels, precision=learner.precision)
        terms = criterion(prediction, _on_device(piece.target, learner.device))
        torch.autograd.backward(learner.scaler.scale(share * terms.total))
        finite = 0 * (prediction.logits.detach().sum() + prediction.counts.detach().sum())
        parts = [terms.total, terms.classification, terms.count]
        sums += torch.stack([*(share * part.detach().float() for part in parts), finite])
    return sums


def _split(batch: Batch, *, pieces: int) -> Iterator[Batch]:
    """Split a batch into at most ``pieces`` batches of nearly equal size, in order."""
    images, target = len(batch.names), batch.target
    size = -(-images // pieces)
    if size >= images:
        yield batch
        return
    for part in (slice(start, start + size) for start in range(0, images, size)):
        yield Batch(
            images=batch.images[part],
            target=dataclasses.replace(
                target,
                counts=target.counts[part],
                points=target.points[part],
                heads=target.heads[part],
                whole_batch=images,
            ),
            names=batch.names[part],
        )


def _on_device(target: BlockTarget, device: torch.device) -> BlockTarget:
    """Return a target whose tensors are on a device."""
    return dataclasses.replace(
        target,
        counts=target.counts.to(device, non_blocking=True),
        points=tuple(points.to(device, non_blocking=True) for points in target.points),
        heads=target.heads.to(device, non_blocking=True),
    )
