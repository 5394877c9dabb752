"""Winograd's 3x3 convolution with fewer multiplications, for models that only count."""

from collections.abc import Iterator
from typing import TypeGuard

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

WIDE = 768
"""Channels from which fewer multiplications save more time than the added additions cost."""

_TILES = 1024
"""Tiles per matrix product: enough to be fast, few enough to fit in memory."""


class WinogradConv2d(nn.Module):
    r"""A 3x3 convolution of stride 1 by Winograd's minimal filtering F(2x2, 3x3).

    Each tile of 2x2 outputs takes 16 multiplications a channel pair instead of 36: with the tile d
    of 4x4 inputs and the kernel g it is
    :math:`A^T [ (G g G^T) \odot (B^T d B) ] A`, where :math:`G g G^T` is computed once. The same
    but for rounding, in float32.

    Source:
        Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks",
        https://arxiv.org/abs/1509.09308.
    """

    weight: Tensor
    bias: Tensor | None

    def __init__(self, own: nn.Conv2d) -> None:
        """Take over the weights of a 3x3 convolution of stride 1 with a border of one zero."""
        super().__init__()
        spread = torch.tensor([[1.0, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
        kernels = torch.einsum("ai,bj,ocij->abco", spread, spread, own.weight.detach())
        self.register_buffer("weight", kernels.flatten(0, 1))
        self.register_buffer("bias", None if own.bias is None else own.bias.detach())

    def forward(
        self, features: Float[Tensor, "batch channels rows cols"]
    ) -> Float[Tensor, "batch width rows cols"]:
        """Convolve features that are padded with zeros."""
        rows, cols = features.shape[-2:]
        padded = F.pad(features.permute(0, 2, 3, 1), (0, 0, 1, 1 + cols % 2, 1, 1 + rows % 2))
        convolved = padded.new_empty(
            len(padded), rows + rows % 2, cols + cols % 2, self.weight.shape[-1]
        )
        for piece, tiles in _pieces(padded, convolved):
            products = torch.bmm(_spread(piece), self.weight)
            _gather(products, into=tiles)
        if self.bias is not None:
            convolved += self.bias
        return convolved[:, :rows, :cols].permute(0, 3, 1, 2)


def use_winograd(model: nn.Module) -> None:
    """Replace every convolution that :class:`WinogradConv2d` makes faster in a model, in place.

    The model is in evaluation mode, and can no longer be trained.
    """
    for name, module in list(model.named_modules()):
        if _suits(module):
            model.set_submodule(name, WinogradConv2d(module))


def _suits(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    return (
        type(module) is nn.Conv2d
        and (module.kernel_size, module.stride) == ((3, 3), (1, 1))
        and (module.padding, module.dilation, module.groups) == ((1, 1), (1, 1), 1)
        and module.padding_mode == "zeros"
        and min(module.in_channels, module.out_channels) >= WIDE
    )


def _pieces(
    padded: Float[Tensor, "batch _ _ channels"], convolved: Float[Tensor, "batch rows cols width"]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield strips of each image with the outputs that they produce."""
    rows, cols = convolved.shape[1:3]
    high = 2 * max(1, 2 * _TILES // cols)
    for image, result in zip(padded, convolved, strict=True):
        for top in range(0, rows, high):
            yield image[top : top + high + 2], result[top : top + high]


def _spread(
    piece: Float[Tensor, "_ _ channels"],
) -> Float[Tensor, "16 tiles channels"]:
    """Compute B^T d B of each tile."""
    rows, cols = (side // 2 - 1 for side in piece.shape[:2])
    strips = piece.new_empty(4, rows, *piece.shape[1:])
    _combine([piece[i : i + 2 * rows : 2] for i in range(4)], into=strips)
    spread = piece.new_empty(4, 4, rows, cols, piece.shape[2])
    for strip, tiles in zip(strips, spread, strict=True):
        _combine([strip[:, j : j + 2 * cols : 2] for j in range(4)], into=tiles)
    return spread.view(16, rows * cols, -1)


def _combine(inputs: list[Tensor], *, into: Tensor) -> None:
    """Compute B^T d along one side of the tiles."""
    torch.sub(inputs[0], inputs[2], out=into[0])
    torch.add(inputs[1], inputs[2], out=into[1])
    torch.sub(inputs[2], inputs[1], out=into[2])
    torch.sub(inputs[1], inputs[3], out=into[3])


def _gather(
    products: Float[Tensor, "16 tiles width"], *, into: Float[Tensor, "rows cols width"]
) -> None:
    """Compute A^T m A of each tile and store it at its place."""
    rows, cols = into.shape[0] // 2, into.shape[1] // 2
    m = products.view(4, 4, rows, cols, -1)
    near = m[0] + m[1] + m[2]
    far = m[1] - m[2] - m[3]
    for row, half in enumerate((near, far)):
        into[row::2, 0::2] = half[0] + half[1] + half[2]
        into[row::2, 1::2] = half[1] - half[2] - half[3]
