"""The classification terms of the training loss, by name."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from crowdcount.core.bins import Bins, format_range
from crowdcount.errors import ConfigError

ClassificationLoss = Callable[
    [Float[Tensor, "batch bins rows cols"], Float[Tensor, "batch 1 rows cols"], Bins],
    Float[Tensor, ""],
]
"""Scores logits against true counts, in nats per image: summed over blocks, averaged over the
batch."""


def cross_entropy(
    logits: Float[Tensor, "batch bins rows cols"],
    counts: Float[Tensor, "batch 1 rows cols"],
    bins: Bins,
) -> Float[Tensor, ""]:
    """Score the bin of each block by cross-entropy."""
    classes = bins.classify(counts).squeeze(1)
    return F.cross_entropy(logits, classes, reduction="none").sum(dim=(1, 2)).mean()


def zero_inflated_poisson(
    logits: Float[Tensor, "batch bins rows cols"],
    counts: Float[Tensor, "batch 1 rows cols"],
    bins: Bins,
) -> Float[Tensor, ""]:
    r"""Score all counts by a zero-inflated Poisson (ZIP), and the bins of blocks with heads.

    A block is structurally empty with the probability p0 of the first bin. Otherwise, with p1 = 1 -
    p0, its count is Poisson with the rate :math:`\lambda`, the mean of the other bins given that
    it is one of them; the expected heads are p1 times the rate. Blocks with y = 0 heads are scored
    by :math:`-\ln(p_0 + p_1 e^{-\lambda})`, others by :math:`-\ln p_1 + \lambda - y \ln
    \lambda` (without ln y!, so it can fall below 0) plus the cross-entropy of their bin among those
    from the second on.

    The published code adds 1e-8 inside the logarithms. This is computed from log-probabilities, so
    a block that is wrongly predicted as certainly empty still has a gradient.

    Raises:
        ConfigError: If the first bin is not 0 alone.

    Source:
        Ma et al., "ZIP: Scalable Crowd Counting via Zero-Inflated Poisson Modeling",
        https://arxiv.org/abs/2506.19955.
    """
    low, high = bins.ranges[0]
    if high != 0:
        raise ConfigError(
            f"loss.classification: zip needs a bin for empty blocks alone, and the first bin is "
            f"{format_range(low, high)}"
        )
    log_bins = logits.log_softmax(dim=1)
    log_empty, log_occupied = log_bins[:, 0], log_bins[:, 1:].logsumexp(dim=1)
    log_filled = logits[:, 1:].log_softmax(dim=1)
    values = torch.tensor(bins.values[1:], dtype=logits.dtype, device=logits.device)
    rate = (log_filled.exp() * values[:, None, None]).sum(dim=1)
    heads = counts.squeeze(1)
    # Empty blocks get class -1, which is unused: the first formula scores them.
    filled_classes = (bins.classify(heads) - 1).clamp(min=0)
    classification = F.nll_loss(log_filled, filled_classes, reduction="none")
    empty = -torch.logaddexp(log_empty, log_occupied - rate)
    filled = classification - log_occupied + rate - heads * rate.log()
    return torch.where(heads > 0, filled, empty).sum(dim=(1, 2)).mean()


ClassificationLossName = Literal["ce", "zip"]

CLASSIFICATION_LOSSES: dict[ClassificationLossName, ClassificationLoss] = {
    "ce": cross_entropy,
    "zip": zero_inflated_poisson,
}
