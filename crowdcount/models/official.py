"""Published CLIP-EBC checkpoints -> our models."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from crowdcount.core.bins import Bins
from crowdcount.models.backbones import backbone_spec
from crowdcount.models.block_counter import BlockCounter
from crowdcount.models.build import empty_model
from crowdcount.models.clip_ebc import bin_prompts
from crowdcount.models.clip_encoders import bare_clip_text, text_features, tokenised
from crowdcount.models.config import ModelConfig
from crowdcount.models.state_dicts import exact_tensors

NORMALISATION = "imagenet"
"""Every published CLIP-EBC model was trained with the statistics of ImageNet, not of CLIP."""

_RENAMED = {
    "image_encoder.transformer.resblocks.": "encoder.blocks.",
    "image_encoder.": "encoder.",
    "image_decoder.": "decoder.",
    "vpt_": "prompt_tokens.tokens.",
}
_TEXT = "text_encoder."
_PROMPTS = re.compile(r"vpt_\d+")


def official_clip_ebc(
    tensors: Mapping[str, Tensor],
    *,
    bins: Bins,
    backbone: str = "clip-rn50",
    prompts: str = "words",
) -> BlockCounter:
    """A model from the state dict of a published CLIP-EBC checkpoint, in evaluation mode.

    What such a file does not hold is given here. Features of the sentences are computed anew by the
    text encoder in the file, which is then dropped.

    Args:
        tensors: The bare state dict.
        bins: The bins it was trained with: the published tables.
        backbone: The CLIP backbone it was trained on.
        prompts: ``words`` or ``digits``, as it was trained.

    Raises:
        ConfigError: If there is no such backbone.
        BadInputError: If the tensors are not those of this backbone.
    """
    config = ModelConfig(
        backbone=backbone,
        block=bins.block,
        pretrained="none",
        prompts=prompts,
        normalisation=NORMALISATION,
        **_tuning(tensors),
    )
    with torch.random.fork_rng(devices=[]):
        model = empty_model(config, bins)
        features = _text_features(tensors, config, bins)
    own = model.state_dict()
    # These are ours: no published file holds them.
    given = {"text_features": features, **{k: own[k] for k in ("mean", "std", "bin_values")}}
    mapped = our_names(tensors)
    model.load_state_dict(exact_tensors(mapped | given, own, source=_source(backbone)))
    return model.eval()


def our_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a published checkpoint under the names of our models, without its text."""
    return {_renamed(k): v for k, v in tensors.items() if not k.startswith(_TEXT)}


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
    text = {k.removeprefix(_TEXT): v for k, v in tensors.items() if k.startswith(_TEXT)}
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
