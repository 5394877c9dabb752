"""Necks: bring features of a backbone to one map of blocks."""

import itertools
from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from crowdcount.errors import ConfigError
from crowdcount.models.residual import SeparableBlock


class Neck(nn.Module):
    """A light feature pyramid that ends at the stride of a block.

    Starting with the deepest, each stage is projected to ``width`` channels, added to the upsampled
    sum of the deeper ones, and smoothed by a depthwise separable convolution. Stages finer than a
    block, down to half its side, are averaged over blocks and added last: a head is often smaller
    than its block.

    Source:
        After Lin et al., "Feature Pyramid Networks", https://arxiv.org/abs/1612.03144, with the
        cheaper convolutions of Howard et al., "MobileNets", https://arxiv.org/abs/1704.04861.
    """

    def __init__(
        self,
        *,
        channels: Sequence[int],
        strides: Sequence[int],
        block: int,
        width: int,
        norm: str = "batch",
    ) -> None:
        """Choose the stages to fuse: the deepest of each stride, down to half a block.

        ``channels`` and ``strides`` (in pixels) are those of each stage, ``width`` the channels of
        the fused features.

        Raises:
            ConfigError: If every stage is finer than half a block.
        """
        super().__init__()
        deepest = {stride: stage for stage, stride in enumerate(strides)}
        used = sorted((stride for stride in deepest if 2 * stride >= block), reverse=True)
        if not used:
            raise ConfigError(
                f"model.block: blocks of {block} pixels need features of stride {block // 2} or "
                f"more, and the backbone has {', '.join(map(str, strides))}",
                next_step="choose smaller blocks or another backbone",
            )
        self._block = block
        self._stages = [deepest[stride] for stride in used]
        self._cells = [max(stride, block) for stride in used]
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels[stage], width, 1, bias=False), _norm(norm, width))
            for stage in self._stages
        )
        self.smooth = nn.ModuleList(_separable(width, norm=norm) for _ in self._stages)

    def forward(
        self, stages: Sequence[Float[Tensor, "batch _ _ _"]], *, height: int, width: int
    ) -> Float[Tensor, "batch channels rows cols"]:
        """Fuse the stages of images of ``height`` x ``width`` pixels into one map of blocks."""
        grids = [(height // cell, width // cell) for cell in self._cells]
        laterals = [
            lateral(on_grid(stages[stage], grid))
            for stage, grid, lateral in zip(self._stages, grids, self.lateral, strict=True)
        ]
        fused: Tensor = self.smooth[0](laterals[0])
        for grid, lateral, smooth in zip(grids[1:], laterals[1:], self.smooth[1:], strict=True):
            fused = smooth(lateral + on_grid(fused, grid))
        return on_grid(fused, (height // self._block, width // self._block))


class Refiner(nn.Module):
    """The light decoder of EBC-ZIP: the deepest stage alone, brought to the stride of a block.

    Each doubling of the grid is bilinear and followed by a residual block; then residual blocks
    halve the channels down to 256 or fewer.

    Attributes:
        channels: Channels of its result.

    Source:
        Ma et al., "ZIP: Scalable Crowd Counting via Zero-Inflated Poisson Modeling",
        https://arxiv.org/abs/2506.19955, and its code, github.com/Yiming-M/EBC-ZIP.
    """

    def __init__(self, *, channels: int, stride: int, block: int, activation: nn.Module) -> None:
        """Build the layers for features of ``channels`` channels at ``stride`` pixels.

        Raises:
            ConfigError: If the stride is not the block side, or 2 or 4 times it.
        """
        super().__init__()
        if stride not in (block, 2 * block, 4 * block):
            raise ConfigError(
                f"model.block: the decoder of EBC-ZIP on features of stride {stride} needs blocks "
                f"of {stride // 4}, {stride // 2} or {stride} pixels, got {block}"
            )
        layer = partial(SeparableBlock, activation=activation)
        self._stride = stride
        doublings = (stride // block).bit_length() - 1
        self.refine = nn.ModuleList(layer(channels, channels) for _ in range(doublings))
        halvings = sum(channels > limit for limit in (256, 512, 1024))
        widths = [channels // 2**halving for halving in range(halvings + 1)]
        self.halve = nn.Sequential(*(layer(*pair) for pair in itertools.pairwise(widths)))
        self.channels = widths[-1]

    def forward(
        self, stages: Sequence[Float[Tensor, "batch _ _ _"]], *, height: int, width: int
    ) -> Float[Tensor, "batch channels rows cols"]:
        """Refine the deepest stage of images of ``height`` x ``width`` pixels."""
        features = stages[-1]
        for doubling, block in enumerate(self.refine, start=1):
            cell = self._stride // 2**doubling
            features = block(on_grid(features, (height // cell, width // cell)))
        result: Tensor = self.halve(features)
        return result


def on_grid(
    features: Float[Tensor, "batch channels height width"], grid: tuple[int, int]
) -> Float[Tensor, "batch channels rows cols"]:
    """Resize features to ``(rows, cols)``: by averages if that is coarser, else bilinearly."""
    size = (features.shape[-2], features.shape[-1])
    if size == grid:
        return features
    if size[0] >= grid[0] and size[1] >= grid[1]:
        return F.adaptive_avg_pool2d(features, grid)
    return F.interpolate(features, size=grid, mode="bilinear", align_corners=False)


def _separable(width: int, *, norm: str) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False),
        nn.Conv2d(width, width, 1, bias=False),
        _norm(norm, width),
        nn.SiLU(inplace=True),
    )


def _norm(norm: str, channels: int) -> nn.Module:
    """Build batch normalisation, or layer normalisation over the channels of each place."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    from timm.layers.norm import LayerNorm2d

    return LayerNorm2d(channels)
