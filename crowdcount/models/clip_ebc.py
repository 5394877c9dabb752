"""ClipEBC: blocks are classified by comparing them with sentences about numbers of people."""

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from crowdcount.core.bins import Bins
from crowdcount.core.image import Normalisation
from crowdcount.errors import ConfigError
from crowdcount.models.block_counter import BlockCounter
from crowdcount.models.clip_image import ClipImageEncoder, ClipProjection, level_features
from crowdcount.models.config import ModelConfig
from crowdcount.models.grid_transformer import GridTransformer, PromptTokens
from crowdcount.models.neck import Neck
from crowdcount.models.prompts import occupied_prompt, prompt
from crowdcount.models.residual import BasicBlock, Bottleneck

SLIM_WIDTH = 256
"""Channels of the slim decoder."""

FIRST_TEMPERATURE = 0.07
"""Initial temperature by which cosines are divided, as in CLIP."""


class ClipEBC(BlockCounter):
    """CLIP's image encoder, a decoder, and the cosine between each block and each bin's sentence.

    The features of the sentences are a buffer, so a checkpoint holds them and needs no text
    encoder. With the head ``zip`` a second projection, with its own scale, is compared with two
    sentences that distinguish empty from occupied blocks; the first one then chooses among the
    occupied bins.

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
        projection: ClipProjection | None = None,
    ) -> None:
        """Put a decoder on CLIP's image encoder.

        ``decoder`` holds widths as in ``BackboneSpec``, ``text_features`` CLIP's features of the
        sentences of :func:`bin_prompts`, of any length. The projection to CLIP's embedding starts
        from ``projection``, or from random weights.

        Raises:
            ConfigError: As for :class:`BlockCounter`, or if the encoder cannot be tuned like this,
                or the projection expects features of another width than the decoder's.
        """
        if config.head == "regression":
            raise ConfigError(
                f"model.head: regression reads no sentences, which is all {config.backbone} does",
                next_step="--set model.head=ebc or zip, or a backbone without CLIP",
            )
        if config.decoder == "zip":
            raise ConfigError(
                f"model.decoder: zip is for timm's backbones, not for {config.backbone}",
                next_step="leave the setting out",
            )
        super().__init__(config, bins, normalisation=normalisation, stride=encoder.stride)
        self.prompts = bin_prompts(config, bins)
        self.encoder = encoder.network
        widths = [encoder.channels, *(decoder or (encoder.channels,))]
        is_transformer = isinstance(encoder.network, GridTransformer)
        residual = BasicBlock if is_transformer else Bottleneck
        if config.decoder == "slim":
            self.decoder: Neck | nn.Sequential = _slim_decoder(config, encoder)
            widths = [SLIM_WIDTH]
        else:
            self.decoder = nn.Sequential(*(residual(*pair) for pair in itertools.pairwise(widths)))
        self.projection = nn.Conv2d(widths[-1], encoder.embedding, 1)
        if projection is not None:
            self._start_projection(projection)
        self.logit_scale = nn.Parameter(torch.tensor(-math.log(FIRST_TEMPERATURE)))
        if config.head == "zip":
            self.occupancy_projection = nn.Conv2d(widths[-1], encoder.embedding, 1)
            self.occupancy_scale = nn.Parameter(torch.tensor(-math.log(FIRST_TEMPERATURE)))
            self.register_buffer("occupancy_features", text_features[:2].clone())
            text_features = text_features[2:].clone()
        self.register_buffer("text_features", text_features)
        if config.decoder == "slim":
            _start_at_first(self.projection, self.text_features)
            if config.head == "zip":
                _start_at_first(self.occupancy_projection, self.occupancy_features)
        tuning = _tuning(config, encoder)
        self.prompt_tokens: PromptTokens | None = None
        if tuning == "prompts":
            self.prompt_tokens = PromptTokens(
                blocks=len(encoder.stages),
                tokens=config.prompt_tokens,
                patch=encoder.stride,
                width=encoder.channels,
                depth=config.prompt_depth,
                dropout=config.prompt_dropout,
            )
        if tuning == "full":
            stages = encoder.stages[: config.frozen_stages]
            self.freeze([f"encoder.{name}" for names in stages for name in names])
        else:
            self.freeze(["encoder"])

    def _start_projection(self, own: ClipProjection) -> None:
        """Initialise the projection with CLIP's own weights."""
        weight = own.weight[:, :, None, None]
        if self.projection.weight.shape != weight.shape:
            raise ConfigError(
                f"model.projection_init: clip, but {self.config.backbone} projects "
                f"{weight.shape[1]} channels and its decoder ({self.config.decoder}) gives "
                f"{self.projection.in_channels}",
                next_step="--set model.projection_init=random",
            )
        with torch.no_grad():
            self.projection.weight.copy_(weight)
            if self.projection.bias is not None:
                self.projection.bias.copy_(own.bias)

    def _decoded(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch channels rows cols"]:
        """Compute the features of every block that are compared with sentences."""
        height, width = images.shape[-2:]
        prompts = () if self.prompt_tokens is None else (self.prompt_tokens(len(images)),)
        if isinstance(self.decoder, Neck):
            levels = level_features(self.encoder, images, *prompts)
            pyramid: Tensor = self.decoder(levels, height=height, width=width)
            return pyramid
        grid = (height // self.config.block, width // self.config.block)
        decoded: Tensor = self.encoder(images, *prompts)
        for block in self.decoder:
            decoded = block(decoded, grid)
        return decoded

    def block_logits(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch outputs rows cols"]:
        """Compute scaled cosines between the features of every block and every sentence."""
        features = self._decoded(images)
        logits = self.logit_scale.exp() * _cosines(self.projection(features), self.text_features)
        if self.config.head == "zip":
            cosines = _cosines(self.occupancy_projection(features), self.occupancy_features)
            logits = torch.cat([self.occupancy_scale.exp() * cosines, logits], dim=1)
        return logits


def _slim_decoder(config: ModelConfig, encoder: ClipImageEncoder) -> Neck:
    """Build the light pyramid that replaces the published decoder."""
    if not encoder.levels:
        raise ConfigError(
            "model.decoder: slim takes CLIP's ResNets and vision transformers, not "
            f"{config.backbone}",
            next_step="--set model.decoder=paper",
        )
    channels, strides = zip(*encoder.levels, strict=True)
    return Neck(
        channels=channels,
        strides=strides,
        block=config.block,
        width=SLIM_WIDTH,
        norm=config.neck_norm,
    )


@torch.no_grad()
def _start_at_first(projection: nn.Conv2d, sentences: Float[Tensor, "sentences embedding"]) -> None:
    """Initialise a projection so that every block is nearest to the first sentence.

    Most blocks are empty. With another bias an untrained model predicts two heads a block, and
    spends its first hundreds of steps on unlearning that.
    """
    first, *others = F.normalize(sentences, dim=1)
    towards = F.normalize(first - torch.stack(others).mean(dim=0), dim=0)
    # About as long as the contribution of the random weights.
    projection.bias = nn.Parameter(towards * math.sqrt(projection.out_channels) / 2)


def bin_prompts(config: ModelConfig, bins: Bins) -> tuple[str, ...]:
    """Return the sentence of each bin; for ``zip`` with that of an occupied block as the second."""
    style, template = config.prompts, config.prompt_template
    empty, *filled = (prompt(*ends, style=style, template=template) for ends in bins.ranges)
    if config.head == "zip":
        return (empty, occupied_prompt(style=style, template=template), *filled)
    return (empty, *filled)


def _tuning(config: ModelConfig, encoder: ClipImageEncoder) -> str:
    """Resolve the setting ``tuning`` for an encoder, or refuse it."""
    is_transformer = isinstance(encoder.network, GridTransformer)
    tuning = config.tuning
    if tuning == "auto":
        tuning = "prompts" if is_transformer else "full"
    if tuning == "prompts" and not is_transformer:
        raise ConfigError(
            f"model.tuning: {config.backbone} is no transformer, so no prompt tokens enter it",
            next_step="--set model.tuning=full, or frozen",
        )
    if tuning != "full" and config.frozen_stages:
        raise ConfigError(
            f"model.frozen_stages: with model.tuning={tuning} all stages are frozen already",
            next_step="--set model.tuning=full",
        )
    if config.frozen_stages > len(encoder.stages):
        raise ConfigError(
            f"model.frozen_stages: {config.backbone} has {len(encoder.stages)} stages, "
            f"got {config.frozen_stages}"
        )
    return tuning


def _cosines(
    features: Float[Tensor, "batch embedding rows cols"],
    sentences: Float[Tensor, "sentences embedding"],
) -> Float[Tensor, "batch sentences rows cols"]:
    # A convolution reads the features in their memory layout, and only the few maps are divided.
    directions = F.normalize(sentences, dim=1)[:, :, None, None]
    lengths = torch.linalg.vector_norm(features, dim=1, keepdim=True).clamp(min=1e-12)
    cosines: Tensor = F.conv2d(features, directions.to(features)) / lengths
    return cosines
