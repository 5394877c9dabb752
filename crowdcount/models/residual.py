"""Residual blocks: at full width for CLIP-EBC and the ResNets, depthwise for EBC-ZIP."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """A residual block of two 3x3 convolutions."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(channels, width)
        _start(self)

    def forward(
        self, features: Float[Tensor, "batch channels _ _"], grid: tuple[int, int] | None = None
    ) -> Float[Tensor, "batch width rows cols"]:
        """Add the block's residual to the features, which are resized to ``grid`` first."""
        features = _resized(features, grid)
        change = F.relu(self.bn1(self.conv1(features)), inplace=True)
        change = self.bn2(self.conv2(change))
        return F.relu(change + self.downsample(features), inplace=True)


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
        self.downsample = _shortcut(channels, width)
        _start(self)

    def forward(
        self, features: Float[Tensor, "batch channels _ _"], grid: tuple[int, int] | None = None
    ) -> Float[Tensor, "batch width rows cols"]:
        """Add the block's residual to the features, which are resized to ``grid`` first.

        The first convolution is applied before resizing, which is equivalent and cheaper.
        """
        change = F.relu(self.bn1(_resized(self.conv1(features), grid)), inplace=True)
        change = F.relu(self.bn2(self.conv2(change)), inplace=True)
        change = self.bn3(self.conv3(change))
        return F.relu(change + self.downsample(_resized(features, grid)), inplace=True)


class SeparableBlock(nn.Module):
    """A residual block of a depthwise 3x3 and a 1x1 convolution.

    Source:
        The small networks of Ma et al., "ZIP: Scalable Crowd Counting via Zero-Inflated Poisson
        Modeling", https://arxiv.org/abs/2506.19955.
    """

    def __init__(self, channels: int, width: int, *, activation: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, width, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(channels, width)
        self.activation = activation
        _start(self)

    def forward(
        self, features: Float[Tensor, "batch channels rows cols"]
    ) -> Float[Tensor, "batch width rows cols"]:
        """Add the block's residual to the features."""
        change = self.activation(self.norm1(self.conv1(features)))
        change = self.norm2(self.conv2(change)) + self.downsample(features)
        result: Tensor = self.activation(change)
        return result


def _resized(
    features: Float[Tensor, "batch channels _ _"], grid: tuple[int, int] | None
) -> Float[Tensor, "batch channels rows cols"]:
    """Resize features bilinearly to ``(rows, cols)``; None: return them unchanged."""
    if grid is None or features.shape[-2:] == grid:
        return features
    return F.interpolate(features, size=grid, mode="bilinear", align_corners=False)


def _shortcut(channels: int, width: int) -> nn.Module:
    """Build the shortcut that projects features to the width of the block."""
    if channels == width:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width))


def _start(block: nn.Module) -> None:
    """Initialise the convolutions of a residual block."""
    for module in block.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
