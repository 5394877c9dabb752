"""The count terms of the training loss, by name."""

import math
from collections.abc import Callable
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor

from crowdcount.core.settings import NonNegativeFloat, PositiveInt, settings
from crowdcount.core.types import BlockTarget
from crowdcount.errors import ConfigError
from crowdcount.losses.transport import padded_points, transport_loss

TRANSPORT_WEIGHT = 0.1
VARIATION_WEIGHT = 0.01

MANY_HEADS = 40_000.0
"""Heads of a crop per head that ``dm`` assumes to be predicted at least."""

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


CountLoss = Callable[[Float[Tensor, "batch 1 rows cols"], BlockTarget], Float[Tensor, ""]]
"""Scores predicted heads of each block (not negative) against the target. Each function states its
unit and its reduction."""


def mae(counts: Float[Tensor, "batch 1 rows cols"], target: BlockTarget) -> Float[Tensor, ""]:
    """Sum the absolute errors of blocks, in heads; average over the batch."""
    return (counts - target.counts).abs().sum(dim=(1, 2, 3)).mean()


def mse(counts: Float[Tensor, "batch 1 rows cols"], target: BlockTarget) -> Float[Tensor, ""]:
    """Sum the squared errors of blocks, in heads²; average over the batch."""
    return (counts - target.counts).square().sum(dim=(1, 2, 3)).mean()


def dm(counts: Float[Tensor, "batch 1 rows cols"], target: BlockTarget) -> Float[Tensor, ""]:
    r"""Score the count of an image, the places of its heads and their distribution (DM-Count).

    Computes :math:`|s - N| + 0.1\,OT + 0.01\,N \sum_i |d_i / s - y_i / N|` with s = sum d. The
    first and last term are averaged over the batch, the transport term is summed over it, as
    published (its value is about 0, so only the gradient shows this). In heads per image.

    It differs from the published code if fewer than one head is predicted: s in a denominator is at
    least one head. The published gradient grows like 1/s there, up to 1e6, and a single step
    destroys the model; here no entry exceeds 75 + 0.02 N. In crops of more than 40,000 heads s is
    at least N / 40,000, so that no entry exceeds 900 for any input.

    Source:
        Wang et al., "Distribution Matching for Crowd Counting", https://arxiv.org/abs/2009.13077;
        weights and reductions as in the published code of CLIP-EBC.
    """
    predicted = counts.sum(dim=(1, 2, 3))
    miscount = (predicted - target.heads).abs().mean()
    # At least one head: bounds the gradient, and makes the term 0 for an image without heads.
    least = (target.heads / MANY_HEADS).clamp(min=1)
    spread = counts / torch.maximum(predicted, least)[:, None, None, None]
    true_spread = target.counts / target.heads.clamp(min=1)[:, None, None, None]
    variation = (target.heads * (spread - true_spread).abs().sum(dim=(1, 2, 3))).mean()
    transport = transport_loss(counts, target.points, block=target.block)
    # The step averages the pieces of a batch; with this weight their mean is the batch's sum.
    pieces = (target.whole_batch or len(counts)) / len(counts)
    return miscount + TRANSPORT_WEIGHT * pieces * transport + VARIATION_WEIGHT * variation


def multiscale(
    counts: Float[Tensor, "batch 1 rows cols"],
    target: BlockTarget,
    config: MultiscaleConfig | None = None,
) -> Float[Tensor, ""]:
    r"""Sum the absolute errors of the image and of cells of blocks, at several cell sizes.

    Computes :math:`|s - N| + \sum_k w_k \sum_c |\bar e_c|` for the sides k and weights w of the
    settings: a cell c is a square of k x k blocks,
    and :math:`\bar e_c` the mean error of its blocks, so that errors which cancel within a cell are
    forgiven at its scale. Cells tile the image from the top-left corner; the last row and column of
    cells are padded with blocks without error, so a head weighs the same everywhere. Summed over
    cells, averaged over the batch; in heads per image.

    Source:
        The regression terms of Ma et al., "ZIP", https://arxiv.org/abs/2506.19955, with the
        published weights. The published code drops the blocks of partial cells.
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
    r"""Compute the Bayesian loss: each annotated head gets one predicted head, the background none.

    Computes :math:`|E_0| + \sum_n |1 - E_n|` with :math:`E_n = \sum_i p(n|i)\, d_i`: block i
    divides its predicted heads among the annotated heads near it, or gives them to the background
    (n = 0), by :func:`head_posteriors`. Summed over heads, averaged
    over the batch; in heads per image. An image without heads is background, and its loss is s.

    Each annotated head is worth N / (number of points), which is 1 unless counts are corrected.
    Exact counts do not give 0: a block between two heads belongs to both.

    Source:
        Ma et al., "Bayesian Loss for Crowd Count Estimation with Point Supervision", ICCV 2019,
        https://arxiv.org/abs/1908.03684 (BL+, BL without background). There ``background`` is a
        share of the whole image; here of the crop.
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


@torch.no_grad()
def head_posteriors(
    points: tuple[Float[Tensor, "_ 2"], ...],
    *,
    rows: int,
    cols: int,
    block: int,
    sigma: float,
    background: float,
) -> tuple[Float[Tensor, "batch sources rows cols"], Bool[Tensor, "batch sources"]]:
    r"""Return the probability that a head counted in a block is a given annotated head.

    The likelihood of a block centre x given a head z is a Gaussian of their distance,
    :math:`e^{-|x - z|^2 / 2\sigma^2}`. The background of x is a dummy point at distance D from the
    head nearest to x, on the ray through x: :math:`e^{-(D - |x - z|)^2 / 2\sigma^2}`. All are
    equally likely a priori. Computed in logarithms, so that a block belongs to the nearest head or
    to the background however far away they are.

    Args:
        points: Head centres ``(x, y)`` in pixels, one tensor for each image.
        rows: Rows of blocks.
        cols: Columns of blocks.
        block: Block side in pixels.
        sigma: Standard deviation of the Gaussian, in pixels.
        background: D as a share of the shorter side of the image; 0: no background in images with
            heads.

    Returns:
        The posteriors, which sum to 1 over the sources: the heads, the padding of shorter lists,
        and last the background. And a mask of the sources that are heads.

    Source:
        Ma et al., "Bayesian Loss for Crowd Count Estimation with Point Supervision", ICCV 2019,
        https://arxiv.org/abs/1908.03684.
    """
    heads = F.pad(padded_points(points), (0, 0, 0, 1), value=math.inf)
    real = heads[..., 0].isfinite()
    squared = (
        _squared_distances(heads[..., 1], centres=rows, block=block)[..., :, None]
        + _squared_distances(heads[..., 0], centres=cols, block=block)[..., None, :]
    )
    nearest = squared.amin(dim=1).sqrt()
    if background > 0:
        margin = background * min(rows, cols) * block
        squared[:, -1] = (margin - nearest).square()
    # In an image without heads everything is background.
    squared[:, -1].masked_fill_(nearest.isinf(), 0.0)
    return squared.mul_(-0.5 / sigma**2).softmax(dim=1), real


def _squared_distances(
    coordinates: Float[Tensor, "batch heads"], *, centres: int, block: int
) -> Float[Tensor, "batch heads centres"]:
    """Return squared distances to the block centres along one axis, in pixels²."""
    centre = torch.arange(centres, device=coordinates.device) * block + block / 2
    return (coordinates.unsqueeze(2) - centre).square()


def _cell_means(
    error: Float[Tensor, "batch 1 rows cols"], scale: int
) -> Float[Tensor, "batch 1 cell_rows cell_cols"]:
    """Average over cells of ``scale`` x ``scale`` blocks; partial cells are padded with zeros."""
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
