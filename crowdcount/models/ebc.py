"""EBC: enhanced blockwise classification on the feature stages of a timm backbone."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crowdcount.core.bins import Bins
from crowdcount.core.image import Normalisation
from crowdcount.errors import ConfigError
from crowdcount.models.block_counter import BlockCounter
from crowdcount.models.config import ModelConfig
from crowdcount.models.neck import Neck, Refiner
from crowdcount.models.timm_encoders import activation_of, first_stages

TYPICAL_HEADS_PER_PIXEL = 1e-3
"""Initial prediction: ShanghaiTech part A has one head on 960 pixels."""

_LOWEST_START = -8.0  # a bin of lower log-probability dominates the loss at first


class EBC(BlockCounter):
    """A backbone with features at several strides, a neck, and a classification head."""

    def __init__(
        self, config: ModelConfig, bins: Bins, *, normalisation: Normalisation, encoder: nn.Module
    ) -> None:
        """Put neck and head on ``encoder``, a timm model made with ``features_only``.

        Raises:
            ConfigError: As for :class:`BlockCounter`, or if no features are as coarse as the blocks
                need, or the settings need an encoder of CLIP.
        """
        check_tuning(config, decoders=("paper", "zip"))
        stages: Any = encoder.feature_info
        strides = stages.reduction()
        super().__init__(config, bins, normalisation=normalisation, stride=max(strides))
        self.encoder = encoder
        self._channels_last = getattr(encoder, "output_fmt", None) == "NHWC"
        self.neck: Refiner | Neck
        if config.decoder == "zip":
            self.neck = Refiner(
                channels=stages.channels()[-1],
                stride=strides[-1],
                block=bins.block,
                activation=activation_of(encoder),
            )
            channels = self.neck.channels
        else:
            channels = config.neck_width
            self.neck = Neck(
                channels=stages.channels(),
                strides=strides,
                block=bins.block,
                width=channels,
                norm=config.neck_norm,
            )
        self.head = classification_head(channels, bins, kind=config.head)
        if config.tuning == "frozen":
            self.freeze(["encoder"])
        elif config.frozen_stages:
            names = first_stages(encoder, number=config.frozen_stages)
            self.freeze([f"encoder.{name}" for name in names])

    def block_logits(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch outputs rows cols"]:
        """Compute the logits of every block from the fused features of all stages."""
        height, width = images.shape[-2:]
        stages: Sequence[Tensor] = self.encoder(images)
        if self._channels_last:
            stages = [stage.permute(0, 3, 1, 2) for stage in stages]
        logits: Tensor = self.head(self.neck(stages, height=height, width=width))
        return logits


def check_tuning(config: ModelConfig, *, decoders: Sequence[str] = ("paper",)) -> None:
    """Raise ConfigError for settings that only other backbones have."""
    for setting, usual in (("decoder", decoders), ("projection_init", ("random",))):
        if (value := getattr(config, setting)) not in usual:
            raise ConfigError(
                f"model.{setting}: {value} is for {'timm' if value == 'zip' else 'CLIP'}'s "
                f"backbones, not for {config.backbone}",
                next_step="leave the setting out",
            )
    if config.tuning == "prompts":
        raise ConfigError(
            f"model.tuning: prompt tokens enter CLIP's transformers, not {config.backbone}",
            next_step="--set model.tuning=full, or frozen",
        )


def classification_head(channels: int, bins: Bins, *, kind: str = "ebc") -> nn.Sequential:
    """Build 1x1 convolutions from features to the outputs of a head.

    ``ebc`` has one output for each bin; ``zip`` two for empty and occupied, then one for each bin
    but the first; ``regression`` a single one. The last bias is initialised with the
    log-probabilities of a geometric distribution with the mean of a typical crowd, or with that
    mean, so that the total count of an untrained model has the right order of magnitude.

    Source:
        Ma et al., "CLIP-EBC", https://arxiv.org/abs/2403.09281; more than 512 channels are reduced
        to 512 first. The initial bias is ours, after the prior of Lin et al., "Focal Loss for Dense
        Object Detection", https://arxiv.org/abs/1708.02002.
    """
    hidden = 512
    layers: list[nn.Module] = []
    if channels > hidden:
        layers = [nn.Conv2d(channels, hidden, 1), nn.ReLU(inplace=True)]
    mean = bins.block**2 * TYPICAL_HEADS_PER_PIXEL
    log_ratio = math.log(mean / (1 + mean))
    start = (torch.tensor(bins.values) * log_ratio).clamp(min=_LOWEST_START)
    if kind == "zip":
        start = torch.cat([start[:1], start[1:].logsumexp(dim=0, keepdim=True), start[1:]])
    if kind == "regression":
        start = torch.tensor([mean])
    last = nn.Conv2d(min(channels, hidden), len(start), 1)
    nn.init.normal_(last.weight, std=0.01)
    last.bias = nn.Parameter(start)
    return nn.Sequential(*layers, last)
