"""Building a model: fresh for training, or empty for the weights of a checkpoint."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from crowdcount.core.bins import Bins
from crowdcount.core.image import NORMALISATIONS, Normalisation
from crowdcount.errors import ConfigError
from crowdcount.models.backbones import BackboneSpec, backbone_spec
from crowdcount.models.block_counter import BlockCounter
from crowdcount.models.clip_ebc import ClipEBC, bin_prompts
from crowdcount.models.clip_image import (
    bare_clip_encoder,
    grid_encoder,
    own_projection,
    whole_clip,
)
from crowdcount.models.clip_text import orthonormalise, text_features, tokenise
from crowdcount.models.config import ModelConfig
from crowdcount.models.ebc import EBC
from crowdcount.models.encoder_decoder import LAYOUTS, EncoderDecoder, bare_parts, pretrained_parts
from crowdcount.models.neck import Neck
from crowdcount.models.timm_encoders import bare_timm_encoder, timm_encoder


@dataclass(frozen=True, kw_only=True)
class _Request:
    """A model to build."""

    spec: BackboneSpec
    config: ModelConfig
    bins: Bins
    normalisation: Normalisation
    fresh: bool
    """Whether its encoder gets the weights that the settings name; else all weights are random."""

    offline: bool
    """Download nothing."""


def build_model(
    config: ModelConfig,
    bins: Bins,
    *,
    normalisation: Normalisation | None = None,
    offline: bool = False,
) -> BlockCounter:
    """Build a model for training, with the encoder's weights from the settings and the rest random.

    Random weights come from PyTorch's global generator, which the caller seeds.

    Args:
        config: Settings.
        bins: The bins that it distinguishes.
        normalisation: Channel statistics; None: those of the settings.
        offline: Download nothing; weights come from a file or the libraries' caches.

    Raises:
        ConfigError: If the settings contradict the bins or the library.
        InputMissingError: If weights are missing and cannot be downloaded.
        UntrustedFileError: If reading the weights file would run code from it.
        BadInputError: If the weights file is damaged or not of this backbone.
    """
    return _build(config, bins, normalisation, fresh=True, offline=offline)


def empty_model(
    config: ModelConfig, bins: Bins, *, normalisation: Normalisation | None = None
) -> BlockCounter:
    """Build a model to load a state dict into, as :func:`build_model` does.

    Needs neither network nor pretrained weights; the sources of weights in ``config`` are ignored.
    """
    return _build(config, bins, normalisation, fresh=False, offline=True)


def _build(
    config: ModelConfig,
    bins: Bins,
    normalisation: Normalisation | None,
    *,
    fresh: bool,
    offline: bool,
) -> BlockCounter:
    """Build a model and apply the settings that all families share."""
    spec = backbone_spec(config.backbone, pretrained=config.pretrained if fresh else "auto")
    if normalisation is None:
        normalisation = NORMALISATIONS.get(config.normalisation, spec.normalisation)
    request = _Request(
        spec=spec,
        config=config,
        bins=bins,
        normalisation=normalisation,
        fresh=fresh,
        offline=offline,
    )
    model = FAMILIES[spec.family](request)
    if config.neck_norm != "batch" and not any(isinstance(m, Neck) for m in model.modules()):
        raise ConfigError(
            f"model.neck_norm: {config.neck_norm}, and {config.backbone} has no neck",
            next_step="leave the setting out, or choose a timm: backbone or model.decoder = slim",
        )
    if config.frozen_statistics:
        model.freeze_statistics()
    if config.frozen_head_statistics:
        model.freeze_statistics(head=True)
    return model


def _ebc(request: _Request) -> EBC:
    if request.fresh:
        encoder = timm_encoder(request.spec, request.config, offline=request.offline)
    else:
        encoder = bare_timm_encoder(request.spec)
    return EBC(request.config, request.bins, normalisation=request.normalisation, encoder=encoder)


def _encoder_decoder(request: _Request) -> EncoderDecoder:
    spec, config, bins = request.spec, request.config, request.bins
    if request.fresh:
        parts = pretrained_parts(spec, config, offline=request.offline, block=bins.block)
    else:
        parts = bare_parts(spec, block=bins.block)
    return EncoderDecoder(config, bins, normalisation=request.normalisation, parts=parts)


def _clip_ebc(request: _Request) -> ClipEBC:
    spec, config, bins = request.spec, request.config, request.bins
    sentences = bin_prompts(config, bins)
    block, grid = bins.block, config.position_grid
    projection = None
    if request.fresh:
        clip = whole_clip(spec, config, offline=request.offline)
        untrained = config.weights is None and config.pretrained == "none"
        tokens = tokenise(spec, sentences, offline=request.offline, untrained=untrained)
        features = text_features(clip, tokens)
        if untrained:
            features = orthonormalise(features)
        if config.projection_init == "clip":
            projection = own_projection(clip.visual)
            if projection is None:
                raise ConfigError(
                    f"model.projection_init: {config.backbone} has no projection of its own that "
                    "is known",
                    next_step="--set model.projection_init=random",
                )
        encoder = grid_encoder(clip.visual.train(), spec, block=block, position_grid=grid)
    else:
        encoder = bare_clip_encoder(spec, block=block, position_grid=grid)
        features = torch.zeros(len(sentences), encoder.embedding)
    return ClipEBC(
        config,
        bins,
        normalisation=request.normalisation,
        encoder=encoder,
        decoder=spec.decoder,
        text_features=features,
        projection=projection,
    )


FAMILIES: dict[str, Callable[[_Request], BlockCounter]] = {
    "clip": _clip_ebc,
    "timm": _ebc,
    **dict.fromkeys(LAYOUTS, _encoder_decoder),
}
"""Builders of the models of each family of backbones, by ``BackboneSpec.family``."""
