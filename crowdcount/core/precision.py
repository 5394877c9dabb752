"""Number formats of a network's arithmetic; its predictions are always float32."""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crowdcount.core.types import BlockPrediction

Precision = Literal["fp32", "bf16", "fp16"]

PRECISIONS: dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
"""Types of matrix products and convolutions. Weights and their updates are always float32."""


def predict_blocks(
    network: Callable[[Tensor], BlockPrediction],
    images: Float[Tensor, "batch 3 height width"],
    *,
    precision: str,
) -> BlockPrediction:
    """Predict in the given precision and return float32.

    Losses and counts sum over thousands of blocks, for which half precision is too coarse.
    """
    dtype = PRECISIONS[precision]
    with torch.autocast(images.device.type, dtype=dtype, enabled=dtype != torch.float32):
        prediction = network(images)
    return BlockPrediction(logits=prediction.logits.float(), counts=prediction.counts.float())


def keep_weights(model: nn.Module, *, precision: str) -> None:
    """Store the weights of a model that only counts in the precision of its arithmetic.

    Otherwise :func:`predict_blocks` casts them for every image, to the same numbers. Everything
    except convolutions, linear layers and attention stays float32. Changes the model in place.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) or hasattr(module, "in_proj_weight"):
            module.to(PRECISIONS[precision])
