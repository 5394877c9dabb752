"""Vision transformers that return their grid of patches, for images of any size."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class GridTransformer(nn.Module):
    """A vision transformer that returns one vector for each patch.

    It is made of the parts of a transformer of any library with this layout: a convolution over
    patches, an optional class token, a learnt position embedding, an optional norm, blocks, a norm.
    """

    class_embedding: nn.Parameter | None

    def __init__(
        self,
        *,
        conv1: nn.Conv2d,
        class_embedding: Tensor | None,
        positional_embedding: Tensor,
        ln_pre: nn.Module,
        blocks: Iterable[nn.Module],
        ln_post: nn.Module,
        grid: tuple[int, int],
    ) -> None:
        """Take over the parts.

        The class token, if any, has the shape (width,), and the position embedding one row for each
        token, the class token first, then ``grid`` rows and columns of patches. Blocks map tokens
        of shape (batch, tokens, width).
        """
        super().__init__()
        self.conv1 = conv1
        self.class_embedding = None if class_embedding is None else nn.Parameter(class_embedding)
        self.positional_embedding = nn.Parameter(positional_embedding)
        self.ln_pre = ln_pre
        self.blocks = nn.ModuleList(blocks)
        self.ln_post = ln_post
        self.grid = grid

    def forward(
        self,
        images: Float[Tensor, "batch 3 height width"],
        prompts: Sequence[Float[Tensor, "batch _ channels"]] = (),
    ) -> Float[Tensor, "batch channels rows cols"]:
        """Compute the features of every patch.

        Args:
            images: Sides are multiples of the patch.
            prompts: Tokens between class token and patches. The first group is inserted before the
                first block, and each further group replaces the one before it at the next block.
        """
        return self.quarters(images, prompts)[-1]

    def quarters(
        self,
        images: Float[Tensor, "batch 3 height width"],
        prompts: Sequence[Float[Tensor, "batch _ channels"]] = (),
    ) -> list[Float[Tensor, "batch channels rows cols"]]:
        """Compute the features of :meth:`forward` after each quarter of the blocks.

        Only the last ones are normed.
        """
        features: Tensor = self.conv1(images)
        rows, cols = features.shape[-2:]
        tokens = features.flatten(2).transpose(1, 2)
        first = 0
        if self.class_embedding is not None:
            first = 1
            tokens = torch.cat([self.class_embedding.expand(len(tokens), 1, -1), tokens], dim=1)
        tokens = self.ln_pre(tokens + self.positions(rows, cols))
        prompted = 0
        ends = [-(-quarter * len(self.blocks) // 4) for quarter in (1, 2, 3)]
        quarters = []
        for number, block in enumerate(self.blocks):
            if number < len(prompts):
                fresh = prompts[number]
                patches = tokens[:, first + prompted :]
                tokens = torch.cat([tokens[:, :first], fresh.to(tokens), patches], dim=1)
                prompted = fresh.shape[1]
            tokens = block(tokens)
            quarters += [tokens[:, first + prompted :]] * ends.count(number + 1)
        quarters.append(self.ln_post(tokens[:, first + prompted :]))
        return [part.transpose(1, 2).reshape(len(images), -1, rows, cols) for part in quarters]

    def regrid(self, side: int) -> None:
        """Resize the position embedding to ``side`` x ``side`` patches permanently.

        The published code does so before it trains on crops of another size.
        """
        resized = self.positions(side, side).detach().clone()
        self.positional_embedding = nn.Parameter(resized)
        self.grid = (side, side)

    def positions(self, rows: int, cols: int) -> Float[Tensor, "tokens channels"]:
        """Return the position embedding for a grid of this size.

        It is resized bicubically without antialiasing, as in the published code.
        """
        if (rows, cols) == self.grid:
            return self.positional_embedding
        first = 0 if self.class_embedding is None else 1
        class_row, patch_rows = self.positional_embedding.tensor_split([first])
        channels = patch_rows.shape[1]
        grid = patch_rows.T.reshape(1, channels, *self.grid)
        resized = F.interpolate(grid, size=(rows, cols), mode="bicubic", align_corners=False)
        return torch.cat([class_row, resized.flatten(2).squeeze(0).T])


class PromptTokens(nn.Module):
    """Visual prompt tuning: trained tokens for a transformer that is not trained.

    Source:
        Jia et al., "Visual Prompt Tuning", https://arxiv.org/abs/2203.12119.
    """

    def __init__(
        self, *, blocks: int, tokens: int, patch: int, width: int, depth: str, dropout: float
    ) -> None:
        """Make random tokens for some or all ``blocks`` of a transformer.

        The side of a patch, in pixels, and the width of a token set the range of initial values.
        """
        super().__init__()
        bound = math.sqrt(6 / (3 * patch + width))
        self.tokens = nn.ParameterList(
            nn.Parameter(torch.empty(tokens, width).uniform_(-bound, bound))
            for _ in range(blocks if depth == "deep" else 1)
        )
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()

    def forward(self, batch: int) -> list[Float[Tensor, "batch tokens channels"]]:
        """Return the tokens for a batch, a group for each block that takes some."""
        return [self.dropout(tokens.expand(batch, -1, -1)) for tokens in self.tokens]


class SelfAttention(nn.Module):
    """Self-attention with the weights of ``torch.nn.MultiheadAttention`` and their names.

    PyTorch's module orders tokens before images, and on a CPU its bfloat16 products then copy the
    weights for every token, which takes most of the time of a transformer.
    """

    def __init__(self, own: nn.MultiheadAttention) -> None:
        """Take over the weights of an attention with queries, keys and values of one width."""
        super().__init__()
        self.heads = own.num_heads
        self.in_proj_weight = own.in_proj_weight
        self.in_proj_bias = own.in_proj_bias
        self.out_proj = own.out_proj

    def forward(
        self,
        tokens: Float[Tensor, "batch tokens channels"],
        *_others: Tensor,
        **_options: object,
    ) -> tuple[Float[Tensor, "batch tokens channels"], None]:
        """Attend to all tokens, with the arguments of PyTorch's module; return no weights."""
        batch, number, _ = tokens.shape
        projected = F.linear(tokens, self.in_proj_weight, self.in_proj_bias)
        separate = projected.view(batch, number, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(*separate)
        return self.out_proj(attended.transpose(1, 2).flatten(2)), None


def from_open_clip(visual: Any) -> GridTransformer:
    """Convert open_clip's vision transformer, without attention pool and projection."""
    for block in visual.transformer.resblocks:
        if isinstance(block.attn, nn.MultiheadAttention):
            block.attn = SelfAttention(block.attn)
    return GridTransformer(
        conv1=visual.conv1,
        class_embedding=visual.class_embedding,
        positional_embedding=visual.positional_embedding,
        ln_pre=visual.ln_pre,
        blocks=visual.transformer.resblocks,
        ln_post=visual.ln_post,
        grid=visual.grid_size,
    )


def from_timm(trunk: Any) -> GridTransformer:
    """Convert timm's vision transformer, without pool and classifier."""
    class_token = trunk.cls_token
    return GridTransformer(
        conv1=trunk.patch_embed.proj,
        class_embedding=None if class_token is None else class_token.flatten(),
        positional_embedding=trunk.pos_embed[0],
        ln_pre=trunk.norm_pre,
        blocks=trunk.blocks,
        ln_post=trunk.norm,
        grid=trunk.patch_embed.grid_size,
    )
