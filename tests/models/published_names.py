"""The weights of a model under the names that the published code of CLIP-EBC gives them."""

import re

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
