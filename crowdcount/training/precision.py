"""Which numbers the network computes with, and what has to be done about their range."""

import torch

from crowdcount.core.types import BlockPrediction

PRECISIONS: dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
"""Types of the matrix products and convolutions. Weights and their updates are float32 in each."""


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """A context in which the network computes with the numbers asked for."""
    dtype = PRECISIONS[precision]
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def gradient_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """Scales the loss so that small gradients survive float16; does nothing for other numbers."""
    return torch.amp.GradScaler(device.type, enabled=PRECISIONS[precision] == torch.float16)


def in_float32(prediction: BlockPrediction) -> BlockPrediction:
    """The same prediction in float32, for losses that sum over thousands of blocks."""
    return BlockPrediction(logits=prediction.logits.float(), counts=prediction.counts.float())
