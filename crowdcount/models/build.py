"""A model from its settings: fresh for training, or empty for the weights of a checkpoint."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from crowdcount.core.bins import Bins
from crowdcount.core.image import NORMALISATIONS, Normalisation
from crowdcount.errors import ConfigError
from crowdcount.models.backbones import BackboneSpec, backbone_spec
from crowdcount.models.block_counter import BlockCounter
from crowdcount.models.clip_ebc import ClipEBC, bin_prompts
from crowdcount.models.clip_image import (
    ClipImageEncoder,
    ClipProjection,
    bare_clip_encoder,
    grid_encoder,
    own_projection,
    whole_clip,
)
from crowdcount.models.clip_text import at_right_angles, text_features, tokenised
from crowdcount.models.config import ModelConfig
from crowdcount.models.ebc import EBC
from crowdcount.models.encoder_decoder import (
    LAYOUTS,
    EncoderDecoder,
    bare_parts,
    pretrained_parts,
)
from crowdcount.models.neck import Neck
from crowdcount.models.timm_encoders import bare_timm_encoder, timm_encoder


@dataclass(frozen=True, kw_only=True)
class Order:
    """Everything that decides what is built."""

    spec: BackboneSpec
    config: ModelConfig
    bins: Bins
    normalisation: Normalisation


@dataclass(frozen=True, kw_only=True)
class Family:
    """The two ways to build the models of one family of backbones."""

    fresh: Callable[[Order, bool], BlockCounter]
    """With the weights that the settings ask for; the flag forbids downloads."""

    empty: Callable[[Order], BlockCounter]
    """With weights of no meaning, from no file and no network."""


def build_model(
    config: ModelConfig,
    bins: Bins,
    *,
    normalisation: Normalisation | None = None,
    offline: bool = False,
) -> BlockCounter:
    """A model for training: its encoder as the settings ask, everything else random.

    Random weights come from PyTorch's global generator, which the caller seeds.

    Args:
        config: Settings.
        bins: The bins to tell apart.
        normalisation: Channel statistics; None: those the settings mean.
        offline: Download nothing; weights come from a file or the libraries' caches.

    Raises:
        ConfigError: If the settings contradict the bins or the library.
        InputMissingError: If weights are missing and cannot be downloaded.
        UntrustedFileError: If reading the weights file would run code from it.
        BadInputError: If the weights file is damaged or not of this backbone.
    """
    spec = backbone_spec(config.backbone, pretrained=config.pretrained)
    order = _order(spec, config, bins, normalisation=normalisation)
    return _settled(FAMILIES[order.spec.family].fresh(order, offline))


def empty_model(
    config: ModelConfig, bins: Bins, *, normalisation: Normalisation | None = None
) -> BlockCounter:
    """A model to load a state dict into. Needs neither network nor weights.

    Args:
        config: Settings; weights and pretraining in it are ignored.
        bins: The bins to tell apart.
        normalisation: Channel statistics; None: those the settings mean.

    Raises:
        ConfigError: If the settings contradict the bins or the library.
    """
    order = _order(backbone_spec(config.backbone), config, bins, normalisation=normalisation)
    return _settled(FAMILIES[order.spec.family].empty(order))


def _settled(model: BlockCounter) -> BlockCounter:
    """What the settings say of every model, whatever its family."""
    if model.config.neck_norm != "batch" and not any(isinstance(m, Neck) for m in model.modules()):
        raise ConfigError(
            f"model.neck_norm: {model.config.neck_norm}, and {model.config.backbone} has no neck",
            next_step="leave the setting out, or choose a timm: backbone or model.decoder = slim",
        )
    if model.config.frozen_statistics:
        model.freeze_statistics()
    if model.config.frozen_head_statistics:
        model.freeze_statistics(head=True)
    return model


def _order(
    spec: BackboneSpec, config: ModelConfig, bins: Bins, *, normalisation: Normalisation | None
) -> Order:
    usual = NORMALISATIONS.get(config.normalisation, spec.normalisation)
    return Order(spec=spec, config=config, bins=bins, normalisation=normalisation or usual)


def _fresh_ebc(order: Order, offline: bool) -> EBC:
    encoder = timm_encoder(order.spec, order.config, offline=offline)
    return EBC(order.config, order.bins, normalisation=order.normalisation, encoder=encoder)


def _empty_ebc(order: Order) -> EBC:
    encoder = bare_timm_encoder(order.spec)
    return EBC(order.config, order.bins, normalisation=order.normalisation, encoder=encoder)


def _fresh_encoder_decoder(order: Order, offline: bool) -> EncoderDecoder:
    parts = pretrained_parts(order.spec, order.config, offline=offline, block=order.bins.block)
    return EncoderDecoder(order.config, order.bins, normalisation=order.normalisation, parts=parts)


def _empty_encoder_decoder(order: Order) -> EncoderDecoder:
    parts = bare_parts(order.spec, block=order.bins.block)
    return EncoderDecoder(order.config, order.bins, normalisation=order.normalisation, parts=parts)


def _fresh_clip(order: Order, offline: bool) -> ClipEBC:
    clip = whole_clip(order.spec, order.config, offline=offline)
    sentences = bin_prompts(order.config, order.bins)
    untrained = order.config.weights is None and order.config.pretrained == "none"
    tokens = tokenised(order.spec, sentences, offline=offline, untrained=untrained)
    features = text_features(clip, tokens)
    if untrained:
        features = at_right_angles(features)
    projection = None
    if order.config.projection_init == "clip":
        projection = own_projection(clip.visual)
        if projection is None:
            raise ConfigError(
                f"model.projection_init: {order.config.backbone} has no projection of its own that "
                "is known",
                next_step="--set model.projection_init=random",
            )
    encoder = grid_encoder(
        clip.visual.train(),
        order.spec,
        block=order.bins.block,
        position_grid=order.config.position_grid,
    )
    return _clip_ebc(order, encoder, features, projection)


def _empty_clip(order: Order) -> ClipEBC:
    encoder = bare_clip_encoder(
        order.spec, block=order.bins.block, position_grid=order.config.position_grid
    )
    features = torch.zeros(len(bin_prompts(order.config, order.bins)), encoder.embedding)
    return _clip_ebc(order, encoder, features)


def _clip_ebc(
    order: Order,
    encoder: ClipImageEncoder,
    features: Tensor,
    projection: ClipProjection | None = None,
) -> ClipEBC:
    return ClipEBC(
        order.config,
        order.bins,
        normalisation=order.normalisation,
        encoder=encoder,
        decoder=order.spec.decoder,
        text_features=features,
        projection=projection,
    )


FAMILIES: dict[str, Family] = {
    "clip": Family(fresh=_fresh_clip, empty=_empty_clip),
    "timm": Family(fresh=_fresh_ebc, empty=_empty_ebc),
    **dict.fromkeys(LAYOUTS, Family(fresh=_fresh_encoder_decoder, empty=_empty_encoder_decoder)),
}
"""How models on each family of backbones are built; ``BackboneSpec.family`` is the key."""
