"""Building a model: fresh for training, or empty for the weights of a checkpoint."""

import torch

from crowdcount.core.bins import Bins
from crowdcount.core.image import NORMALISATIONS, Normalisation
from crowdcount.errors import ConfigError
from crowdcount.models.backbones import BackboneSpec, backbone_spec
from crowdcount.models.block_counter import BlockCounter
from crowdcount.models.clip_ebc import ClipEBC, bin_prompts
from crowdcount.models.clip_image import (
    bare_clip_encoder,
    check_clip_weights,
    grid_encoder,
    own_projection,
    whole_clip,
)
from crowdcount.models.clip_text import orthonormalise, text_features, tokenise
from crowdcount.models.config import ModelConfig
from crowdcount.models.ebc import EBC
from crowdcount.models.encoder_decoder import (
    EncoderDecoder,
    check_torchvision_weights,
    network_parts,
)
from crowdcount.models.neck import Neck
from crowdcount.models.timm_encoders import check_timm_weights, timm_encoder


def build_model(
    config: ModelConfig,
    bins: Bins,
    *,
    normalisation: Normalisation | None = None,
    fresh: bool = True,
    offline: bool = False,
) -> BlockCounter:
    """Build a model for training, with the encoder's weights from the settings and the rest random.

    Random weights come from PyTorch's global generator, which the caller seeds. A normalisation of
    None is that of the settings. ``offline`` takes weights from a file or the libraries' caches;
    if not ``fresh``, none are taken.

    Raises:
        ConfigError: If the settings contradict the bins or the library.
        InputMissingError: If weights are missing and cannot be downloaded.
        UntrustedFileError: If reading the weights file would run code from it.
        BadInputError: If the weights file is damaged or not of this backbone.
    """
    spec = backbone_spec(config.backbone, pretrained=config.pretrained if fresh else "auto")
    if normalisation is None:
        normalisation = NORMALISATIONS.get(config.normalisation, spec.normalisation)
    model: BlockCounter
    if spec.family == "clip":
        model = _clip_ebc(config, bins, normalisation, spec=spec, fresh=fresh, offline=offline)
    elif spec.family == "timm":
        encoder = timm_encoder(spec, config if fresh else None, offline=offline)
        model = EBC(config, bins, normalisation=normalisation, encoder=encoder)
    else:
        parts = network_parts(spec, config if fresh else None, offline=offline, block=bins.block)
        model = EncoderDecoder(config, bins, normalisation=normalisation, parts=parts)
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


def empty_model(
    config: ModelConfig, bins: Bins, *, normalisation: Normalisation | None = None
) -> BlockCounter:
    """Build a model to load a state dict into, as :func:`build_model` does.

    Needs neither network nor pretrained weights; the sources of weights in ``config`` are ignored.
    """
    return build_model(config, bins, normalisation=normalisation, fresh=False, offline=True)


def check_weights(config: ModelConfig) -> None:
    """Refuse weights that the library of a backbone does not have. Downloads nothing.

    Raises:
        ConfigError: If :func:`build_model` would ask the library for such weights.
    """
    if config.weights is None and config.pretrained != "none":
        spec = backbone_spec(config.backbone, pretrained=config.pretrained)
        checks = {"clip": check_clip_weights, "timm": check_timm_weights}
        checks.get(spec.family, check_torchvision_weights)(spec)


def _clip_ebc(
    config: ModelConfig,
    bins: Bins,
    normalisation: Normalisation,
    *,
    spec: BackboneSpec,
    fresh: bool,
    offline: bool,
) -> ClipEBC:
    sentences = bin_prompts(config, bins)
    block, grid = bins.block, config.position_grid
    projection = None
    if fresh:
        clip = whole_clip(spec, config, offline=offline)
        untrained = config.weights is None and config.pretrained == "none"
        tokens = tokenise(spec, sentences, offline=offline, untrained=untrained)
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
        normalisation=normalisation,
        encoder=encoder,
        decoder=spec.decoder,
        text_features=features,
        projection=projection,
    )
