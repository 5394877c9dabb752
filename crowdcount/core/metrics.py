"""Errors of predicted counts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class CountMetrics:
    """Errors of image counts over a split."""

    mae: float
    """Mean absolute error, in heads: mean |p - t|."""

    rmse: float
    """Root of the mean squared error, in heads: sqrt(mean (p - t)^2). Tables often call it MSE."""

    nae: float | None
    """Normalised absolute error, mean |p - t| / t over images with heads; None without any."""

    images: int
    """Number of images in the means."""


def count_metrics(predicted: Sequence[float], true: Sequence[float]) -> CountMetrics:
    """Compute MAE, RMSE and NAE of the predicted and the annotated heads of images.

    Raises:
        ValueError: If there is no image, or the two differ in length.
    """
    if len(predicted) != len(true) or not true:
        raise ValueError(
            f"metrics need as many predicted as true counts, at least one; "
            f"got {len(predicted)} and {len(true)}"
        )
    errors = [abs(p - t) for p, t in zip(predicted, true, strict=True)]
    relative = [error / t for error, t in zip(errors, true, strict=True) if t > 0]
    return CountMetrics(
        mae=math.fsum(errors) / len(errors),
        rmse=math.sqrt(math.fsum(error**2 for error in errors) / len(errors)),
        nae=math.fsum(relative) / len(relative) if relative else None,
        images=len(errors),
    )
