"""The training loss of CLIP-EBC and ZIP: classification of blocks plus a count term."""

import dataclasses
from dataclasses import field
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import model_validator
from torch import Tensor

from crowdcount.core.bins import Bins
from crowdcount.core.settings import NonNegativeFloat, settings
from crowdcount.core.types import BlockPrediction, BlockTarget, LossTerms
from crowdcount.errors import ConfigError
from crowdcount.losses.classification import CLASSIFICATION_LOSSES, ClassificationLossName
from crowdcount.losses.count import (
    COUNT_LOSSES,
    BayesianConfig,
    CountLoss,
    CountLossName,
    MultiscaleConfig,
    bayesian,
    multiscale,
)

PUBLISHED_COUNT: dict[str, CountLossName] = {"ce": "dm", "zip": "multiscale", "none": "dm"}
"""Count term that each classification term was published with; DM-Count has no other term."""


@settings("loss")
class DaceConfig:
    """Settings of the training loss."""

    classification: Literal[ClassificationLossName, "none"] = "ce"
    """Classification term. ``none``: the count term alone."""

    count: Literal["auto", CountLossName] = "auto"
    """Count term. ``auto``: the one published with the classification term: ``dm`` for ``ce`` and
    ``none``, ``multiscale`` for ``zip``."""

    count_weight: NonNegativeFloat = 1.0
    """Weight of the count term against the classification term."""

    count_target: Literal["raw", "corrected"] = "raw"
    """Counts that the loss sees: ``raw``, or ``corrected`` by label correction."""

    multiscale: MultiscaleConfig = field(default_factory=MultiscaleConfig)
    """Settings of ``count = "multiscale"``."""

    bayesian: BayesianConfig = field(default_factory=BayesianConfig)
    """Settings of ``count = "bayesian"``."""

    @model_validator(mode="after")
    def _check(self) -> "DaceConfig":
        if self.classification == "none" and self.count_weight == 0:
            raise ConfigError(
                "loss.count_weight: 0, and with loss.classification = none there is no other term",
                next_step="give the count term a weight, or choose a classification term",
            )
        return self

    def resolved(self) -> "DaceConfig":
        """Return the same settings with ``auto`` replaced by the count term it stands for."""
        return dataclasses.replace(self, count=self.count_term)

    @property
    def count_term(self) -> CountLossName:
        """The count term, ``auto`` resolved."""
        return PUBLISHED_COUNT[self.classification] if self.count == "auto" else self.count


def dace_loss(
    prediction: BlockPrediction, target: BlockTarget, bins: Bins, config: DaceConfig
) -> LossTerms:
    r"""Score a block prediction against true block counts.

    Computes :math:`L = L_{class} + \lambda L_{count}`. Each term is summed over the blocks of an
    image and averaged over the batch (but see :func:`crowdcount.losses.count.dm`), so the total is
    in nats plus weighted heads per image and grows with the crop area. Computed in float32 at
    least, since thousands of blocks are summed. ``ce`` with ``dm`` is DACE, ``zip`` with
    ``multiscale`` the loss of ZIP; with ``none`` the first term is 0.

    Counts above the start of the last bin belong to the last bin, so the classes are always those
    of corrected labels. With ``count_target = "corrected"`` the other terms, too, use corrected
    counts, and their sum as the heads of the image; points are unchanged.

    Raises:
        ConfigError: If the classification term cannot work with these bins.

    Source:
        Ma et al., "CLIP-EBC", https://arxiv.org/abs/2403.09281, DACE loss.
    """
    if config.count_target == "corrected":
        target = _corrected(target, max_count=bins.max_count)
    if config.classification == "none":
        classification = prediction.counts.new_zeros(())
    else:
        classify = CLASSIFICATION_LOSSES[config.classification]
        classification = classify(_at_least_float32(prediction.logits), target.counts, bins)
    count = _count_loss(config)(_at_least_float32(prediction.counts), target)
    return LossTerms(
        total=classification + config.count_weight * count,
        classification=classification,
        count=count,
    )


def _count_loss(config: DaceConfig) -> CountLoss:
    """Return the count term, bound to its own settings where it has some."""
    name = config.count_term
    if name == "multiscale":
        return partial(multiscale, config=config.multiscale)
    if name == "bayesian":
        return partial(bayesian, config=config.bayesian)
    return COUNT_LOSSES[name]


def _corrected(target: BlockTarget, *, max_count: int) -> BlockTarget:
    """Correct labels: clamp block counts to ``max_count``, as Ma et al. do on paper."""
    # The published code never clamps a count; its bins alone correct the classes.
    counts = target.counts.clamp(max=float(max_count))
    return dataclasses.replace(target, counts=counts, heads=counts.sum(dim=(1, 2, 3)))


def _at_least_float32(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return values.to(torch.promote_types(values.dtype, torch.float32))
