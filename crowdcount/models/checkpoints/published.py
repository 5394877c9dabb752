"""Published CLIP-EBC checkpoints -> our models.

Such a file is a bare state dict, or a training state with one in it. It holds neither bins nor
prompts, text features, normalisation nor any setting: what its tensors do not tell is given here.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import Tensor

from crowdcount.core.bins import Bins
from crowdcount.errors import BadInputError
from crowdcount.models.backbones import BACKBONES, BackboneSpec, backbone_spec
from crowdcount.models.block_counter import BlockCounter
from crowdcount.models.build import empty_model
from crowdcount.models.checkpoints.tensor_files import exact_tensors, without_counters
from crowdcount.models.clip_ebc import bin_prompts
from crowdcount.models.clip_text import bare_clip_text, text_features, tokenised
from crowdcount.models.config import ModelConfig
from crowdcount.models.encoder_decoder import LAYOUTS, POOLS

NORMALISATION: Final = "imagenet"
"""Every published CLIP-EBC model was trained with the statistics of ImageNet, not of CLIP."""

PLAIN = tuple(name for name, spec in BACKBONES.items() if spec.family in LAYOUTS)
"""Backbones without CLIP on which EBC was published."""

_POSITIONS = "image_encoder.positional_embedding"

_RESNETS = {32: "clip-rn50", 40: "clip-rn50x4", 48: "clip-rn50x16", 64: "clip-rn50x64"}
"""CLIP's ResNets by the channels of the first convolution; RN101 has those of RN50."""

_TRANSFORMERS = {
    "clip-vit-b-16": 768,
    "clip-vit-b-32": 768,
    "clip-vit-l-14": 1024,
    "clip-vit-l-14-336": 1024,
}
"""Widths of CLIP's transformers."""

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


def official_model(
    tensors: Mapping[str, Tensor],
    *,
    bins: Bins,
    backbone: str | None = None,
    prompts: str = "words",
    window: int | None = None,
    window_stride: int | None = None,
) -> BlockCounter:
    """A model from the state dict of a published checkpoint, in evaluation mode.

    Features of the sentences are computed anew by the text encoder in the file, which is then
    dropped.

    Args:
        tensors: The bare state dict.
        bins: The bins it was trained with: the published tables.
        backbone: What it was trained on; None: what its tensors tell.
        prompts: ``words`` or ``digits``, as it was trained.
        window: Side of the windows to count in, in pixels; None: that of its position embedding,
            or whole images where it has none; 0: whole images.
        window_stride: Pixels from one window to the next; None: the side.

    Raises:
        ConfigError: If there is no such backbone, or the windows cut blocks or leave gaps.
        BadInputError: If the tensors are not those of this backbone, or of none that is known.
    """
    if backbone is None:
        backbone = recognised_backbone(tensors)
    else:
        _check_asked(tensors, backbone)
    spec = backbone_spec(backbone)
    config = ModelConfig(
        backbone=backbone,
        block=bins.block,
        pretrained="none",
        normalisation=NORMALISATION,
        position_grid=_position_grid(tensors, spec),
        window=window,
        window_stride=window_stride,
        **_tuning(tensors) | {"prompts": prompts},
    )
    with torch.random.fork_rng(devices=[]):
        model = empty_model(config, bins)
        clip = bare_clip_text(spec) if spec.family == "clip" else None
    own = model.state_dict()
    theirs = _published_names(own, family=spec.family)
    wanted = {theirs[name]: own[name] for name in theirs}
    text = {} if clip is None else _text_tensors(clip)
    left_out = unused_names(tensors)
    found = exact_tensors(
        without_counters({k: v for k, v in tensors.items() if k not in left_out}),
        without_counters({**wanted, **text}),
        source=f"published checkpoint as {backbone}",
    )
    own |= {name: found[theirs[name]] for name in theirs if theirs[name] in found}
    if clip is not None:
        clip.load_state_dict({k.removeprefix(TEXT): found[k] for k in text}, strict=False)
        own["text_features"] = text_features(
            clip, tokenised(spec, bin_prompts(config, bins), offline=True)
        )
    model.load_state_dict(own)
    return model.eval()


def recognised_backbone(tensors: Mapping[str, Tensor]) -> str:
    """The backbone of a published checkpoint, by the names and shapes of its tensors.

    Raises:
        BadInputError: If it is none that is known.
    """
    fitting = _fitting_backbones(tensors)
    if not fitting:
        raise BadInputError(
            "no published CLIP-EBC checkpoint that is known, by the names and shapes of its "
            f"{len(tensors)} tensors: {', '.join(list(tensors)[:3])}, ...",
            looked_for="image_encoder.conv1.weight of CLIP's ResNets and transformers, or "
            f"classifier.weight behind one of: {', '.join(PLAIN)}",
            next_step="name its backbone with --backbone to see how its tensors differ",
        )
    return fitting[0]


def classes(tensors: Mapping[str, Tensor]) -> int | None:
    """Bins a published checkpoint tells apart; None: its tensors do not tell, as CLIP's."""
    return _length(tensors.get("classifier.weight")) or None


def _check_asked(tensors: Mapping[str, Tensor], backbone: str) -> None:
    """Refuse a backbone where the tensors are plainly those of another."""
    fitting = _fitting_backbones(tensors)
    if fitting and backbone not in fitting:
        raise BadInputError(
            f"its tensors are those of {fitting[0]}, but {backbone} was asked for",
            next_step=f"leave --backbone out, or pass --backbone {fitting[0]}",
        )


def _fitting_backbones(tensors: Mapping[str, Tensor]) -> list[str]:
    """Backbones that such tensors can be of, the likeliest first; none: tensors of no known kind.

    Of CLIP's only the first layer is looked at, by which they differ.
    """
    first = tensors.get("image_encoder.conv1.weight")
    if first is None:
        return _fitting_plain(tensors)
    if _POSITIONS in tensors:
        patch = first.shape[-1] if first.ndim else 0
        names = [
            name
            for name, width in _TRANSFORMERS.items()
            if (width, BACKBONES[name].patch) == (_length(first), patch)
        ]
        # The large one of 336 pixels differs from that of 224 by its grid alone.
        window = _grid(tensors) * patch
        return sorted(names, key=lambda name: BACKBONES[name].window != window)
    name = _RESNETS.get(_length(first))
    if name == "clip-rn50" and "image_encoder.layer3.22.conv1.weight" in tensors:
        name = "clip-rn101"
    return [] if name is None else [name]


def _fitting_plain(tensors: Mapping[str, Tensor]) -> list[str]:
    """Networks without CLIP whose tensors have these names and shapes."""
    bins = classes(tensors)
    if bins is None:
        return []
    some = Bins(block=8, starts=tuple(range(bins)), values=tuple(map(float, range(bins))))
    shapes = _shapes(tensors)
    fitting = []
    for name in PLAIN:
        family = BACKBONES[name].family
        if all(each.startswith(tuple(BEGINNINGS[family].values())) for each in shapes):
            with torch.device("meta"):
                own = empty_model(ModelConfig(backbone=name), some).state_dict()
            theirs = _published_names(own, family=family)
            if _shapes({theirs[each]: own[each] for each in theirs}) == shapes:
                fitting.append(name)
    return fitting


def _published_names(own: Mapping[str, Tensor], *, family: str) -> dict[str, str]:
    """Our names of what a published checkpoint holds of a model, and its names."""
    return {name: published_name(name, family=family) for name in own if name not in OURS_ALONE}


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(each.shape) for name, each in without_counters(tensors).items()}


def _length(tensor: Tensor | None) -> int:
    return tensor.shape[0] if tensor is not None and tensor.ndim else 0


def _grid(tensors: Mapping[str, Tensor]) -> int:
    """Side of the grid that a position embedding with a row for the class token is for."""
    return math.isqrt(max(_length(tensors.get(_POSITIONS)) - 1, 0))


def _position_grid(tensors: Mapping[str, Tensor], spec: BackboneSpec) -> int | None:
    """The setting ``position_grid`` of a published transformer: None where it is the usual grid."""
    grid = _grid(tensors)
    if not grid or spec.patch is None or grid * spec.patch == spec.window:
        return None
    return grid


def _tuning(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Settings that say which prompt tokens the file holds; nothing else tells its training."""
    prompts = [tensors[name] for name in tensors if PROMPTS.fullmatch(name)]
    if not prompts:
        return {"tuning": "full"}
    return {
        "tuning": "prompts",
        "prompt_tokens": _length(prompts[0]),
        "prompt_depth": "shallow" if len(prompts) == 1 else "deep",
    }


def _text_tensors(clip: Any) -> dict[str, Tensor]:
    """The tensors of CLIP's text side under their published names."""
    return {
        TEXT + name: tensor
        for name, tensor in clip.state_dict().items()
        if not name.startswith(("visual.", "logit_"))
    }


def published_name(name: str, *, family: str) -> str:
    """What a tensor of our models on a family of backbones is called in a published checkpoint."""
    for ours, theirs in BEGINNINGS[family].items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def unused_names(tensors: Mapping[str, Tensor]) -> list[str]:
    """Tensors that a published checkpoint may hold and that no block count depends on."""
    return [name for name in tensors if _UNUSED.fullmatch(name)]
