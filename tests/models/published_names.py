"""The weights of a model under the names that the published code of CLIP-EBC gives them."""

import re
from collections import OrderedDict
from pathlib import Path

import torch

from crowdcount.core.bins import Bins
from crowdcount.core.published_bins import PUBLISHED_BINS
from crowdcount.models.build import build_model
from crowdcount.models.config import ModelConfig

OURS = {"text_features", "mean", "std", "bin_values"}

_HEAD = (r"head\.0\.", "classifier.")
_FEATURES = (r"encoder\.", "backbone.features.")
_CONTEXT = (
    (r"context\.scales\.(\d)\.", r"backbone.context.scales.\1.1."),
    (r"context\.fuse\.0\.", "backbone.context.bottleneck."),
    (r"context\.weight\.", "backbone.context.weight_net."),
)
_RENAMED = {
    "clip": (
        (r"encoder\.blocks\.", "image_encoder.transformer.resblocks."),
        (r"encoder\.", "image_encoder."),
        (r"decoder\.", "image_decoder."),
        (r"prompt_tokens\.tokens\.", "vpt_"),
    ),
    "vgg": (_FEATURES, (r"decoder\.", "backbone.reg_layer."), _HEAD),
    "csrnet": (_FEATURES, (r"decoder\.", "backbone.decoder."), _HEAD),
    "cannet": (_FEATURES, (r"decoder\.", "backbone.decoder."), *_CONTEXT, _HEAD),
    "resnet": ((r"(encoder|decoder)\.", r"backbone.\1."), _HEAD),
}


def with_published_names(state, *, family="clip"):
    """A state dict of ours as a file would have it; the text side of CLIP is not in it."""
    tensors = {}
    for name, tensor in state.items():
        if name not in OURS:
            for ours, theirs in _RENAMED[family]:
                renamed, found = re.subn(f"^{ours}", theirs, name)
                if found:
                    break
            tensors[renamed] = tensor
    return tensors


def write_published_vgg(path: Path):
    """Write the file of a VGG11 with the bins of NWPU, and return the model.

    Inside of ``shrunken()`` it is much smaller than any that was published.
    """
    torch.manual_seed(0)
    table = PUBLISHED_BINS["nwpu-r8-t4"]
    bins = Bins(block=8, starts=table.starts, values=table.values)
    config = ModelConfig(backbone="vgg11", pretrained="none", normalisation="imagenet")
    model = build_model(config, bins).eval()
    torch.save(OrderedDict(with_published_names(model.state_dict(), family="vgg")), path)
    return model
