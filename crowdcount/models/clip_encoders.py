"""CLIP by the library open_clip: image encoders that keep their grid, and features of sentences."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crowdcount.models.backbones import BackboneSpec, check_tag
from crowdcount.models.config import ModelConfig
from crowdcount.models.hub import downloads
from crowdcount.models.state_dicts import match_tensors, read_tensors

STRIDE = 32
FINE_STRIDE = 16
"""Stride of CLIP's ResNets whose last stage does not halve the grid."""


@dataclass(frozen=True, kw_only=True)
class ClipImageEncoder:
    """The image side of CLIP without its pooling, and what has to be known to use it."""

    network: nn.Module
    """Images to features, one vector for each cell of ``stride`` x ``stride`` pixels."""

    stride: int
    channels: int
    embedding: int
    """Channels that CLIP's images and sentences share."""


def whole_clip(spec: BackboneSpec, config: ModelConfig, *, offline: bool) -> Any:
    """CLIP with images and text, with the weights that the settings ask for.

    Raises:
        ConfigError: If open_clip has no such weights.
        InputMissingError: If weights are missing and cannot be downloaded.
        BadInputError: If the weights file is not of this model.
    """
    if config.weights is not None:
        clip = random_clip(spec)
        tensors = match_tensors(
            read_tensors(Path(config.weights)),
            clip.state_dict(),
            model=f"open_clip's {spec.library_name}",
            optional=("visual.attnpool.", "logit_scale"),
        )
        clip.load_state_dict(tensors, strict=False)
        return clip
    if config.pretrained == "none":
        return random_clip(spec)
    return _library_clip(spec, offline=offline)


def random_clip(spec: BackboneSpec) -> Any:
    """CLIP with images and text, with random weights."""
    import open_clip

    with _quiet_root_logger():
        return open_clip.create_model(spec.library_name)


def bare_clip_encoder(spec: BackboneSpec, *, block: int) -> ClipImageEncoder:
    """The image side alone, with random weights, for blocks of ``block`` pixels."""
    import open_clip
    from open_clip.modified_resnet import ModifiedResNet

    shape = open_clip.get_model_config(spec.library_name)
    vision = shape["vision_cfg"]
    resnet = ModifiedResNet(
        layers=vision["layers"],
        output_dim=shape["embed_dim"],
        heads=vision["width"] * 32 // vision.get("head_width", 64),
        image_size=vision["image_size"],
        width=vision["width"],
    )
    return grid_encoder(resnet, block=block)


def grid_encoder(resnet: Any, *, block: int) -> ClipImageEncoder:
    """Turn CLIP's ResNet, in place, into one that ends with a grid of features.

    The attention pool goes. For blocks of up to 16 pixels the last stage keeps the grid of the one
    before: its average pools, that of the shortcut too, become identities, which have no weights
    either.
    """
    resnet.attnpool = nn.Identity()
    fine = block <= FINE_STRIDE
    if fine:
        resnet.layer4[0].avgpool = nn.Identity()
        resnet.layer4[0].downsample[0] = nn.Identity()
    return ClipImageEncoder(
        network=resnet,
        stride=FINE_STRIDE if fine else STRIDE,
        channels=resnet.layer4[-1].conv3.out_channels,
        embedding=resnet.output_dim,
    )


@torch.no_grad()
def text_features(
    clip: Any, spec: BackboneSpec, sentences: Sequence[str]
) -> Float[Tensor, "sentences embedding"]:
    """What CLIP's text encoder makes of sentences; not normalised."""
    import open_clip

    with _quiet_root_logger():
        tokens = open_clip.get_tokenizer(spec.library_name)(list(sentences))
    features: Tensor = clip.eval().encode_text(tokens)
    return features


def _library_clip(spec: BackboneSpec, *, offline: bool) -> Any:
    import open_clip

    model, tag = spec.library_name, spec.tag
    check_tag("open_clip", model, tag=tag, known=open_clip.list_pretrained_tags_by_model(model))
    weights = open_clip.get_pretrained_cfg(model, tag)
    source = weights.get("hf_hub") or weights["url"]
    with (
        _quiet_root_logger(),
        downloads(f"open_clip's {model} ({tag})", source=source, offline=offline),
    ):
        return open_clip.create_model(model, pretrained=tag)


@contextmanager
def _quiet_root_logger() -> Iterator[None]:
    """Keep open_clip from setting up logging to stderr for the whole process.

    It logs through ``logging.info`` and the like, which give a root logger without handlers one.
    """
    handler = logging.NullHandler()
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
