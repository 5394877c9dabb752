import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from crowdcount.core.bins import Bins
from crowdcount.errors import BadInputError
from crowdcount.models.backbones import BACKBONES
from crowdcount.models.build import build_model, empty_model
from crowdcount.models.checkpoints.published import (
    BEGINNINGS,
    PLAIN,
    published_model,
    published_name,
    recognise_backbone,
    unused_names,
)
from crowdcount.models.clip_image import random_clip
from crowdcount.models.clip_text import text_features, tokenise
from crowdcount.models.config import ModelConfig
from tests.models.published_names import OURS, with_published_names
from tests.models.small_backbones import OPENAI, SHRUNKEN, TRANSFORMERS, shrunken

GOLDEN = Path(__file__).parents[2] / "golden"
PART_A = Bins(block=8, starts=(0, 1, 2, 3, 4), values=(0.0, 1.0, 2.0, 3.0, 4.29992))
PUBLISHED = {
    "clip-rn50": "clip_resnet50_r8_t4",
    "clip-vit-b-16": "clip_vit_b_16_r8_t4_vpt32",
    "vgg19": "vgg19_ae_r8_t4",
}
VGG16 = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21)
VGG16_BN = (0, 3, 7, 10, 14, 17, 20, 24, 27, 30)


def test_the_published_names_and_shapes_are_those_of_the_models():
    for backbone, name in PUBLISHED.items():
        keys = json.loads((GOLDEN / f"{name}.keys.json").read_text())
        published = {key: torch.empty(shape, device="meta") for key, shape, _ in keys}
        assert recognise_backbone(published) == backbone
        with torch.device("meta"):
            own = empty_model(ModelConfig(backbone=backbone), PART_A).state_dict()
        family = BACKBONES[backbone].family
        shapes = {
            published_name(key, family=family): tensor.shape
            for key, tensor in own.items()
            if key not in OURS
        }
        assert shapes == {
            key: tensor.shape
            for key, tensor in published.items()
            if key not in unused_names(published) and not key.startswith("text_encoder.")
        }


@pytest.mark.parametrize("backbone", OPENAI)
def test_every_published_clip_is_recognised_at_its_real_size(backbone):
    with torch.device("meta"):
        own = empty_model(ModelConfig(backbone=backbone), PART_A).state_dict()
    assert recognise_backbone(with_published_names(own)) == backbone


def layers(beginning, numbers, *, norms=0):
    """Names of the convolutions with these numbers, and of a norm behind each if there is one."""
    convolved = {f"{beginning}.{i}.{end}" for i in numbers for end in ("weight", "bias")}
    ends = ("weight", "bias", "running_mean", "running_var")
    return convolved | {f"{beginning}.{i + 1}.{end}" for i in numbers * norms for end in ends}


CONTEXT = {
    *(f"backbone.context.scales.{scale}.1.weight" for scale in range(4)),
    *(
        f"backbone.context.{name}.{end}"
        for name in ("bottleneck", "weight_net")
        for end in ("weight", "bias")
    ),
}
HEAD = {"classifier.weight", "classifier.bias"}


@pytest.mark.parametrize(
    ("backbone", "names"),
    [
        (
            "csrnet",
            layers("backbone.features", VGG16) | layers("backbone.decoder", (0, 2, 4, 6, 8, 10)),
        ),
        (
            "csrnet_bn",
            layers("backbone.features", VGG16_BN, norms=1)
            | layers("backbone.decoder", (0, 3, 6, 9, 12, 15), norms=1),
        ),
        (
            "cannet",
            layers("backbone.features", VGG16)
            | layers("backbone.decoder", (0, 2, 4, 6, 8, 10))
            | CONTEXT,
        ),
    ],
)
def test_names_of_networks_without_clip_are_those_of_the_published_code(backbone, names):
    with torch.device("meta"):
        own = empty_model(ModelConfig(backbone=backbone), PART_A).state_dict()
    published = with_published_names(own, family=BACKBONES[backbone].family)
    assert {name for name in published if "num_batches" not in name} == names | HEAD


@pytest.mark.parametrize(
    ("backbone", "last"),
    [("resnet18", "2.conv2"), ("resnet34", "2.conv2"), ("resnet50", "3.conv3")],
)
def test_names_of_resnets_are_those_of_the_published_code(backbone, last):
    with torch.device("meta"):
        own = empty_model(ModelConfig(backbone=backbone), PART_A).state_dict()
    names = with_published_names(own, family="resnet").keys()
    decoder = {name for name in names if name.startswith("backbone.decoder.")}
    assert {"backbone.encoder.conv1.weight", "backbone.encoder.layer4.0.downsample.1.bias"} <= names
    assert max(name for name in decoder if ".conv" in name) == f"backbone.decoder.{last}.weight"
    # 512 to 512 needs no shortcut: so it is behind ResNets 18 and 34.
    shortcut = "backbone.decoder.0.downsample.0.weight" in decoder
    assert shortcut == (backbone == "resnet50")


@pytest.mark.parametrize("backbone", PLAIN)
def test_networks_without_clip_are_known_by_their_names_in_any_order(backbone):
    family = BACKBONES[backbone].family
    with torch.device("meta"):
        own = empty_model(ModelConfig(backbone=backbone), PART_A).state_dict()
    real = with_published_names(own, family=family)
    assert recognise_backbone(dict(sorted(real.items(), reverse=True))) == backbone


def test_the_context_of_cannet_is_that_of_the_published_code():
    torch.manual_seed(0)
    with shrunken():
        tensors = with_published_names(
            empty_model(ModelConfig(backbone="cannet"), PART_A).state_dict(), family="cannet"
        )
        context = published_model(tensors, bins=PART_A, backbone="cannet").context
    features = torch.randn(1, 32, 7, 9)
    weighted, weights = 0, 0
    for number, side in enumerate((1, 2, 3, 6)):
        pooled = F.adaptive_avg_pool2d(features, side)
        around = F.conv2d(pooled, tensors[f"backbone.context.scales.{number}.1.weight"])
        around = F.interpolate(around, size=(7, 9), mode="bilinear")
        weight = torch.sigmoid(
            F.conv2d(
                features - around,
                tensors["backbone.context.weight_net.weight"],
                tensors["backbone.context.weight_net.bias"],
            )
        )
        weighted, weights = weighted + weight * around, weights + weight
    both = torch.cat([weighted / (weights + 1e-6), features], dim=1)
    expected = F.conv2d(
        both,
        tensors["backbone.context.bottleneck.weight"],
        tensors["backbone.context.bottleneck.bias"],
    ).relu()
    assert_close(context(features), expected)


@pytest.mark.parametrize(
    ("backbone", "grid", "window"),
    [
        ("clip-vit-b-16", 16, 256),
        ("clip-vit-b-16", 24, 384),
        ("clip-vit-b-32", 14, 448),
        ("clip-vit-l-14", 32, 448),
        ("clip-vit-l-14", 16, 224),
        ("clip-vit-l-14-336", 24, 336),
    ],
)
def test_transformers_are_known_whatever_crops_they_were_trained_on(backbone, grid, window):
    config = ModelConfig(backbone=backbone, position_grid=grid)
    with torch.device("meta"):
        own = empty_model(config, PART_A).state_dict()
    assert own["encoder.positional_embedding"].shape[0] == grid**2 + 1
    assert config.counting_window == window
    assert recognise_backbone(with_published_names(own)) == backbone


def test_positions_for_other_crops_are_kept():
    torch.manual_seed(0)
    with shrunken():
        config = ModelConfig(
            backbone="clip-vit-b-16",
            pretrained="none",
            normalisation="imagenet",
            position_grid=3,
            tuning="full",
        )
        model = build_model(config, PART_A).eval()
        text = random_clip(SHRUNKEN["clip-vit-b-16"])
        tensors = published(model, text)
        imported = published_model(tensors, bins=PART_A, backbone="clip-vit-b-16")
        assert (imported.config.position_grid, imported.config.window) == (3, 48)
        usual = dict(tensors)
        usual["image_encoder.positional_embedding"] = torch.zeros(14**2 + 1, 48)
        assert published_model(usual, bins=PART_A, backbone="clip-vit-b-16").config.window == 224
    model.text_features.copy_(imported.text_features)
    images = torch.rand(1, 3, 48, 64)
    with torch.no_grad():
        assert_close(imported(images).logits, model(images).logits)


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
        tokens = tokenise(SHRUNKEN[backbone], model.prompts, offline=True)
        model.text_features.copy_(text_features(text, tokens))
        imported = published_model(published(model, text), bins=PART_A, backbone=backbone)
    images = torch.rand(1, 3, 40, 64)
    with torch.no_grad():
        assert_close(imported(images).logits, model(images).logits)


def published(model, clip):
    """The weights of a model, and of the text encoder it was made with, as they are published."""
    text = {
        f"text_encoder.{name}": tensor
        for name, tensor in clip.state_dict().items()
        if not name.startswith(("visual.", "logit_scale"))
    }
    return text | with_published_names(model.state_dict())


def test_a_file_that_is_no_published_checkpoint_is_refused():
    with shrunken():
        torch.manual_seed(0)
        model = build_model(ModelConfig(pretrained="none"), PART_A)
        tensors = published(model, random_clip(SHRUNKEN["clip-rn50"]))
        with pytest.raises(BadInputError, match=r"has the tensor image_encoder\.more that"):
            published_model(
                tensors | {"image_encoder.more": torch.zeros(1)},
                bins=PART_A,
                backbone="clip-rn50",
            )
        with pytest.raises(BadInputError, match=r"lacks the tensor projection\.bias"):
            published_model(
                {name: each for name, each in tensors.items() if name != "projection.bias"},
                bins=PART_A,
                backbone="clip-rn50",
            )
        with pytest.raises(BadInputError, match=r"lacks 2 tensors \(projection\.bias, text_enc"):
            published_model(
                {
                    name: each
                    for name, each in tensors.items()
                    if name not in ("projection.bias", "text_encoder.ln_final.weight")
                },
                bins=PART_A,
                backbone="clip-rn50",
            )


@pytest.mark.parametrize("asked", ["clip-rn101", "clip-vit-b-16", "vgg19", "timm:resnet18"])
def test_a_backbone_that_the_tensors_contradict_is_refused(asked):
    keys = json.loads((GOLDEN / "clip_resnet50_r8_t4.keys.json").read_text())
    tensors = {key: torch.empty(shape, device="meta") for key, shape, _ in keys}
    with pytest.raises(BadInputError, match=f"those of clip-rn50, but {asked} was asked for"):
        published_model(tensors, bins=PART_A, backbone=asked)


def test_every_family_that_was_published_has_names():
    assert BEGINNINGS.keys() == {"zip"} | {BACKBONES[name].family for name in (*PLAIN, *OPENAI)}


def test_what_no_count_depends_on_may_be_there_and_is_named():
    with shrunken():
        torch.manual_seed(0)
        model = build_model(ModelConfig(pretrained="none"), PART_A)
        tensors = published(model, random_clip(SHRUNKEN["clip-rn50"]))
        more = {"image_encoder.attnpool.c_proj.weight": torch.zeros(2, 2)}
        more["text_encoder.logit_scale"] = torch.zeros(())
        imported = published_model(tensors | more, bins=PART_A, backbone="clip-rn50")
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
    with pytest.raises(BadInputError, match="not a known published CLIP-EBC checkpoint"):
        recognise_backbone(tensors)
