"""DACE, the training loss of CLIP-EBC: classification of blocks plus a count term."""

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import ConfigDict
from torch import Tensor

from crowdcount.core.bins import Bins
from crowdcount.core.blocks import corrected_counts
from crowdcount.core.types import BlockPrediction, BlockTarget
from crowdcount.errors import ConfigError
from crowdcount.losses.count import COUNT_LOSSES

COUNT_TARGETS = ("raw", "corrected")


@dataclass(frozen=True, kw_only=True)
class DaceConfig:
    """Settings of the training loss.

    Raises:
        ConfigError: If a name is unknown or the weight is out of range.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    count: str = "dm"
    """Count term: a key of ``COUNT_LOSSES``."""

    count_weight: float = 1.0
    """Weight of the count term against the classification term."""

    count_target: str = "raw"
    """Counts that the count term sees: ``raw``, or ``corrected`` by label correction."""

    def __post_init__(self) -> None:
        if self.count not in COUNT_LOSSES:
            known = ", ".join(sorted(COUNT_LOSSES))
            raise ConfigError(
                f"loss.count: unknown count loss {self.count!r}; choose from: {known}"
            )
        if not (math.isfinite(self.count_weight) and self.count_weight >= 0):
            raise ConfigError(
                f"loss.count_weight: must be a number from 0 on, got {self.count_weight}"
            )
        if self.count_target not in COUNT_TARGETS:
            raise ConfigError(
                f"loss.count_target: unknown target {self.count_target!r}; "
                f"choose from: {', '.join(COUNT_TARGETS)}"
            )


@dataclass(frozen=True, kw_only=True)
class LossTerms:
    """The training loss and what it is made of; ``total`` is what is minimised."""

    total: Float[Tensor, ""]
    """Classification plus weighted count term."""

    classification: Float[Tensor, ""]
    """Cross-entropy, in nats per image."""

    count: Float[Tensor, ""]
    """Count term, not weighted; in heads (``mse``: heads²) per image."""


def dace_loss(
    prediction: BlockPrediction, target: BlockTarget, bins: Bins, config: DaceConfig
) -> LossTerms:
    r"""Score a block prediction against true block counts.

    Computes :math:`L = L_{CE} + \lambda L_{count}`. Each is summed over the blocks of an image and
    averaged over the batch (but see :func:`crowdcount.losses.count.dm`), so the total is in nats
    plus weighted heads per image and grows with the crop area. Computed in float32 at least, since
    thousands of blocks are summed.

    Blocks fuller than the last bin's start are of the last bin, so the classes are always those of
    corrected labels. With ``config.count_target`` "corrected" the count term also sees corrected
    counts and their sum as the heads of the image; the points of the transport term stay.

    Args:
        prediction: Logits over the bins, and expected heads, of each block.
        target: True heads of each block, not corrected.
        bins: Which counts are of which class.
        config: Which count term, against what, with which weight.

    Source:
        Ma et al., "CLIP-EBC", https://arxiv.org/abs/2403.09281, DACE loss.
    """
    classes = bins.classify(target.counts).squeeze(1)
    cross_entropy = F.cross_entropy(_at_least_float32(prediction.logits), classes, reduction="none")
    classification = cross_entropy.sum(dim=(1, 2)).mean()
    if config.count_target == "corrected":
        target = _corrected(target, max_count=bins.max_count)
    count = COUNT_LOSSES[config.count](_at_least_float32(prediction.counts), target)
    return LossTerms(
        total=classification + config.count_weight * count,
        classification=classification,
        count=count,
    )


def _corrected(target: BlockTarget, *, max_count: int) -> BlockTarget:
    counts = corrected_counts(target.counts, max_count=max_count)
    return dataclasses.replace(target, counts=counts, heads=counts.sum(dim=(1, 2, 3)))


def _at_least_float32(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return values.to(torch.promote_types(values.dtype, torch.float32))
