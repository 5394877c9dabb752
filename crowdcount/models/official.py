"""Published CLIP-EBC checkpoints -> our models.

Such a file is a bare state dict, or a training state with one in it. It holds neither bins nor
prompts, text features, normalisation nor any setting: what its tensors do not tell is given here.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from crowdcount.core.bins import Bins
from crowdcount.errors import BadInputError
from crowdcount.models.backbones import BACKBONES, backbone_spec
from crowdcount.models.block_counter import BlockCounter
from crowdcount.models.build import empty_model
from crowdcount.models.clip_ebc import bin_prompts
from crowdcount.models.clip_encoders import bare_clip_text, text_features, tokenised
from crowdcount.models.config import ModelConfig
from crowdcount.models.encoder_decoder import LAYOUTS
from crowdcount.models.state_dicts import exact_tensors, first_difference, without_counters

NORMALISATION = "imagenet"
"""Every published CLIP-EBC model was trained with the statistics of ImageNet, not of CLIP."""

PLAIN = tuple(name for name, spec in BACKBONES.items() if spec.family in LAYOUTS)
"""Backbones without CLIP on which EBC was published."""

_RENAMED = {
    "image_encoder.transformer.resblocks.": "encoder.blocks.",
    "image_encoder.": "encoder.",
    "image_decoder.": "decoder.",
    "vpt_": "prompt_tokens.tokens.",
    "backbone.features.": "encoder.",
    "backbone.reg_layer.": "decoder.",
    "classifier.": "head.0.",
}
_TEXT = "text_encoder."
_PROMPTS = re.compile(r"vpt_\d+")
_UNUSED = re.compile(r"image_encoder\.attnpool\..*|text_encoder\.(logit_scale|attn_mask)")
"""What a file may hold and no block count depends on."""

_GIVEN = ("text_features", "mean", "std", "bin_values")
"""Tensors of ours that no published file holds."""

_RESNETS = {32: "clip-rn50", 40: "clip-rn50x4", 48: "clip-rn50x16", 64: "clip-rn50x64"}
"""CLIP's ResNets by the channels of the first convolution; RN101 has those of RN50."""

_TRANSFORMERS = {
    (768, 16, 14): "clip-vit-b-16",
    (768, 32, 7): "clip-vit-b-32",
    (1024, 14, 16): "clip-vit-l-14",
    (1024, 14, 24): "clip-vit-l-14-336",
}
"""CLIP's transformers by width, side of a patch in pixels, and side of the grid in patches."""


def official_model(
    tensors: Mapping[str, Tensor],
    *,
    bins: Bins,
    backbone: str | None = None,
    prompts: str = "words",
    window: int | None = None,
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

    Raises:
        ConfigError: If there is no such backbone, or the window cuts blocks.
        BadInputError: If the tensors are not those of this backbone, or of none that is known.
    """
    backbone = backbone or recognised_backbone(tensors)
    config = ModelConfig(
        backbone=backbone,
        block=bins.block,
        pretrained="none",
        prompts=prompts,
        normalisation=NORMALISATION,
        window=window,
        **_tuning(tensors),
    )
    with torch.random.fork_rng(devices=[]):
        model = empty_model(config, bins)
    own = model.state_dict()
    given = {name: own[name] for name in _GIVEN if name in own}
    if "text_features" in given:
        with torch.random.fork_rng(devices=[]):
            given["text_features"] = _text_features(tensors, config, bins)
    wanted = {name: tensor for name, tensor in own.items() if name not in given}
    named = our_names(tensors)
    if config.backbone in PLAIN and named.keys() != wanted.keys():
        named = _in_order(tensors, wanted, backbone=backbone)
        # Batch normalisation counts its batches, and nothing depends on it.
        wanted = without_counters(wanted)
    found = exact_tensors(named, wanted, source=_source(backbone))
    model.load_state_dict(own | found | given)
    return model.eval()


def recognised_backbone(tensors: Mapping[str, Tensor]) -> str:
    """The backbone of a published checkpoint, by the names and shapes of its tensors.

    Raises:
        BadInputError: If it is none that is known.
    """
    first = tensors.get("image_encoder.conv1.weight")
    positions = tensors.get("image_encoder.positional_embedding")
    name = None
    if first is not None and positions is not None:
        grid = math.isqrt(len(positions) - 1)
        name = _TRANSFORMERS.get((len(first), first.shape[-1], grid))
    elif first is not None:
        name = _RESNETS.get(len(first))
        if name == "clip-rn50" and "image_encoder.layer3.22.conv1.weight" in tensors:
            name = "clip-rn101"
    elif "classifier.weight" in tensors:
        name = _recognised_plain(tensors)
    if name is None:
        raise BadInputError(
            "no published CLIP-EBC checkpoint that is known, by the names and shapes of its "
            f"{len(tensors)} tensors: {', '.join(list(tensors)[:3])}, ...",
            looked_for="image_encoder.conv1.weight of CLIP's ResNets and transformers, or "
            f"classifier.weight behind one of: {', '.join(PLAIN)}",
            next_step="name its backbone with --backbone to see how its tensors differ",
        )
    return name


def classes(tensors: Mapping[str, Tensor]) -> int | None:
    """Bins a published checkpoint tells apart; None: its tensors do not tell, as CLIP's."""
    last = tensors.get("classifier.weight")
    return None if last is None else len(last)


def unused_names(tensors: Mapping[str, Tensor]) -> list[str]:
    """Tensors that a published checkpoint may hold and that no block count depends on."""
    return [name for name in tensors if _UNUSED.fullmatch(name)]


def our_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a published checkpoint under the names of our models, without its text."""
    return {
        _renamed(name): tensor
        for name, tensor in tensors.items()
        if not (name.startswith(_TEXT) or _UNUSED.fullmatch(name))
    }


def _recognised_plain(tensors: Mapping[str, Tensor]) -> str | None:
    """The network without CLIP whose tensors have these shapes, in this order."""
    bins = classes(tensors) or 2
    some = Bins(block=8, starts=tuple(range(bins)), values=tuple(map(float, range(bins))))
    shapes = _shapes(tensors)
    for name in PLAIN:
        with torch.device("meta"):
            own = empty_model(ModelConfig(backbone=name), some).state_dict()
        if _shapes({k: v for k, v in own.items() if k not in _GIVEN}) == shapes:
            return name
    return None


def _shapes(tensors: Mapping[str, Tensor]) -> list[tuple[int, ...]]:
    return [tuple(each.shape) for each in without_counters(tensors).values()]


def _in_order(
    tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, backbone: str
) -> dict[str, Tensor]:
    """The tensors of a network without CLIP under our names: where names differ, order tells."""
    theirs, ours = without_counters(tensors), without_counters(wanted)
    if not first_difference(theirs, ours):
        return dict(zip(ours, theirs.values(), strict=True))
    return exact_tensors(our_names(tensors), wanted, source=_source(backbone))


def _tuning(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Settings that say which prompt tokens the file holds; nothing else tells its training."""
    prompts = [tensors[name] for name in tensors if _PROMPTS.fullmatch(name)]
    if not prompts:
        return {"tuning": "full"}
    return {
        "tuning": "prompts",
        "prompt_tokens": len(prompts[0]),
        "prompt_depth": "shallow" if len(prompts) == 1 else "deep",
    }


def _text_features(tensors: Mapping[str, Tensor], config: ModelConfig, bins: Bins) -> Tensor:
    spec = backbone_spec(config.backbone)
    clip = bare_clip_text(spec)
    own = {k: v for k, v in clip.state_dict().items() if not k.startswith(("visual.", "logit_"))}
    text = {
        name.removeprefix(_TEXT): tensor
        for name, tensor in tensors.items()
        if name.startswith(_TEXT) and not _UNUSED.fullmatch(name)
    }
    clip.load_state_dict(exact_tensors(text, own, source=_source(config.backbone)), strict=False)
    tokens = tokenised(spec, bin_prompts(config, bins), offline=True)
    return text_features(clip, tokens)


def _renamed(name: str) -> str:
    for theirs, ours in _RENAMED.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def _source(backbone: str) -> str:
    return f"published checkpoint as {backbone}"
