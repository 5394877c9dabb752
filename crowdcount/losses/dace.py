"""The training loss of CLIP-EBC and of ZIP: classification of blocks plus a count term."""

import dataclasses
import math
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from pydantic import ConfigDict
from torch import Tensor

from crowdcount.core.bins import Bins
from crowdcount.core.types import BlockPrediction, BlockTarget
from crowdcount.errors import ConfigError
from crowdcount.losses.classification import CLASSIFICATION_LOSSES
from crowdcount.losses.count import (
    BACKGROUND,
    COUNT_LOSSES,
    SCALE_WEIGHTS,
    SCALES,
    SIGMA,
    CountLoss,
)

COUNT_TARGETS = ("raw", "corrected")

NO_CLASSIFICATION = "none"
"""In place of a key of ``CLASSIFICATION_LOSSES``: the count term trains alone."""

PUBLISHED_COUNT = {"ce": "dm", "zip": "multiscale", "none": "dm"}
"""The count term with which each classification term was published; DM-Count has no other term."""


@dataclass(frozen=True, kw_only=True)
class DaceConfig:
    """Settings of the training loss.

    Raises:
        ConfigError: If a name is unknown or the weight is out of range.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    classification: str = "ce"
    """Classification term: a key of ``CLASSIFICATION_LOSSES``; ``none``: the count term alone."""

    count: str = "auto"
    """Count term: a key of ``COUNT_LOSSES``. ``auto`` becomes the one that was published with the
    classification term: ``dm`` for ``ce`` and ``none``, ``multiscale`` for ``zip``."""

    count_weight: float = 1.0
    """Weight of the count term against the classification term."""

    count_target: str = "raw"
    """Counts that the loss sees: ``raw``, or ``corrected`` by label correction."""

    multiscale_cells: tuple[int, ...] = SCALES
    """``multiscale``: sides of the cells in which errors are averaged, in blocks."""

    multiscale_weights: tuple[float, ...] = SCALE_WEIGHTS
    """``multiscale``: weight of each side; the image has weight 1."""

    bayesian_sigma: float = SIGMA
    """``bayesian``: spread of a head, in pixels."""

    bayesian_background: float = BACKGROUND
    """``bayesian``: distance of the background from the nearest head, as a share of the shorter
    side of the crop; 0: no background."""

    def __post_init__(self) -> None:
        terms = (*sorted(CLASSIFICATION_LOSSES), NO_CLASSIFICATION)
        if self.classification not in terms:
            raise ConfigError(
                f"loss.classification: unknown classification loss {self.classification!r}; "
                f"choose from: {', '.join(terms)}"
            )
        if self.count == "auto":
            object.__setattr__(self, "count", PUBLISHED_COUNT[self.classification])
        if self.count not in COUNT_LOSSES:
            known = ", ".join(sorted(COUNT_LOSSES))
            raise ConfigError(
                f"loss.count: unknown count loss {self.count!r}; choose from: auto, {known}"
            )
        if not (math.isfinite(self.count_weight) and self.count_weight >= 0):
            raise ConfigError(
                f"loss.count_weight: must be a number from 0 on, got {self.count_weight}"
            )
        if self.classification == NO_CLASSIFICATION and self.count_weight == 0:
            raise ConfigError(
                "loss.count_weight: 0, and with loss.classification = none there is no other term",
                next_step="give the count term a weight, or choose a classification term",
            )
        if self.count_target not in COUNT_TARGETS:
            raise ConfigError(
                f"loss.count_target: unknown target {self.count_target!r}; "
                f"choose from: {', '.join(COUNT_TARGETS)}"
            )
        self._check_multiscale()
        self._check_bayesian()

    def _check_multiscale(self) -> None:
        cells, weights = self.multiscale_cells, self.multiscale_weights
        if any(side < 1 for side in cells):
            raise ConfigError(f"loss.multiscale_cells: must be from 1 on, got {list(cells)}")
        if len(weights) != len(cells):
            raise ConfigError(
                f"loss.multiscale_weights: {len(weights)} for {len(cells)} sides of cells",
                next_step="give one weight for each entry of loss.multiscale_cells",
            )
        if not all(math.isfinite(weight) and weight >= 0 for weight in weights):
            raise ConfigError(
                f"loss.multiscale_weights: must be numbers from 0 on, got {list(weights)}"
            )

    def _check_bayesian(self) -> None:
        if not (math.isfinite(self.bayesian_sigma) and self.bayesian_sigma >= 1):
            raise ConfigError(
                f"loss.bayesian_sigma: must be at least 1 pixel, got {self.bayesian_sigma}"
            )
        if not (math.isfinite(self.bayesian_background) and self.bayesian_background >= 0):
            raise ConfigError(
                f"loss.bayesian_background: must be a number from 0 on, got "
                f"{self.bayesian_background}"
            )


@dataclass(frozen=True, kw_only=True)
class LossTerms:
    """The training loss and what it is made of; ``total`` is what is minimised."""

    total: Float[Tensor, ""]
    """Classification plus weighted count term."""

    classification: Float[Tensor, ""]
    """Classification term, in nats per image."""

    count: Float[Tensor, ""]
    """Count term, not weighted; in heads (``mse``: heads²) per image."""


def dace_loss(
    prediction: BlockPrediction, target: BlockTarget, bins: Bins, config: DaceConfig
) -> LossTerms:
    r"""Score a block prediction against true block counts.

    Computes :math:`L = L_{class} + \lambda L_{count}`. Each is summed over the blocks of an image
    and averaged over the batch (but see :func:`crowdcount.losses.count.dm`), so the total is in
    nats plus weighted heads per image and grows with the crop area. Computed in float32 at least,
    since thousands of blocks are summed. With "ce" and "dm" this is DACE, with "zip" and
    "multiscale" the loss of ZIP; with "none" the first term is 0.

    Blocks fuller than the last bin's start are of the last bin, so the classes are always those of
    corrected labels. With ``config.count_target`` "corrected" the other terms, too, see corrected
    counts and their sum as the heads of the image; points stay.

    Args:
        prediction: Logits over the bins, and expected heads, of each block.
        target: True heads of each block, not corrected.
        bins: Which counts are of which class.
        config: Which terms, against what, with which weight.

    Raises:
        ConfigError: If the classification term cannot work with these bins.

    Source:
        Ma et al., "CLIP-EBC", https://arxiv.org/abs/2403.09281, DACE loss.
    """
    if config.count_target == "corrected":
        target = _corrected(target, max_count=bins.max_count)
    if config.classification == NO_CLASSIFICATION:
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
    """The count term, given the settings that are its own."""
    settings: dict[str, dict[str, Any]] = {
        "multiscale": {"scales": config.multiscale_cells, "weights": config.multiscale_weights},
        "bayesian": {"sigma": config.bayesian_sigma, "background": config.bayesian_background},
    }
    return partial(COUNT_LOSSES[config.count], **settings.get(config.count, {}))


def _corrected(target: BlockTarget, *, max_count: int) -> BlockTarget:
    """Correct labels: clamp block counts to ``max_count``, as Ma et al. do on paper."""
    # The published code never clamps a count; its bins alone correct the classes.
    counts = target.counts.clamp(max=float(max_count))
    return dataclasses.replace(target, counts=counts, heads=counts.sum(dim=(1, 2, 3)))


def _at_least_float32(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return values.to(torch.promote_types(values.dtype, torch.float32))
