"""The posterior of the Bayesian loss: the annotated head to which a block belongs."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from crowdcount.losses.transport import padded_points


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
