"""Published checkpoints of CLIP-EBC and EBC-ZIP, converted to our models.

A file of CLIP-EBC is a bare state dict, or a training state with one in it. It holds no bins,
prompts, text features, normalisation or settings; the caller passes those that its tensors do not
show. A file of EBC-ZIP holds ``{"config": {...}, "weights": state dict}`` and states everything a
count depends on. Names of tensors are those of the published code (github.com/Yiming-M/CLIP-EBC,
``models/``, and github.com/Yiming-M/EBC-ZIP).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import torch
from torch import Tensor

from crowdcount.core.bins import Bins
from crowdcount.core.settings import parse
from crowdcount.errors import BadInputError
from crowdcount.models.backbones import BACKBONES, backbone_spec
from crowdcount.models.block_counter import BlockCounter
from crowdcount.models.build import empty_model
from crowdcount.models.checkpoints.tensor_files import TensorFile, drop_counters, exact_tensors
from crowdcount.models.clip_ebc import bin_prompts
from crowdcount.models.clip_image import bare_clip
from crowdcount.models.clip_text import NO_IMAGE, text_features, tokenise
from crowdcount.models.config import ModelConfig
from crowdcount.models.encoder_decoder import LAYOUTS, POOLS

NORMALISATION: Final = "imagenet"
"""Every published CLIP-EBC model was trained with the statistics of ImageNet, not of CLIP."""

PLAIN = tuple(name for name, spec in BACKBONES.items() if spec.family in LAYOUTS)
"""Backbones without CLIP on which EBC was published."""

_POSITIONS = "image_encoder.positional_embedding"

_RESNETS = {32: "clip-rn50", 40: "clip-rn50x4", 48: "clip-rn50x16", 64: "clip-rn50x64"}
"""CLIP's ResNets by the channels of the first convolution; RN101 has as many as RN50."""

_TRANSFORMERS = {
    "clip-vit-b-16": 768,
    "clip-vit-b-32": 768,
    "clip-vit-l-14": 1024,
    "clip-vit-l-14-336": 1024,
}
"""Widths of CLIP's transformers."""

TEXT = "text_encoder."
"""Prefix of the text encoder's names, which open_clip does not have."""

PROMPTS = re.compile(r"vpt_\d+")
"""Prompt tokens: one tensor for each block of a transformer that takes some."""

OURS_ALONE = ("text_features", "mean", "std", "bin_values")
"""Tensors of our models that no published file holds."""

_UNUSED = re.compile(r"image_encoder\.attnpool\..*|text_encoder\.(logit_scale|attn_mask)")
"""Tensors that a file may hold and that no count depends on."""

SMALL = re.compile(r"mobilenetv2_050|mobilenetv3_small_.*|mobilenetv4_conv_small.*")
"""Networks with refining blocks of one depthwise and one 1x1 convolution."""

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
    "zip": {
        "neck.refine.0.": "backbone.refiner.refine.",
        "neck.halve.": "backbone.decoder.",
        "encoder.": "backbone.encoder.",
    },
}
"""Prefixes of our names and of the published ones, by family of backbones. The first that matches
applies; other names are the same in both."""


def published_model(
    tensors: Mapping[str, Tensor],
    *,
    bins: Bins,
    backbone: str | None = None,
    prompts: str = "words",
    window: int | None = None,
    window_stride: int | None = None,
) -> BlockCounter:
    """Build a model from the state dict of a published checkpoint, in evaluation mode.

    The text encoder in the file computes the features of the sentences, and is then dropped.

    The settings are those of its training. A backbone of None is the one that fits its tensors, a
    window of None that of its position embedding, or whole images without one; both the side of the
    windows and their stride are in pixels.

    Raises:
        ConfigError: If the backbone is unknown, or the windows cut blocks or leave gaps.
        BadInputError: If the tensors are not those of this backbone, or of no known one.
    """
    if backbone is None:
        backbone = recognise_backbone(tensors)
    elif (fitting := _fitting_backbones(tensors)) and backbone not in fitting:
        raise BadInputError(
            f"its tensors are those of {fitting[0]}, but {backbone} was asked for",
            next_step=f"leave --backbone out, or pass --backbone {fitting[0]}",
        )
    spec, grid = backbone_spec(backbone), _grid(tensors)
    config = ModelConfig(
        backbone=backbone,
        block=bins.block,
        pretrained="none",
        normalisation=NORMALISATION,
        position_grid=None if grid * (spec.patch or 0) in (0, spec.window) else grid,
        window=window,
        window_stride=window_stride,
        **_tuning(tensors) | {"prompts": prompts},
    )
    with torch.random.fork_rng(devices=[]):
        model = empty_model(config, bins)
        clip = bare_clip(spec, vision_cfg=NO_IMAGE) if spec.family == "clip" else None
    own = model.state_dict()
    theirs = published_names(own, family=spec.family)
    expected = {theirs[name]: own[name] for name in theirs}
    text = {
        TEXT + name: tensor
        for name, tensor in (() if clip is None else clip.state_dict().items())
        if not name.startswith(("visual.", "logit_"))
    }
    unused = unused_names(tensors)
    published = exact_tensors(
        drop_counters({k: v for k, v in tensors.items() if k not in unused}),
        drop_counters({**expected, **text}),
        source=f"published checkpoint as {backbone}",
    )
    own |= {name: published[theirs[name]] for name in theirs if theirs[name] in published}
    if clip is not None:
        clip.load_state_dict({k.removeprefix(TEXT): published[k] for k in text}, strict=False)
        tokens = tokenise(spec, bin_prompts(config, bins), offline=True)
        own["text_features"] = text_features(clip, tokens)
    model.load_state_dict(own)
    return model.eval()


def recognise_backbone(tensors: Mapping[str, Tensor]) -> str:
    """Find the backbone of a published checkpoint; raises BadInputError if none fits."""
    fitting = _fitting_backbones(tensors)
    if not fitting:
        raise BadInputError(
            "not a known published CLIP-EBC checkpoint, by the names and shapes of its "
            f"{len(tensors)} tensors: {', '.join(list(tensors)[:3])}, ...",
            looked_for="image_encoder.conv1.weight of CLIP's ResNets and transformers, or "
            f"classifier.weight behind one of: {', '.join(PLAIN)}",
            next_step="name its backbone with --backbone to see how its tensors differ",
        )
    return fitting[0]


def bin_count(tensors: Mapping[str, Tensor]) -> int | None:
    """Return the number of bins of a published checkpoint; None: not visible, as with CLIP."""
    return _length(tensors.get("classifier.weight")) or None


def _fitting_backbones(tensors: Mapping[str, Tensor]) -> list[str]:
    """List the backbones that fit the tensors, the likeliest first.

    CLIP's backbones differ by their first layer, so only that is compared.
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
        # ViT-L-14-336 differs from ViT-L-14 by its grid alone.
        window = _grid(tensors) * patch
        return sorted(names, key=lambda name: BACKBONES[name].window != window)
    name = _RESNETS.get(_length(first))
    if name == "clip-rn50" and "image_encoder.layer3.22.conv1.weight" in tensors:
        name = "clip-rn101"
    return [] if name is None else [name]


def _fitting_plain(tensors: Mapping[str, Tensor]) -> list[str]:
    """List the networks without CLIP whose tensors have these names and shapes."""
    bins = bin_count(tensors)
    if bins is None:
        return []
    some = Bins(block=8, starts=tuple(range(bins)), values=tuple(map(float, range(bins))))
    shapes = _shapes(tensors)
    fitting = []
    for name in PLAIN:
        family = BACKBONES[name].family
        if all(key.startswith(tuple(BEGINNINGS[family].values())) for key in shapes):
            with torch.device("meta"):
                own = empty_model(ModelConfig(backbone=name), some).state_dict()
            theirs = published_names(own, family=family)
            if _shapes({theirs[key]: own[key] for key in theirs}) == shapes:
                fitting.append(name)
    return fitting


def published_names(own: Mapping[str, Tensor], *, family: str) -> dict[str, str]:
    """Map our names of the tensors that a published file holds to its names."""
    return {name: published_name(name, family=family) for name in own if name not in OURS_ALONE}


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in drop_counters(tensors).items()}


def _length(tensor: Tensor | None) -> int:
    return tensor.shape[0] if tensor is not None and tensor.ndim else 0


def _grid(tensors: Mapping[str, Tensor]) -> int:
    """Return the side of the grid of a position embedding that has a row for the class token."""
    return math.isqrt(max(_length(tensors.get(_POSITIONS)) - 1, 0))


def _tuning(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the settings of the prompt tokens in the file."""
    prompts = [tensors[name] for name in tensors if PROMPTS.fullmatch(name)]
    if not prompts:
        return {"tuning": "full"}
    return {
        "tuning": "prompts",
        "prompt_tokens": _length(prompts[0]),
        "prompt_depth": "shallow" if len(prompts) == 1 else "deep",
    }


def published_name(name: str, *, family: str) -> str:
    """Translate our name of a tensor into that of a published checkpoint."""
    for ours, theirs in BEGINNINGS[family].items():
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def unused_names(tensors: Mapping[str, Tensor]) -> list[str]:
    """List the tensors of a published checkpoint that no count depends on."""
    return [name for name in tensors if _UNUSED.fullmatch(name)]


@dataclass(frozen=True, kw_only=True)
class _Config:
    """Settings in a file that a count depends on."""

    model_name: str
    block_size: int
    bins: tuple[tuple[int, float | None], ...]
    bin_centers: tuple[float, ...]
    zero_inflated: bool
    norm: str = "none"
    """``none``: that of the encoder; so for ``act``."""

    act: str = "none"


def is_zip(file: TensorFile) -> bool:
    """Return whether a file has the form of EBC-ZIP's checkpoints."""
    return isinstance(file.other.get("config"), Mapping) and "bin_head.weight" in file.tensors


def zip_model(file: TensorFile) -> BlockCounter:
    """Build the model of a published checkpoint of EBC-ZIP, in evaluation mode.

    Raises:
        BadInputError: If its settings are damaged or of a network whose form is not certain, or
            its tensors are not those of that network.
    """
    try:
        given = parse(_Config, file.other["config"])
        bins = Bins(
            block=given.block_size,
            starts=tuple(low for low, _ in given.bins),
            values=given.bin_centers,
        )
        if any(high is None or high + 1 != low for (_, high), (low, _) in pairwise(given.bins)):
            raise ValueError("bins leave gaps, or overlap")
        if bins.values[0] != 0:
            raise ValueError("the first bin stands for empty blocks, but its centre is not 0")
    except ValueError as error:
        raise BadInputError(f"{file.path}: its config is not one of EBC-ZIP: {error}") from error
    own_kind = given.zero_inflated and given.norm == given.act == "none"
    if not (SMALL.fullmatch(given.model_name) and own_kind):
        raise BadInputError(
            f"{file.path}: a checkpoint of EBC-ZIP with {given.model_name}, zero_inflated = "
            f"{given.zero_inflated}, norm = {given.norm}, act = {given.act}; this version reads "
            "the zero-inflated ones of small networks with their own norm and activation",
            looked_for="mobilenetv2_050, mobilenetv3_small_..., mobilenetv4_conv_small...",
        )
    config = ModelConfig(
        backbone=f"timm:{given.model_name}",
        head="zip",
        decoder="zip",
        block=bins.block,
        pretrained="none",
        normalisation="clip",
    )
    with torch.random.fork_rng(devices=[]):
        model = empty_model(config, bins)
    own = model.state_dict()
    theirs = {
        ours: name
        for ours, name in published_names(own, family="zip").items()
        if not ours.startswith("head.0.")
    }
    if not any(name.startswith("neck.halve.1.") for name in own):
        # A decoder of one block is not numbered in the file.
        single = ("backbone.decoder.0.", "backbone.decoder.")
        theirs = {ours: name.replace(*single) for ours, name in theirs.items()}
    tensors = dict(file.tensors)
    tensors.pop("bin_centers", None)
    heads = {
        f"{head}_head.{kind}": own[f"head.0.{kind}"][rows]
        for kind in ("weight", "bias")
        for head, rows in (("pi", slice(2)), ("bin", slice(2, None)))
    }
    published = exact_tensors(
        drop_counters(tensors),
        drop_counters({theirs[name]: own[name] for name in theirs} | heads),
        source=f"{file.path} as {given.model_name}",
    )
    own |= {name: published[theirs[name]] for name in theirs if theirs[name] in published}
    for kind in ("weight", "bias"):
        own[f"head.0.{kind}"] = torch.cat(
            [published[f"pi_head.{kind}"], published[f"bin_head.{kind}"]]
        )
    model.load_state_dict(own)
    return model.eval()
