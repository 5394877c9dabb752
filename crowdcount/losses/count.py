"""The count terms of the training loss, by name."""

from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from crowdcount.core.types import BlockTarget
from crowdcount.losses.transport import transport_loss

TRANSPORT_WEIGHT = 0.1
VARIATION_WEIGHT = 0.01


class CountLoss(Protocol):
    """What every count term is: predicted heads per block and the target to one number."""

    def __call__(
        self, counts: Float[Tensor, "batch 1 rows cols"], target: BlockTarget
    ) -> Float[Tensor, ""]:
        """Score ``counts``, which are not negative; each term says its unit and its reduction."""


def mae(counts: Float[Tensor, "batch 1 rows cols"], target: BlockTarget) -> Float[Tensor, ""]:
    """Absolute error of each block, in heads: summed over the blocks, averaged over the batch."""
    return (counts - target.counts).abs().sum(dim=(1, 2, 3)).mean()


def mse(counts: Float[Tensor, "batch 1 rows cols"], target: BlockTarget) -> Float[Tensor, ""]:
    """Squared error of each block, in heads²: summed over the blocks, averaged over the batch."""
    return (counts - target.counts).square().sum(dim=(1, 2, 3)).mean()


def dm(counts: Float[Tensor, "batch 1 rows cols"], target: BlockTarget) -> Float[Tensor, ""]:
    r"""DM-Count: the count of the image, where its heads are, and how they are spread.

    Computes :math:`|s - N| + 0.1\,OT + 0.01\,N \sum_i |d_i / s - y_i / N|` with s = sum d. The
    first and last term are averaged over the batch, the transport term is summed over it (as
    published; its value is about 0, so this shows in the gradient alone). In heads per image.

    Departs from the published code where fewer than one head is predicted: s in a denominator is
    one head at least. There the published gradient grows like 1/s, up to 1e6, and a single step
    destroys the model; here no entry exceeds 75 + 0.02 N, which is below 1000 up to 46,000 heads
    in a crop. From one predicted head on nothing changes.

    Source:
        Wang et al., "Distribution Matching for Crowd Counting", https://arxiv.org/abs/2009.13077;
        weights and reductions as in the published code of CLIP-EBC.
    """
    predicted = counts.sum(dim=(1, 2, 3))
    miscount = (predicted - target.heads).abs().mean()
    # One head at least: bounds the gradient, and makes the term 0 for an image without heads.
    spread = counts / predicted.clamp(min=1)[:, None, None, None]
    true_spread = target.counts / target.heads.clamp(min=1)[:, None, None, None]
    variation = (target.heads * (spread - true_spread).abs().sum(dim=(1, 2, 3))).mean()
    transport = transport_loss(counts, target.points, block=target.block)
    return miscount + TRANSPORT_WEIGHT * transport + VARIATION_WEIGHT * variation


COUNT_LOSSES: dict[str, CountLoss] = {"dm": dm, "mae": mae, "mse": mse}
