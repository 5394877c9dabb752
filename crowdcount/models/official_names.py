"""What the tensors of our models are called in published CLIP-EBC checkpoints.

The names are those of the published code (github.com/Yiming-M/CLIP-EBC, ``models/``).
"""

import re
from collections.abc import Mapping

from torch import Tensor

from crowdcount.models.encoder_decoder import POOLS

TEXT = "text_encoder."
"""What is before the names of CLIP's text side, which open_clip has without it."""

PROMPTS = re.compile(r"vpt_\d+")
"""Prompt tokens, one tensor for each block of a transformer that some enter."""

OURS_ALONE = ("text_features", "mean", "std", "bin_values")
"""Tensors of ours that no published file holds."""

_UNUSED = re.compile(r"image_encoder\.attnpool\..*|text_encoder\.(logit_scale|attn_mask)")
"""What a file may hold and no block count depends on."""

_HEAD = {"head.0.": "classifier."}
_CSRNET = {"encoder.": "backbone.features.", "decoder.": "backbone.decoder.", **_HEAD}

BEGINNINGS: dict[str, dict[str, str]] = {
    "clip": {
        "encoder.blocks.": "image_encoder.transformer.resblocks.",
        "encoder.": "image_encoder.",
        "decoder.": "image_decoder.",
        "prompt_tokens.tokens.": "vpt_",
    },
    "vgg": {"encoder.": "backbone.features.", "decoder.": "backbone.reg_layer.", **_HEAD},
    "csrnet": _CSRNET,
    "cannet": {
        **_CSRNET,
        # The pooling is number 0 of each scale.
        **{f"context.scales.{i}.": f"backbone.context.scales.{i}.1." for i in range(len(POOLS))},
        "context.fuse.0.": "backbone.context.bottleneck.",
        "context.weight.": "backbone.context.weight_net.",
    },
    "resnet": {"encoder.": "backbone.encoder.", "decoder.": "backbone.decoder.", **_HEAD},
}
"""Beginnings of our names and of the published ones, by family of backbones. The first that fits
counts; a name that none fits is the same in both."""


def published_name(name: str, *, family: str) -> str:
    """What a tensor of our models on a family of backbones is called in a published checkpoint."""
    for ours, theirs in BEGINNINGS[family].items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def unused_names(tensors: Mapping[str, Tensor]) -> list[str]:
    """Tensors that a published checkpoint may hold and that no block count depends on."""
    return [name for name in tensors if _UNUSED.fullmatch(name)]
