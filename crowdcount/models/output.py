"""Kinds of output of the last layer: bins, ZIP's two-step bins, or a number of heads."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from crowdcount.core.bins import Bins, format_range
from crowdcount.errors import ConfigError

Head = Literal["ebc", "zip", "regression"]
"""The choices of ``ModelConfig.head``."""


def check_head(head: str, bins: Bins) -> None:
    """Raise ConfigError if the head is ``zip`` and the first bin holds more than empty blocks."""
    low, high = bins.ranges[0]
    if head == "zip" and high != 0:
        raise ConfigError(
            f"model.head: zip needs a bin for empty blocks alone, and the first bin is "
            f"{format_range(low, high)}",
            next_step="use bins that start 0, 1, or --set model.head=ebc",
        )


def zero_inflated(
    occupancy: Float[Tensor, "batch 2 rows cols"], filled: Float[Tensor, "batch filled rows cols"]
) -> Float[Tensor, "batch bins rows cols"]:
    r"""Combine the logits of ZIP's two heads to logits of all bins.

    With :math:`\pi` = softmax(``occupancy``) and q = softmax(``filled``) the bins have the
    probabilities :math:`\pi_0, \pi_1 q_1, \pi_1 q_2, ...`, so the expectation over the bins is the
    density of ZIP: :math:`\pi_1 \lambda`, :math:`\lambda = \sum_k q_k a_k`. The result are
    log-probabilities, computed in float32 or wider.

    Source:
        Ma et al., "ZIP: Scalable Crowd Counting via Zero-Inflated Poisson Modeling",
        https://arxiv.org/abs/2506.19955.
    """
    dtype = torch.promote_types(filled.dtype, torch.float32)
    log_occupancy = occupancy.to(dtype).log_softmax(dim=1)
    log_filled = filled.to(dtype).log_softmax(dim=1)
    return torch.cat([log_occupancy[:, :1], log_occupancy[:, 1:] + log_filled], dim=1)
