import dataclasses
import math

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from crowdcount.core.bins import Bins
from crowdcount.core.image import NORMALISATIONS, Normalisation
from crowdcount.errors import ConfigError
from crowdcount.models.backbones import BACKBONES, backbone_spec, default_crop, own_window
from crowdcount.models.build import empty_model
from crowdcount.models.config import ModelConfig
from crowdcount.models.encoder_decoder import LAYOUTS
from tests.models.small_backbones import without_norms

FIVE = Bins(block=8, starts=(0, 1, 2, 3, 4), values=(0.0, 1.0, 2.0, 3.0, 4.3))


@pytest.mark.parametrize("name", BACKBONES)
def test_every_entry_belongs_to_a_family_that_can_be_built(name):
    assert BACKBONES[name].family in ("clip", *LAYOUTS)
    assert backbone_spec(name) == BACKBONES[name]
    assert default_crop(name) == (BACKBONES[name].window or BACKBONES[name].crop)


def test_a_timm_model_brings_its_own_statistics():
    lite, resnet = backbone_spec("timm:tf_efficientnet_lite0"), backbone_spec("timm:resnet10t")
    assert lite.normalisation == NORMALISATIONS["half"]
    assert resnet.normalisation == NORMALISATIONS["imagenet"]
    assert (lite.family, lite.library_name, lite.tag) == ("timm", "tf_efficientnet_lite0", "in1k")
    assert default_crop("timm:resnet10t") == 448
    assert default_crop("clip-vit-b-16", grid=24) == 384


def test_crops_are_as_large_as_the_windows_a_backbone_needs(monkeypatch):
    spec = dataclasses.replace(BACKBONES["clip-rn50"], window=224)
    monkeypatch.setitem(BACKBONES, "windowed", spec)
    assert default_crop("windowed") == 224
    assert default_crop("clip-rn50") == 448


def test_statistics_are_those_of_the_chosen_weights():
    tags = ("augreg_in21k", "orig_in21k", "mae", "sam_in1k", "in1k")
    known = [tag for tag in tags if timm.is_model_pretrained(f"vit_base_patch16_224.{tag}")]
    assert len(known) > 1
    for tag in known:
        card = timm.get_pretrained_cfg(f"vit_base_patch16_224.{tag}")
        own = Normalisation(mean=tuple(card.mean), std=tuple(card.std))
        by_setting = backbone_spec("timm:vit_base_patch16_224", pretrained=tag)
        assert (by_setting.tag, by_setting.normalisation) == (tag, own)
        assert backbone_spec(f"timm:vit_base_patch16_224.{tag}") == by_setting


@pytest.mark.parametrize("pretrained", ["auto", "none"])
def test_only_a_tag_replaces_the_usual_weights(pretrained):
    assert backbone_spec("clip-rn50", pretrained=pretrained).tag == "openai"
    assert backbone_spec("clip-rn50", pretrained="yfcc15m").tag == "yfcc15m"


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        ("timm:tf_efficientnet_lite", "auto", "timm has no model.*did you mean"),
        ("timm:hf-hub:someone/something", "auto", "timm has no model"),
        ("timm:test_resnet.nonsense", "auto", "timm has no weights 'nonsense'"),
        ("timm:test_resnet", "r160_in2k", "did you mean 'r160_in1k'"),
        ("resnet51", "auto", "unknown backbone.*did you mean 'resnet50'"),
        ("open-clip:ViT-B-61/openai", "auto", "open_clip has no model.*did you mean"),
        ("open-clip:ViT-B-16/openais", "auto", "no weights 'openais'.*did you mean 'openai'"),
        ("open-clip:ViT-B-16/openai", "opanai", "no weights 'opanai'"),
    ],
)
def test_what_no_library_has_is_refused(name, pretrained, message):
    with pytest.raises(ConfigError, match=message):
        backbone_spec(name, pretrained=pretrained)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("ViT-L-14-336-quickgelu/openai", "clip-vit-l-14-336"),
        ("convnext_base_w/laion2b_s13b_b82k_augreg", "clip-convnext-base-w"),
        ("MobileCLIP-S1/datacompdr", "mobileclip-s1"),
        ("ViT-B-16-SigLIP/webli", "siglip-b-16"),
    ],
)
def test_a_model_of_open_clip_brings_statistics_crop_and_window(name, known):
    spec = backbone_spec(f"open-clip:{name}")
    # Where its weights lie is the library's to know.
    unknown = {"source": "", "publisher": "", "licence": "", "figures": None}
    assert spec == dataclasses.replace(backbone_spec(known), **unknown)
    assert default_crop(f"open-clip:{name}") == default_crop(known)


def test_models_of_open_clip_need_neither_window_nor_tag():
    assert backbone_spec("open-clip:RN50-quickgelu/cc12m").window is None
    assert backbone_spec("open-clip:RN50-quickgelu").tag == ""
    assert backbone_spec("open-clip:RN50-quickgelu", pretrained="yfcc15m").tag == "yfcc15m"


def test_transformers_count_and_learn_in_windows_of_their_own_size():
    assert {name: spec.window for name, spec in BACKBONES.items() if spec.window} == {
        "clip-vit-b-16": 224,
        "clip-vit-b-32": 224,
        "clip-vit-l-14": 224,
        "clip-vit-l-14-336": 336,
        "siglip-b-16": 224,
    }
    assert (own_window("clip-vit-l-14-336"), default_crop("clip-vit-l-14-336")) == (336, 336)
    assert (own_window("open-clip:ViT-L-14-280"), own_window("open-clip:RN50")) == (280, None)
    assert (own_window("clip-rn50"), own_window("timm:resnet10t")) == (None, None)


def billions_of_multiply_adds(model, *, height, width):
    windows = 1
    if window := model.config.window:
        windows = math.ceil(height / window) * math.ceil(width / window)
        height = width = window
    height, width = (math.ceil(side / model.stride) * model.stride for side in (height, width))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.block_logits(torch.empty(1, 3, height, width, device="meta"))
    return windows * counter.get_total_flops() / 2e9


@pytest.mark.parametrize("name", BACKBONES)
def test_figures_are_what_the_models_have(name):
    spec = BACKBONES[name]
    figures = spec.figures
    assert "" not in (spec.publisher, spec.licence)
    with torch.device("meta"):
        model = empty_model(ModelConfig(backbone=name), FIVE).eval()
    trained = [each for each in model.parameters() if each.requires_grad]
    for said, parameters in (
        (figures.encoder, model.encoder.parameters()),
        (figures.parameters, model.parameters()),
        (figures.trained, trained),
    ):
        assert f"{sum(each.numel() for each in parameters) / 1e6:.1f}" == f"{said:.1f}"
    assert model.stride == figures.stride
    without_norms(model).requires_grad_(requires_grad=False)
    for said, height, width in ((figures.gmac_448, 448, 448), (figures.gmac_1024, 768, 1024)):
        assert round(billions_of_multiply_adds(model, height=height, width=width)) == said
