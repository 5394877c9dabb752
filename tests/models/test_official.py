import json
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from crowdcount.core.bins import Bins
from crowdcount.errors import BadInputError
from crowdcount.models.build import build_model, empty_model
from crowdcount.models.clip_encoders import random_clip, text_features, tokenised
from crowdcount.models.config import ModelConfig
from crowdcount.models.official import (
    PLAIN,
    official_model,
    our_names,
    recognised_backbone,
    unused_names,
)
from tests.models.shrunken import OPENAI, SHRUNKEN, TRANSFORMERS, shrunken

GOLDEN = Path(__file__).parents[1] / "golden"
PART_A = Bins(block=8, starts=(0, 1, 2, 3, 4), values=(0.0, 1.0, 2.0, 3.0, 4.29992))
PUBLISHED = {
    "clip-rn50": "clip_resnet50_r8_t4",
    "clip-vit-b-16": "clip_vit_b_16_r8_t4_vpt32",
    "vgg19": "vgg19_ae_r8_t4",
}
OURS = {"text_features", "mean", "std", "bin_values"}


def test_the_published_names_and_shapes_are_those_of_the_models():
    for backbone, name in PUBLISHED.items():
        keys = json.loads((GOLDEN / f"{name}.keys.json").read_text())
        published = {key: torch.empty(shape, device="meta") for key, shape, _ in keys}
        assert recognised_backbone(published) == backbone
        with torch.device("meta"):
            own = empty_model(ModelConfig(backbone=backbone), PART_A).state_dict()
        shapes = {key: tensor.shape for key, tensor in own.items() if key not in OURS}
        assert shapes == {key: tensor.shape for key, tensor in our_names(published).items()}


@pytest.mark.parametrize("backbone", OPENAI)
def test_every_published_clip_is_recognised_at_its_real_size(backbone):
    with torch.device("meta"):
        own = empty_model(ModelConfig(backbone=backbone), PART_A).state_dict()
    assert recognised_backbone(with_published_names(own)) == backbone


@pytest.mark.parametrize("backbone", PLAIN)
def test_networks_without_clip_are_known_whatever_their_tensors_are_called(backbone):
    with torch.device("meta"):
        real = empty_model(ModelConfig(backbone=backbone), PART_A).state_dict()
    assert recognised_backbone(called_otherwise(real)) == backbone
    torch.manual_seed(0)
    with shrunken():
        model = build_model(
            ModelConfig(backbone=backbone, pretrained="none", normalisation="imagenet"), PART_A
        ).eval()
        called = called_otherwise(model.state_dict())
        imported = official_model(called, bins=PART_A, backbone=backbone)
    images = torch.rand(1, 3, 40, 64)
    with torch.no_grad():
        assert_close(imported(images).logits, model(images).logits, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("backbone", "depth"),
    [
        *((name, "deep" if name in TRANSFORMERS else None) for name in OPENAI),
        ("clip-vit-b-16", "shallow"),
        ("clip-vit-b-16", None),
    ],
)
def test_every_published_architecture_is_mapped(backbone, depth):
    """Name the weights of a model as the published code does; what comes back counts alike."""
    tuning = {"tuning": "full"} if depth is None else {"prompt_depth": depth, "prompt_tokens": 3}
    torch.manual_seed(0)
    with shrunken():
        config = ModelConfig(
            backbone=backbone, pretrained="none", normalisation="imagenet", **tuning
        )
        model = build_model(config, PART_A).eval()
        text = random_clip(SHRUNKEN[backbone])
        tokens = tokenised(SHRUNKEN[backbone], model.prompts, offline=True)
        model.text_features.copy_(text_features(text, tokens))
        imported = official_model(published(model, text), bins=PART_A, backbone=backbone)
    images = torch.rand(1, 3, 40, 64)
    with torch.no_grad():
        assert_close(imported(images).logits, model(images).logits)


def called_otherwise(state):
    """The tensors of a network without CLIP, of which only the last have known names."""
    return {
        f"classifier.{name.rpartition('.')[2]}"
        if name.startswith("head.")
        else f"backbone.layer.{number}.{name.rpartition('.')[2]}": tensor
        for number, (name, tensor) in enumerate(state.items())
        if name not in OURS
    }


def published(model, clip):
    """The weights of a model, and of the text encoder it was made with, as they are published."""
    text = {
        f"text_encoder.{name}": tensor
        for name, tensor in clip.state_dict().items()
        if not name.startswith(("visual.", "logit_scale"))
    }
    return text | with_published_names(model.state_dict())


def with_published_names(state):
    renamed = {
        "encoder.blocks.": "image_encoder.transformer.resblocks.",
        "encoder.": "image_encoder.",
        "decoder.": "image_decoder.",
        "prompt_tokens.tokens.": "vpt_",
    }
    tensors = {}
    for name, tensor in state.items():
        if name not in OURS:
            prefix = next((each for each in renamed if name.startswith(each)), "")
            tensors[renamed.get(prefix, "") + name.removeprefix(prefix)] = tensor
    return tensors


def test_what_is_not_such_a_checkpoint_is_refused():
    with shrunken():
        torch.manual_seed(0)
        model = build_model(ModelConfig(pretrained="none"), PART_A)
        tensors = published(model, random_clip(SHRUNKEN["clip-rn50"]))
        with pytest.raises(BadInputError, match=r"does not know: encoder\.more"):
            official_model(
                tensors | {"image_encoder.more": torch.zeros(1)},
                bins=PART_A,
                backbone="clip-rn50",
            )
        with pytest.raises(BadInputError, match=r"lacks the tensor projection\.bias"):
            official_model(
                {name: each for name, each in tensors.items() if name != "projection.bias"},
                bins=PART_A,
                backbone="clip-rn50",
            )


def test_what_no_count_depends_on_may_be_there_and_is_named():
    with shrunken():
        torch.manual_seed(0)
        model = build_model(ModelConfig(pretrained="none"), PART_A)
        tensors = published(model, random_clip(SHRUNKEN["clip-rn50"]))
        more = {"image_encoder.attnpool.c_proj.weight": torch.zeros(2, 2)}
        more["text_encoder.logit_scale"] = torch.zeros(())
        imported = official_model(tensors | more, bins=PART_A, backbone="clip-rn50")
    assert unused_names(tensors) == []
    assert unused_names(tensors | more) == list(more)
    images = torch.rand(1, 3, 40, 64)
    assert torch.isfinite(imported(images).counts).all()


@pytest.mark.parametrize(
    "tensors",
    [
        {"features.0.weight": torch.zeros(4, 3, 3, 3)},
        {"image_encoder.conv1.weight": torch.zeros(5, 3, 3, 3)},
        {"classifier.weight": torch.zeros(5, 128, 1, 1), "classifier.bias": torch.zeros(5)},
    ],
)
def test_other_checkpoints_are_not_recognised_as_published_ones(tensors):
    with pytest.raises(BadInputError, match="no published CLIP-EBC checkpoint that is known"):
        recognised_backbone(tensors)
