"""The optimal-transport term of DM-Count: Sinkhorn between the heads and the predicted blocks."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

ITERATIONS = 100
"""Sinkhorn steps, far fewer than convergence takes. The published models were trained with exactly
this; more steps or a better solver would change the training signal."""

REGULARISATION = 10.0
"""Entropic regularisation, in squared pixels."""

EPSILON = 1e-16
"""Keeps divisions and logarithms finite where no head is near; bounds potentials to +-368."""


def sinkhorn_potentials(
    share: Float[Tensor, "batch rows cols"],
    points: tuple[Float[Tensor, "_ 2"], ...],
    *,
    block: int,
) -> Float[Tensor, "batch rows cols"]:
    r"""Compute the dual potentials of the blocks by 100 Sinkhorn steps from heads to blocks.

    The cost C is the squared distance in pixels between a head and a block centre, and
    :math:`K = e^{-C/10}`. Each step sets :math:`v = b / (K^T u)`, then :math:`u = a / (K v)`, with
    a = 1/N for each head and b = ``share``; :math:`\beta = 10 \ln v`. The kernel is a product of a
    factor in x and one in y, so K is never built: each half-step is a small matrix product. All
    images are solved together (shorter lists are padded with heads of weight 0 at infinity), in
    float32 even under autocast, and without waiting for the device. No gradient flows through it.

    The scaling form is used, not the logarithmic one: the published 1e-16 in the division limits
    the potential of a block far from every head, so it is part of the training signal. It also
    bounds u and v by 1e16, which float32 can hold.

    Args:
        share: Share of each block in the predicted heads of its image.
        points: Head centres ``(x, y)`` in pixels, one tensor for each image.
        block: Block side in pixels.

    Returns:
        Potential of each block, in squared pixels, within +-368.5; 0 in an image without heads.

    Source:
        Wang et al., "Distribution Matching for Crowd Counting", https://arxiv.org/abs/2009.13077;
        iteration as in the published code of CLIP-EBC.
    """
    rows, cols = share.shape[1:]
    with torch.no_grad(), torch.autocast(share.device.type, enabled=False):
        share = share.float()
        heads = padded_points(points).to(share)
        kernel_x = _axis_kernel(heads[..., 0], centres=cols, block=block)
        kernel_y = _axis_kernel(heads[..., 1], centres=rows, block=block)
        real = heads[..., 0].isfinite()
        weight = real / real.sum(dim=1, keepdim=True).clamp(min=1)
        u = weight
        v = torch.empty_like(share)
        kernel_u = torch.empty_like(kernel_x)
        for _ in range(ITERATIONS):
            torch.mul(kernel_x, u.unsqueeze(1), out=kernel_u)
            torch.bmm(kernel_y, kernel_u.mT, out=v)
            torch.div(share, v.add_(EPSILON), out=v)
            torch.bmm(v.mT, kernel_y, out=kernel_u)
            u = weight / kernel_u.mul_(kernel_x).sum(dim=1).add_(EPSILON)
        crowded = real.any(dim=1)[:, None, None]
        return crowded * REGULARISATION * torch.log(v + EPSILON)


def transport_loss(
    counts: Float[Tensor, "batch 1 rows cols"],
    points: tuple[Float[Tensor, "_ 2"], ...],
    *,
    block: int,
) -> Float[Tensor, ""]:
    r"""Compute the optimal-transport term, whose gradient moves predicted heads to annotated ones.

    Its value is about 0 and has no meaning; only the gradient matters. For an image it is
    :math:`(\beta - \langle d, \beta\rangle / s) / \max(s, 1)` with s = sum d, which moves heads
    without adding any. Summed over the batch, as published: unlike the other terms it does not
    weaken as the batch grows. Images without heads contribute 0.

    The published code divides by s, which is destructive near a zero prediction. Here s is at least
    one head, and a prediction of exactly 0 is treated as uniform, so no entry exceeds 737.
    Arguments are as in :func:`sinkhorn_potentials`; counts are heads, not negative.
    """
    predicted = counts.detach().squeeze(1).float()
    total = predicted.sum(dim=(1, 2), keepdim=True)
    blocks = predicted[0].numel()
    share = torch.where(total > 0, predicted / total, 1 / blocks)
    potentials = sinkhorn_potentials(share, points, block=block)
    mean = (share * potentials).sum(dim=(1, 2), keepdim=True)
    gradient = (potentials - mean) / total.clamp(min=1)
    return (gradient * counts.squeeze(1)).sum()


def padded_points(points: tuple[Float[Tensor, "_ 2"], ...]) -> Float[Tensor, "batch heads 2"]:
    """Stack the points of all images, padding shorter lists with heads at infinity."""
    return pad_sequence(list(points), batch_first=True, padding_value=math.inf)


def _axis_kernel(
    coordinates: Float[Tensor, "batch heads"], *, centres: int, block: int
) -> Float[Tensor, "batch centres heads"]:
    """Return a factor of K: exp(-(distance to each block centre along one axis)^2 / 10)."""
    centre = torch.arange(centres, device=coordinates.device) * block + block / 2
    return torch.exp(-((coordinates.unsqueeze(1) - centre[:, None]) ** 2) / REGULARISATION)
