"""The count terms of the training loss, by name."""

from typing import Annotated, Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from crowdcount.core.settings import NonNegativeFloat, PositiveInt, settings
from crowdcount.core.types import BlockTarget
from crowdcount.errors import ConfigError
from crowdcount.losses.posterior import head_posteriors
from crowdcount.losses.transport import transport_loss

TRANSPORT_WEIGHT = 0.1
VARIATION_WEIGHT = 0.01

MANY_HEADS = 40_000.0
"""Crops of ``dm`` with more heads count as if one head in so many were predicted at least."""

CountLossName = Literal["dm", "mae", "mse", "multiscale", "bayesian"]


@settings("loss.multiscale")
class MultiscaleConfig:
    """Settings of the multiscale loss; the defaults are those published with ZIP."""

    cells: Annotated[tuple[PositiveInt, ...], Field(strict=False)] = (1, 2, 4)
    """Sides of the cells in which errors are averaged, in blocks; 1 is the block itself."""

    weights: Annotated[tuple[NonNegativeFloat, ...], Field(strict=False)] = (0.25, 0.5, 1.0)
    """Weight of each entry of ``cells``; the image has weight 1."""

    @model_validator(mode="after")
    def _check(self) -> "MultiscaleConfig":
        if len(self.weights) != len(self.cells):
            raise ConfigError(
                f"loss.multiscale.weights: {len(self.weights)} for {len(self.cells)} cell sides",
                next_step="give one weight for each entry of loss.multiscale.cells",
            )
        return self


@settings("loss.bayesian")
class BayesianConfig:
    """Settings of the Bayesian loss."""

    sigma: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 8.0
    """Spread of a head, in pixels."""

    background: NonNegativeFloat = 0.15
    """Distance of the background from the nearest head, as a share of the shorter side of the crop.
    There the background is as likely as a head is at its own centre. 0: no background, every block
    belongs to heads."""


@runtime_checkable
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
    destroys the model; here no entry exceeds 75 + 0.02 N. In crops of more than 40,000 heads it is
    N / 40,000 at least, so that no entry exceeds 900 whatever the input. From one predicted head
    on, in any crop that is likely to exist, nothing changes.

    Source:
        Wang et al., "Distribution Matching for Crowd Counting", https://arxiv.org/abs/2009.13077;
        weights and reductions as in the published code of CLIP-EBC.
    """
    predicted = counts.sum(dim=(1, 2, 3))
    miscount = (predicted - target.heads).abs().mean()
    # One head at least: bounds the gradient, and makes the term 0 for an image without heads.
    least = (target.heads / MANY_HEADS).clamp(min=1)
    spread = counts / torch.maximum(predicted, least)[:, None, None, None]
    true_spread = target.counts / target.heads.clamp(min=1)[:, None, None, None]
    variation = (target.heads * (spread - true_spread).abs().sum(dim=(1, 2, 3))).mean()
    transport = transport_loss(counts, target.points, block=target.block)
    # The step averages the pieces of a batch; so weighted, their mean is the sum over the batch.
    pieces = (target.whole_batch or len(counts)) / len(counts)
    return miscount + TRANSPORT_WEIGHT * pieces * transport + VARIATION_WEIGHT * variation


def multiscale(
    counts: Float[Tensor, "batch 1 rows cols"],
    target: BlockTarget,
    config: MultiscaleConfig | None = None,
) -> Float[Tensor, ""]:
    r"""Absolute errors of the image, of its blocks and of larger and larger cells of blocks.

    Computes :math:`|s - N| + \sum_k w_k \sum_c |\bar e_c|`: a cell c is a square of k x k blocks,
    and :math:`\bar e_c` the mean of the errors of its blocks, so that errors which cancel within a
    cell are forgiven at its scale. Cells tile the image from the top-left corner; the last row and
    column of cells are filled up with blocks without error, so a head weighs the same everywhere.
    Summed over cells, averaged over the batch; in heads per image.

    Args:
        counts: Predicted heads of each block.
        target: True heads of each block.
        config: Sides k and weights w of the cells; None: the defaults.

    Source:
        The regression terms of Ma et al., "ZIP", https://arxiv.org/abs/2506.19955, with the
        published weights; cells that do not fit into the image are ours (the published code drops
        their blocks).
    """
    error = counts - target.counts
    total = (counts.sum(dim=(1, 2, 3)) - target.heads).abs()
    config = config or MultiscaleConfig()
    for scale, weight in zip(config.cells, config.weights, strict=True):
        total = total + weight * _cell_means(error, scale).abs().sum(dim=(1, 2, 3))
    return total.mean()


def bayesian(
    counts: Float[Tensor, "batch 1 rows cols"],
    target: BlockTarget,
    config: BayesianConfig | None = None,
) -> Float[Tensor, ""]:
    r"""Bayesian loss: every annotated head should collect one predicted head, the background none.

    Computes :math:`|E_0| + \sum_n |1 - E_n|` with :math:`E_n = \sum_i p(n|i)\, d_i`: a block i
    gives its heads to the annotated heads near it, and to the background (n = 0) where none is
    near, as :func:`crowdcount.losses.posterior.head_posteriors` says. Summed over heads, averaged
    over the batch; in heads per image. An image without heads is background, and its loss is s.

    Each annotated head is worth N / (number of points), which is 1 unless N is of corrected counts.
    Exact counts do not make it 0: a block between two heads belongs to both.

    Args:
        counts: Predicted heads of each block, not negative.
        target: True heads; their points decide.
        config: Spread of a head and distance of the background; None: the defaults.

    Source:
        Ma et al., "Bayesian Loss for Crowd Count Estimation with Point Supervision", ICCV 2019,
        https://arxiv.org/abs/1908.03684 (BL+, BL without background). There the share is of the
        whole image; the loss sees the crop alone.
    """
    config = config or BayesianConfig()
    _, _, rows, cols = counts.shape
    posterior, real = head_posteriors(
        target.points,
        rows=rows,
        cols=cols,
        block=target.block,
        sigma=config.sigma,
        background=config.background,
    )
    worth = real * (target.heads / real.sum(dim=1).clamp(min=1)).unsqueeze(1)
    with torch.autocast(counts.device.type, enabled=False):
        expected = torch.einsum("bnrc,brc->bn", posterior.to(counts), counts.squeeze(1))
    return (expected - worth).abs().sum(dim=1).mean()


def _cell_means(
    error: Float[Tensor, "batch 1 rows cols"], scale: int
) -> Float[Tensor, "batch 1 cell_rows cell_cols"]:
    """Mean over each cell of ``scale`` x ``scale`` blocks; partial cells filled up with zeros."""
    rows, cols = error.shape[-2:]
    whole = F.pad(error, (0, -cols % scale, 0, -rows % scale))
    return F.avg_pool2d(whole, scale)


COUNT_LOSSES: dict[CountLossName, CountLoss] = {
    "dm": dm,
    "mae": mae,
    "mse": mse,
    "multiscale": multiscale,
    "bayesian": bayesian,
}
