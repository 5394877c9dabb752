"""ClipEBC: blocks classified by comparing them with sentences about how many people are there."""

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from crowdcount.core.bins import Bins
from crowdcount.core.image import Normalisation
from crowdcount.models.block_counter import BlockCounter
from crowdcount.models.clip_encoders import ClipImageEncoder
from crowdcount.models.config import ModelConfig
from crowdcount.models.heads import zero_inflated
from crowdcount.models.prompts import occupied_prompt, prompt

FIRST_TEMPERATURE = 0.07
"""Cosines are divided by it before training changes it, as in CLIP."""


class ClipEBC(BlockCounter):
    """CLIP's image encoder, a decoder, and the cosine between each block and each bin's sentence.

    The features of the sentences are a buffer: a checkpoint holds them, and no text encoder. With
    the head ``zip`` a second projection, with a scale of its own, is compared with two sentences
    that tell empty from occupied blocks; the first then chooses among the bins that are occupied.

    Source:
        Ma et al., "CLIP-EBC", https://arxiv.org/abs/2403.09281, and "ZIP",
        https://arxiv.org/abs/2506.19955, for the second projection.
    """

    text_features: Tensor
    occupancy_features: Tensor

    def __init__(
        self,
        config: ModelConfig,
        bins: Bins,
        *,
        normalisation: Normalisation,
        encoder: ClipImageEncoder,
        decoder: Sequence[int],
        text_features: Float[Tensor, "sentences embedding"],
    ) -> None:
        """Put a decoder on CLIP's image encoder.

        Args:
            config: Settings.
            bins: The bins to tell apart.
            normalisation: Channel statistics to apply to images.
            encoder: CLIP's image encoder.
            decoder: Widths of the decoder's residual blocks.
            text_features: CLIP's features of the sentences of :func:`bin_prompts`, of any length.

        Raises:
            ConfigError: If settings and bins are for blocks of different sides, or the head cannot
                tell these bins apart.
        """
        super().__init__(config, bins, normalisation=normalisation, stride=encoder.stride)
        self.prompts = bin_prompts(config, bins)
        self.encoder = encoder.network
        widths = [encoder.channels, *decoder]
        self.decoder = nn.Sequential(*(Bottleneck(*pair) for pair in itertools.pairwise(widths)))
        self.projection = nn.Conv2d(widths[-1], encoder.embedding, 1)
        self.logit_scale = nn.Parameter(torch.tensor(-math.log(FIRST_TEMPERATURE)))
        if config.head == "zip":
            self.occupancy_projection = nn.Conv2d(widths[-1], encoder.embedding, 1)
            self.occupancy_scale = nn.Parameter(torch.tensor(-math.log(FIRST_TEMPERATURE)))
            self.register_buffer("occupancy_features", text_features[:2].clone())
            text_features = text_features[2:].clone()
        self.register_buffer("text_features", text_features)

    def block_logits(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch bins rows cols"]:
        """Scaled cosines between the features of every block and those of every sentence.

        For ``zip`` those of the two heads, joined to log-probabilities of all bins.
        """
        block = self.config.block
        grid = (images.shape[-2] // block, images.shape[-1] // block)
        features: Tensor = self.encoder(images)
        if features.shape[-2:] != grid:
            features = F.interpolate(features, size=grid, mode="bilinear", align_corners=False)
        features = self.decoder(features)
        logits = self.logit_scale.exp() * _cosines(self.projection(features), self.text_features)
        if self.config.head == "zip":
            compared = _cosines(self.occupancy_projection(features), self.occupancy_features)
            return zero_inflated(self.occupancy_scale.exp() * compared, logits)
        return logits


class Bottleneck(nn.Module):
    """A residual block of 1x1, 3x3 and 1x1 convolutions, all of full width."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.downsample: nn.Module = nn.Identity()
        if channels != width:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width)
            )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(
        self, features: Float[Tensor, "batch channels rows cols"]
    ) -> Float[Tensor, "batch width rows cols"]:
        """The block's change of the features, added to them."""
        change = F.relu(self.bn1(self.conv1(features)), inplace=True)
        change = F.relu(self.bn2(self.conv2(change)), inplace=True)
        change = self.bn3(self.conv3(change))
        return F.relu(change + self.downsample(features), inplace=True)


def bin_prompts(config: ModelConfig, bins: Bins) -> tuple[str, ...]:
    """The sentence of each bin; for ``zip`` with that of an occupied block behind the first."""
    empty, *filled = (prompt(low, high, style=config.prompts) for low, high in bins.ranges)
    if config.head == "zip":
        return (empty, occupied_prompt(style=config.prompts), *filled)
    return (empty, *filled)


def _cosines(
    features: Float[Tensor, "batch embedding rows cols"],
    sentences: Float[Tensor, "sentences embedding"],
) -> Float[Tensor, "batch sentences rows cols"]:
    features, sentences = F.normalize(features, dim=1), F.normalize(sentences, dim=1)
    return torch.einsum("bdrc,kd->bkrc", features, sentences.to(features))
