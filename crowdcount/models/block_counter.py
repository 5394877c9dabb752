"""BlockCounter: the base class of all models, which handles images of any size."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from crowdcount.core.bins import Bins, expected_counts, format_range
from crowdcount.core.image import Normalisation
from crowdcount.core.types import BlockPrediction, pad_to_multiple
from crowdcount.errors import ConfigError
from crowdcount.models.config import ModelConfig


class BlockCounter(nn.Module, ABC):
    """Predict the bin probabilities and the expected heads of every block of images in [0, 1].

    A subclass computes logits for images whose sides are multiples of the block and of its
    strides. This class normalises, pads, crops and takes the expectation.

    Attributes:
        config: The settings it was built from.
        bins: The bins that it distinguishes.
        normalisation: The channel statistics that it applies.
        stride: The coarsest stride of the network, in pixels: sides are padded to multiples.
        prompts: The sentences that blocks are compared with; None: no network of CLIP.
        frozen: Names of the modules and parameters that are not trained.
        fixed_statistics: Names of the batch norms that keep their statistics in training.
    """

    mean: Tensor
    std: Tensor
    bin_values: Tensor
    prompts: tuple[str, ...] | None = None
    frozen: tuple[str, ...] = ()
    fixed_statistics: tuple[str, ...] = ()

    def __init__(
        self, config: ModelConfig, bins: Bins, *, normalisation: Normalisation, stride: int
    ) -> None:
        """Store the settings, bins and statistics.

        Raises:
            ConfigError: If settings and bins are for blocks of different sides, or the head cannot
                distinguish these bins.
        """
        super().__init__()
        if config.block != bins.block:
            raise ConfigError(
                f"model.block: {config.block}, but the bins were made for blocks of {bins.block}",
                next_step=f"make bins for blocks of {config.block} pixels, or change the setting",
            )
        if config.head == "zip" and bins.starts[1] != 1:
            raise ConfigError(
                f"model.head: zip needs a bin for empty blocks alone, and the first bin is "
                f"{format_range(*bins.ranges[0])}",
                next_step="use bins that start 0, 1, or --set model.head=ebc",
            )
        self.config = config.resolved()
        self.bins = bins
        self.normalisation = normalisation
        self.stride = stride
        self.register_buffer("mean", torch.tensor(normalisation.mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(normalisation.std).view(3, 1, 1))
        self.register_buffer("bin_values", torch.tensor(bins.values))

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> BlockPrediction:
        """Predict the blocks of RGB images in [0, 1].

        The maps have ``ceil(height / block)`` rows and ``ceil(width / block)`` columns; the last
        ones may be partial blocks. Plain regression has no bins, so no logits.
        """
        return self.from_normalised(self.normalised(images))

    def normalised(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """Normalise the channels of RGB images in [0, 1]."""
        return (images - self.mean) / self.std

    def from_normalised(self, images: Float[Tensor, "batch 3 height width"]) -> BlockPrediction:
        """Predict the blocks of normalised images.

        Images are padded at the bottom and the right with zeros, which is the mean colour.
        """
        height, width = images.shape[-2:]
        padded = pad_to_multiple(images, math.lcm(self.stride, self.config.block))
        if self.training:
            # Batch normalisation needs more than one value; the deepest stage of an image as small
            # as the stride has one.
            padded = F.pad(padded, (0, max(2 * self.stride - padded.shape[-1], 0)))
        rows, cols = -(-height // self.config.block), -(-width // self.config.block)
        logits = self.block_logits(padded)[..., :rows, :cols]
        if self.config.head == "regression":
            return BlockPrediction(logits=logits[:, :0], counts=F.relu(logits))
        if self.config.head == "zip":
            logits = zero_inflated(logits[:, :2], logits[:, 2:])
        return BlockPrediction(logits=logits, counts=expected_counts(logits, self.bin_values))

    def freeze(self, names: Sequence[str]) -> None:
        """Exclude modules and parameters from training.

        Their parameters get no gradient, and the modules stay in evaluation mode: no dropout, and
        batch normalisation with its stored statistics.
        """
        self.frozen = (*self.frozen, *names)
        for name, parameter in self.named_parameters():
            if f"{name}.".startswith(tuple(f"{frozen}." for frozen in self.frozen)):
                parameter.requires_grad = False
        self.train(self.training)

    def freeze_statistics(self, *, head: bool = False) -> None:
        """Make batch normalisation use its stored statistics in training, too.

        Args:
            head: Choose the batch normalisation behind the encoder, not the encoder's.

        Raises:
            ConfigError: If there is none.
        """
        names = [
            name
            for name, module in self.named_modules()
            if isinstance(module, nn.BatchNorm2d) and name.startswith("encoder.") is not head
        ]
        if not names:
            setting = "frozen_head_statistics" if head else "frozen_statistics"
            part = "head" if head else "encoder"
            raise ConfigError(
                f"model.{setting}: the {part} of {self.config.backbone} has no batch normalisation",
                next_step="leave the setting out",
            )
        self.fixed_statistics = (*self.fixed_statistics, *names)
        self.train(self.training)

    def train(self, mode: bool = True) -> "BlockCounter":
        """Set the mode of all modules that are not frozen."""
        super().train(mode)
        for name, module in self.named_modules():
            if name in self.frozen or name in self.fixed_statistics:
                module.eval()
        return self

    @abstractmethod
    def block_logits(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch outputs rows cols"]:
        """Compute the outputs of the head for every block of normalised images.

        ``ebc``: the logits of the bins; ``zip``: those of empty and occupied, then of the other
        bins; ``regression``: the heads of the block before ReLU. Sides are multiples of both the
        block side and the network's strides.
        """


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
