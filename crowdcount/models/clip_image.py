"""CLIP by the library open_clip: the whole model, and its image encoder with a grid of features."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor, nn

from crowdcount.errors import ConfigError
from crowdcount.models.backbones import BACKBONES, OPEN_CLIP_PREFIX, BackboneSpec, check_tag
from crowdcount.models.checkpoints.hub import OPEN_CLIP_FILES, weights_file
from crowdcount.models.checkpoints.tensor_files import match_tensors, read_tensors
from crowdcount.models.config import ModelConfig
from crowdcount.models.grid_transformer import GridTransformer, from_open_clip, from_timm

STRIDE = 32
FINE_STRIDE = 16
"""Stride of CLIP's ResNets whose last stage does not halve the grid."""

_NO_TEXT = {"context_length": 1, "vocab_size": 1, "width": 8, "heads": 1, "layers": 1}
"""The smallest text encoder, for a CLIP that only encodes images."""

_COMPARED = ("logit_scale", "logit_bias")
_POOLING = ("visual.attnpool.", "visual.proj", "visual.head.", *_COMPARED)
"""Tensors that pool, project and compare whole images; blocks do not need them."""


@dataclass(frozen=True, kw_only=True)
class ClipImageEncoder:
    """The image encoder of CLIP without its pooling."""

    network: nn.Module
    """Maps images to features, one vector for each cell of ``stride`` x ``stride`` pixels."""

    stride: int
    channels: int
    embedding: int
    """Dimensions of the space that CLIP's images and sentences share."""

    stages: tuple[tuple[str, ...], ...]
    """Names of the modules and parameters of each stage of the network, the first one first."""

    levels: tuple[tuple[int, int], ...] = ()
    """Channels of each output of :func:`level_features`, and the stride in pixels at which the slim
    decoder reads it; empty: it cannot use this network."""


class ClipProjection(NamedTuple):
    """The linear map from CLIP's image features into the space of its sentences."""

    weight: Float[Tensor, "embedding channels"]
    bias: Float[Tensor, " embedding"]


def own_projection(visual: Any) -> ClipProjection | None:
    """Return CLIP's own projection of one place's features; None: this network has no linear one.

    For a ResNet it is the value projection of the attention pool followed by its output projection,
    which the pool would compute if it saw one place alone; for a transformer its last projection.
    ``visual`` is the whole image encoder of open_clip's CLIP.
    """
    pool = getattr(visual, "attnpool", None)
    if pool is not None:
        value, output = pool.v_proj, pool.c_proj
        weight = output.weight @ value.weight
        return ClipProjection(weight.detach(), (output.weight @ value.bias + output.bias).detach())
    projection = getattr(visual, "proj", None)
    if isinstance(projection, Tensor):
        return ClipProjection(projection.detach().T, projection.new_zeros(projection.shape[1]))
    return None


def level_features(
    network: Any,
    images: Float[Tensor, "batch 3 height width"],
    prompts: Sequence[Float[Tensor, "batch _ channels"]] = (),
) -> list[Float[Tensor, "batch _ _ _"]]:
    """Compute the features of each level of a network, the earliest first.

    CLIP's ResNet has a level after each of its four stages, a transformer after each quarter of its
    blocks, all of one size.
    """
    if isinstance(network, GridTransformer):
        return network.quarters(images, prompts)
    features, levels = network.stem(images), []
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        features = stage(features)
        levels.append(features)
    return levels


def whole_clip(spec: BackboneSpec, config: ModelConfig, *, offline: bool) -> Any:
    """Build the whole CLIP with the weights that the settings name.

    Raises errors as :func:`crowdcount.models.build.build_model` does.
    """
    if config.weights is not None:
        clip = random_clip(spec)
        tensors = match_tensors(
            read_tensors(Path(config.weights)),
            clip.state_dict(),
            model=f"open_clip's {spec.library_name}",
            # Blocks are neither pooled nor projected, but a projection may start from it.
            optional=_POOLING if config.projection_init == "random" else _COMPARED,
        )
        clip.load_state_dict(tensors, strict=False)
        return clip
    if config.pretrained == "none":
        return random_clip(spec)
    if config.backbone not in BACKBONES:
        # Refuse a layout that cannot be used before its weights are downloaded.
        bare_clip_encoder(spec, block=config.block)
    return _library_clip(spec, offline=offline)


def random_clip(spec: BackboneSpec) -> Any:
    """Build the whole CLIP with random weights, initialised by open_clip."""
    import open_clip

    architecture(spec)
    with quiet_root_logger():
        return open_clip.create_model(spec.library_name)


def bare_clip(spec: BackboneSpec, **replaced: Any) -> Any:
    """Build CLIP with random weights; ``replaced`` are other descriptions of its encoders."""
    import open_clip

    shape = architecture(spec) | replaced
    return open_clip.CLIP(
        embed_dim=shape["embed_dim"],
        vision_cfg=shape["vision_cfg"],
        text_cfg=shape["text_cfg"],
        quick_gelu=shape.get("quick_gelu", False),
    )


def bare_clip_encoder(
    spec: BackboneSpec, *, block: int, position_grid: int | None = None
) -> ClipImageEncoder:
    """Build the encoder of :func:`grid_encoder` alone, with random weights."""
    clip = bare_clip(spec, text_cfg=_NO_TEXT)
    return grid_encoder(clip.visual, spec, block=block, position_grid=position_grid)


def grid_encoder(
    visual: Any, spec: BackboneSpec, *, block: int, position_grid: int | None = None
) -> ClipImageEncoder:
    """Convert the image encoder of open_clip's CLIP to one that ends with a grid of features.

    Its parts are taken over, so it cannot be used afterwards. ``position_grid`` is the side of the
    patch grid to which the position embedding of CLIP's own transformer is resized.

    Raises:
        ConfigError: If it has no such grid, or another layout.
    """
    from open_clip.modified_resnet import ModifiedResNet
    from open_clip.timm_model import TimmModel
    from open_clip.transformer import VisionTransformer
    from timm.models.convnext import ConvNeXt
    from timm.models.fastvit import FastVit
    from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer

    embedding: int = architecture(spec)["embed_dim"]
    trunk = visual.trunk if isinstance(visual, TimmModel) else visual
    if isinstance(trunk, ModifiedResNet):
        return _resnet(trunk, block=block, embedding=embedding)
    if isinstance(trunk, ConvNeXt | FastVit):
        return _staged(trunk, embedding=embedding)
    if isinstance(trunk, VisionTransformer):
        if trunk.attn_pool is None and not trunk.final_ln_after_pool:
            network = from_open_clip(trunk)
            if position_grid is not None:
                network.regrid(position_grid)
            return _transformer(network, embedding=embedding)
        raise _other_layout(spec, "its last norm is made for a pooled image, not for its patches")
    if type(trunk) is TimmVisionTransformer:
        one_convolution = isinstance(trunk.patch_embed.proj, nn.Conv2d)
        class_embedded = trunk.cls_token is None or not trunk.no_embed_class
        if one_convolution and class_embedded and trunk.reg_token is None:
            return _transformer(from_timm(trunk), embedding=embedding)
    raise _other_layout(spec, f"its image encoder is a {type(trunk).__name__} of a kind of its own")


def _resnet(resnet: Any, *, block: int, embedding: int) -> ClipImageEncoder:
    """Describe CLIP's ResNet without its attention pool.

    For blocks of up to 16 pixels the last stage keeps the grid of the one before: its average
    pools, which have no weights, become identities.
    """
    resnet.attnpool = nn.Identity()
    stride = FINE_STRIDE if block <= FINE_STRIDE else STRIDE
    if stride == FINE_STRIDE:
        resnet.layer4[0].avgpool = nn.Identity()
        resnet.layer4[0].downsample[0] = nn.Identity()
    return ClipImageEncoder(
        network=resnet,
        stride=stride,
        channels=resnet.layer4[-1].conv3.out_channels,
        embedding=embedding,
        stages=(
            ("conv1", "bn1", "conv2", "bn2", "conv3", "bn3"),
            *((f"layer{number}",) for number in range(1, 5)),
        ),
        levels=tuple(
            (resnet.get_submodule(f"layer{number}")[-1].conv3.out_channels, cell)
            for number, cell in enumerate((4, 8, 16, stride), start=1)
        ),
    )


def _staged(trunk: Any, *, embedding: int) -> ClipImageEncoder:
    """Describe a convolutional network of timm without its head."""
    trunk.head = nn.Identity()
    return ClipImageEncoder(
        network=trunk,
        stride=trunk.feature_info[-1]["reduction"],
        channels=trunk.num_features,
        embedding=embedding,
        stages=(
            ("stem",),
            *((f"stages.{number}",) for number in range(len(trunk.stages) - 1)),
            (f"stages.{len(trunk.stages) - 1}", "final_conv", "norm_pre"),
        ),
    )


def _transformer(network: GridTransformer, *, embedding: int) -> ClipImageEncoder:
    """Describe a transformer. Its stages are its blocks.

    Its earlier levels are resized to finer grids, as those of a ResNet have them.

    Source:
        Ranftl et al., "Vision Transformers for Dense Prediction", https://arxiv.org/abs/2103.13413,
        for the grids.
    """
    stride, channels = network.conv1.stride[0], network.conv1.out_channels
    stages = [[f"blocks.{number}"] for number in range(len(network.blocks))]
    stages[0] += ["conv1", "class_embedding", "positional_embedding", "ln_pre"]
    stages[-1] += ["ln_post"]
    return ClipImageEncoder(
        network=network,
        stride=stride,
        channels=channels,
        embedding=embedding,
        stages=tuple(map(tuple, stages)),
        levels=tuple((channels, max(stride // finer, 1)) for finer in (8, 4, 2, 1)),
    )


def architecture(spec: BackboneSpec) -> dict[str, Any]:
    """Return open_clip's description of a model, which determines all shapes.

    Raises:
        ConfigError: If its text encoder does not work as CLIP's does.
    """
    import open_clip

    shape: dict[str, Any] = open_clip.get_model_config(spec.library_name)
    if "multimodal_cfg" in shape:
        raise _other_layout(spec, "it writes captions")
    if "hf_model_name" in shape["text_cfg"]:
        raise _other_layout(spec, "its text encoder is of another library, transformers")
    return shape


def _other_layout(spec: BackboneSpec, reason: str) -> ConfigError:
    return ConfigError(
        f"model.backbone: open_clip's {spec.library_name} cannot be used: {reason}",
        looked_for="CLIP's ResNet or vision transformer; or of timm a ConvNeXt, a FastViT "
        "(MobileCLIP) or a plain vision transformer (SigLIP)",
    )


def _library_clip(spec: BackboneSpec, *, offline: bool) -> Any:
    model, tag = spec.library_name, spec.tag

    def fetch(source: str) -> Path:
        name = f"open_clip's {model} ({tag})"
        return weights_file(name, source=source, names=OPEN_CLIP_FILES, offline=offline)

    # Before the import, which takes seconds, so that missing weights are reported at once.
    path = fetch(spec.source) if spec.source else None
    import open_clip

    check_clip_weights(spec)
    weights = open_clip.get_pretrained_cfg(model, tag)
    path = path or fetch(weights.get("hf_hub") or weights["url"])
    with quiet_root_logger():
        return open_clip.create_model(model, pretrained=str(path))


def check_clip_weights(spec: BackboneSpec) -> None:
    """Raise ConfigError if open_clip has no such weights, or they are of another activation."""
    import open_clip

    model, tag = spec.library_name, spec.tag
    tags = open_clip.list_pretrained_tags_by_model(model)
    if not tag:
        raise ConfigError(
            f"model.pretrained: which weights of open_clip's {model}?",
            looked_for=f"one of: {', '.join(tags)}",
            next_step=f"--backbone {OPEN_CLIP_PREFIX}{model}/ONE-OF-THEM, or --no-pretrained",
        )
    check_tag("open_clip", model, tag=tag, known=tags)
    weights = open_clip.get_pretrained_cfg(model, tag)
    if weights.get("quick_gelu", False) != architecture(spec).get("quick_gelu", False):
        other = (
            f"{model}-quickgelu" if weights.get("quick_gelu") else model.removesuffix("-quickgelu")
        )
        raise ConfigError(
            f"model.backbone: the weights {tag} of {model} were trained with another activation",
            next_step=f"--backbone {OPEN_CLIP_PREFIX}{other}/{tag}",
        )


@contextmanager
def quiet_root_logger() -> Iterator[None]:
    """Keep open_clip from setting up logging to stderr for the whole process.

    It logs through ``logging.info`` and the like, which give a root logger without handlers one.
    """
    handler = logging.NullHandler()
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
