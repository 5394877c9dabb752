"""Networks of the crowd counting literature: an encoder of torchvision and a decoder."""

import itertools
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crowdcount.core.bins import Bins
from crowdcount.core.image import Normalisation
from crowdcount.errors import ConfigError
from crowdcount.models.backbones import BackboneSpec, check_tag
from crowdcount.models.block_counter import BlockCounter
from crowdcount.models.checkpoints.hub import weights_file
from crowdcount.models.checkpoints.tensor_files import drop_counters, match_tensors, read_tensors
from crowdcount.models.config import ModelConfig
from crowdcount.models.ebc import check_tuning, classification_head
from crowdcount.models.neck import on_grid
from crowdcount.models.residual import BasicBlock, Bottleneck

FINE_STRIDE = 16
"""Stride of ResNets whose last stage does not halve the grid."""

POOLS = (1, 2, 3, 6)
"""CANNet: sides of the grids over which the context of a block is averaged."""

LAYOUTS = ("vgg", "csrnet", "cannet", "resnet")
"""Families (``BackboneSpec.family``) of the backbones that this module builds."""

VGG_DECODER = (256, 128)
DILATED_DECODER = (512, 512, 512, 256, 128, 64)
RESNET_DECODERS: dict[str, tuple[int, ...]] = {
    "resnet18": (512, 256, 128),
    "resnet34": (512, 256, 128),
    "resnet50": (512, 256, 256, 128),
    "resnet101": (512, 512, 256, 256, 128),
    "resnet152": (512, 512, 512, 256, 256, 128),
}
"""Widths of the residual blocks behind each ResNet."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Encoder and decoder of a network."""

    encoder: nn.Sequential
    """Maps images to features; its tensors have torchvision's names."""

    stride: int
    """Stride of the encoder, in pixels."""

    decoder: nn.Sequential
    """Maps features on the grid of blocks to ``channels`` channels."""

    channels: int
    context: nn.Module = field(default_factory=nn.Identity)
    """Applied to the encoder's features on their own grid."""

    prefix: str = ""
    """Prefix of the encoder's tensors in torchvision's whole model."""


class EncoderDecoder(BlockCounter):
    """An encoder, a decoder on the grid of blocks, and a classification head."""

    def __init__(
        self, config: ModelConfig, bins: Bins, *, normalisation: Normalisation, parts: Parts
    ) -> None:
        """Put a head on a network.

        Raises:
            ConfigError: As for :class:`BlockCounter`, or if the settings need an encoder of CLIP.
        """
        check_tuning(config)
        if config.frozen_stages:
            raise ConfigError(
                f"model.frozen_stages: only of the encoders of CLIP and timm, not of "
                f"{config.backbone}",
                next_step="freeze all of it: --set model.tuning=frozen",
            )
        super().__init__(config, bins, normalisation=normalisation, stride=parts.stride)
        self.encoder = parts.encoder
        self.context = parts.context
        self.decoder = parts.decoder
        self.head = classification_head(parts.channels, bins, kind=config.head)
        if config.tuning == "frozen":
            self.freeze(["encoder"])

    def block_logits(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch outputs rows cols"]:
        """Compute the logits of every block."""
        block = self.config.block
        grid = (images.shape[-2] // block, images.shape[-1] // block)
        features = self.decoder(on_grid(self.context(self.encoder(images)), grid))
        logits: Tensor = self.head(features)
        return logits


class Context(nn.Module):
    """Adds to features their contrast with their surroundings, at several scales.

    The features f are averaged over grids of k x k cells, k in ``POOLS``, and mixed by a 1x1
    convolution: s_k. With weights w_k = sigmoid(V (f - s_k)) the context is the mean of the s_k
    weighted by w_k, and a 1x1 convolution brings the context and f back to as many channels.

    Source:
        Liu, Salzmann and Fua, "Context-Aware Crowd Counting", https://arxiv.org/abs/1811.10452.
        The paper has a V of its own for each k; its published code, and that of CLIP-EBC, have one
        for all, and so do weights that others trained.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList(nn.Conv2d(channels, channels, 1, bias=False) for _ in POOLS)
        self.weight = nn.Conv2d(channels, channels, 1)
        self.fuse = nn.Sequential(nn.Conv2d(2 * channels, channels, 1), nn.ReLU(inplace=True))

    def forward(
        self, features: Float[Tensor, "batch channels rows cols"]
    ) -> Float[Tensor, "batch channels rows cols"]:
        """Return features with their context."""
        grid = (features.shape[-2], features.shape[-1])
        weighted, total = torch.zeros_like(features), torch.zeros_like(features)
        for side, scale in zip(POOLS, self.scales, strict=True):
            pooled = nn.functional.adaptive_avg_pool2d(features, side)
            around = nn.functional.interpolate(
                scale(pooled), size=grid, mode="bilinear", align_corners=False
            )
            weights = self.weight(features - around).sigmoid()
            weighted, total = weighted + weights * around, total + weights
        # The small number avoids division by zero in half precision.
        context = weighted / (total + 1e-6)
        fused: Tensor = self.fuse(torch.cat([context, features], dim=1))
        return fused


def network_parts(
    spec: BackboneSpec, config: ModelConfig | None, *, offline: bool, block: int
) -> Parts:
    """Build encoder and decoder, with the encoder's weights that the settings name; None: none.

    Raises errors as :func:`crowdcount.models.build.build_model` does.
    """
    whole: dict[str, Tensor] = {}
    if config is not None and config.weights is not None:
        whole = _file_weights(spec, Path(config.weights))
    elif config is not None and config.pretrained != "none":
        # Before the import of torchvision, so that missing weights are reported at once.
        whole = _library_weights(spec, offline=offline)
    parts = _resnet(spec.library_name, block=block) if spec.family == "resnet" else _vgg(spec)
    if whole:
        names = drop_counters(parts.encoder.state_dict())
        tensors = {name: whole[parts.prefix + name] for name in names}
        parts.encoder.load_state_dict(tensors, strict=False)
    return parts


def check_torchvision_weights(spec: BackboneSpec) -> None:
    """Raise ConfigError if torchvision has no such weights for a network."""
    import torchvision

    known: Any = torchvision.models.get_model_weights(spec.library_name)
    tags = [weights.name for weights in known]
    check_tag("torchvision", spec.library_name, tag=spec.tag, known=tags)


def _vgg(spec: BackboneSpec) -> Parts:
    """Build DM-Count's network, CSRNet, or CANNet.

    DM-Count has all of VGG but its last pooling, and two convolutions; CSRNet the first ten
    convolutions, and dilated ones; CANNet adds the context of each block to CSRNet.
    """
    is_vgg = spec.family == "vgg"
    encoder = _vgg_features(spec.library_name, convolutions=None if is_vgg else 10)
    width = [layer.out_channels for layer in encoder if isinstance(layer, nn.Conv2d)][-1]
    widths = VGG_DECODER if is_vgg else DILATED_DECODER
    batch_norm = not is_vgg and spec.library_name.endswith("_bn")
    return Parts(
        encoder=encoder,
        stride=16 if is_vgg else 8,
        decoder=_convolutions(width, widths, dilation=1 if is_vgg else 2, batch_norm=batch_norm),
        channels=widths[-1],
        context=Context(width) if spec.family == "cannet" else nn.Identity(),
        prefix="features.",
    )


def _resnet(name: str, *, block: int) -> Parts:
    """Build a ResNet and residual blocks; its last stage has stride 1 for blocks up to 16."""
    import torchvision

    network: Any = torchvision.models.get_model(name)
    fine = block <= FINE_STRIDE
    if fine:
        for module in network.layer4[0].modules():
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
    stages = [stage for stage in network.named_children() if stage[0] not in ("avgpool", "fc")]
    widths = RESNET_DECODERS[name]
    kind = BasicBlock if name in ("resnet18", "resnet34") else Bottleneck
    blocks = (kind(*pair) for pair in itertools.pairwise((network.fc.in_features, *widths)))
    return Parts(
        encoder=nn.Sequential(OrderedDict(stages)),
        stride=FINE_STRIDE if fine else 2 * FINE_STRIDE,
        decoder=nn.Sequential(*blocks),
        channels=widths[-1],
    )


def _vgg_features(name: str, *, convolutions: int | None = None) -> nn.Sequential:
    """Build the convolutions of a VGG network, without the last pooling."""
    # Not the whole model, whose classifier has six times as many weights.
    from torchvision.models.vgg import cfgs, make_layers

    letter = {"vgg11": "A", "vgg13": "B", "vgg16": "D", "vgg19": "E"}[name.removesuffix("_bn")]
    features: nn.Sequential = make_layers(cfgs[letter], batch_norm=name.endswith("_bn"))
    ends = [i for i, layer in enumerate(features) if isinstance(layer, nn.ReLU)]
    layers = features[: ends[-1 if convolutions is None else convolutions - 1] + 1]
    for layer in layers:
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return layers


def _convolutions(
    channels: int, widths: Sequence[int], *, dilation: int, batch_norm: bool
) -> nn.Sequential:
    """Build 3x3 convolutions that keep the grid, each with ReLU."""
    layers: list[nn.Module] = []
    for before, width in itertools.pairwise((channels, *widths)):
        # A bias even before a norm, as in torchvision's encoders and in published weights.
        convolution = nn.Conv2d(before, width, 3, padding=dilation, dilation=dilation)
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        norm = [nn.BatchNorm2d(width)] if batch_norm else []
        layers += [convolution, *norm, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _library_weights(spec: BackboneSpec, *, offline: bool) -> dict[str, Tensor]:
    """Return the tensors of torchvision's whole pretrained model."""
    source = spec.source
    if not source:
        import torchvision

        check_torchvision_weights(spec)
        known: Any = torchvision.models.get_model_weights(spec.library_name)
        source = known[spec.tag].url
    name = f"torchvision's {spec.library_name} ({spec.tag})"
    return read_tensors(weights_file(name, source=source, offline=offline)).tensors


def _file_weights(spec: BackboneSpec, path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file under torchvision's names."""
    import torchvision

    with torch.device("meta"):
        whole = torchvision.models.get_model(spec.library_name)
    return match_tensors(
        read_tensors(path),
        whole.state_dict(),
        model=f"torchvision's {spec.library_name}",
        optional=("classifier.", "fc."),
    )
