"""The encoders at their full size, on the device that computes nothing."""

import itertools

import open_clip
import pytest
import torch

from crowdcount.core.bins import Bins
from crowdcount.errors import ConfigError
from crowdcount.models import clip_image
from crowdcount.models.backbones import BACKBONES, backbone_spec
from crowdcount.models.build import empty_model
from crowdcount.models.clip_image import bare_clip_encoder, whole_clip
from crowdcount.models.config import ModelConfig
from crowdcount.models.residual import BasicBlock, Bottleneck
from tests.models.small_backbones import CLIP

# fmt: off
TABLE = {
    # name: channels, residual blocks and their widths, embedding, stride for blocks of 8 and of 32
    "clip-rn50":         (2048, Bottleneck, [2048], 1024, 16, 32),
    "clip-rn101":        (2048, Bottleneck, [2048, 1024], 512, 16, 32),
    "clip-rn50x4":       (2560, Bottleneck, [1280], 640, 16, 32),
    "clip-rn50x16":      (3072, Bottleneck, [1536], 768, 16, 32),
    "clip-rn50x64":      (4096, Bottleneck, [2048], 1024, 16, 32),
    "clip-vit-b-16":     (768, BasicBlock, [768], 512, 16, 16),
    "clip-vit-b-32":     (768, BasicBlock, [768], 512, 32, 32),
    "clip-vit-l-14":     (1024, BasicBlock, [1024], 768, 14, 14),
    "clip-vit-l-14-336": (1024, BasicBlock, [1024], 768, 14, 14),
    "clip-convnext-base-w": (1024, Bottleneck, [1024], 640, 32, 32),
    "mobileclip-s1":     (1024, Bottleneck, [1024], 512, 32, 32),
    "siglip-b-16":       (768, BasicBlock, [768], 768, 16, 16),
}
# fmt: on


@pytest.mark.parametrize("name", CLIP)
def test_weights_lie_where_the_library_looks_for_them(name):
    spec = BACKBONES[name]
    known = open_clip.get_pretrained_cfg(spec.library_name, spec.tag)
    assert spec.source == known["hf_hub"].rstrip("/")


@pytest.mark.parametrize("name", CLIP)
def test_the_models_have_the_shapes_of_the_table(name):
    channels, block, widths, embedding, fine, coarse = TABLE[name]
    for stride, side in {coarse: 32, fine: 8}.items():
        bins = Bins(block=side, starts=(0, 1, 2), values=(0.0, 1.0, 2.2))
        with torch.device("meta"):
            model = empty_model(ModelConfig(backbone=name, block=side), bins).eval()
            features = model.encoder(torch.empty(1, 3, 7 * 32, 14 * 32))
        assert features.shape == (1, channels, 7 * 32 // stride, 14 * 32 // stride)
        assert model.stride == stride
        assert all(isinstance(each, block) for each in model.decoder)
        assert [each.bn1.num_features for each in model.decoder] == widths
        for each, (before, width) in zip(
            model.decoder, itertools.pairwise([channels, *widths]), strict=True
        ):
            has_shortcut = any("downsample" in key for key in each.state_dict())
            assert has_shortcut == (before != width)
        assert model.projection.weight.shape == (embedding, widths[-1], 1, 1)
        assert model.text_features.shape == (3, embedding)


@pytest.mark.parametrize("name", CLIP)
def test_activations_are_those_of_the_weights(name):
    spec = BACKBONES[name]
    of_model = open_clip.get_model_config(spec.library_name).get("quick_gelu", False)
    weights = open_clip.get_pretrained_cfg(spec.library_name, spec.tag)
    assert of_model == weights.get("quick_gelu", False)
    assert (spec.normalisation.mean, spec.normalisation.std) == (weights["mean"], weights["std"])


def test_weights_of_another_activation_are_refused_with_the_name_that_fits():
    name = "open-clip:RN50/openai"
    with pytest.raises(ConfigError, match=r"another activation\n.*RN50-quickgelu/openai"):
        whole_clip(backbone_spec(name), ModelConfig(backbone=name), offline=True)


def test_weights_must_be_named_where_there_are_no_usual_ones():
    name = "open-clip:RN50-quickgelu"
    with pytest.raises(ConfigError, match=r"(?s)which weights.*openai, yfcc15m, cc12m"):
        whole_clip(backbone_spec(name), ModelConfig(backbone=name), offline=True)


@pytest.mark.parametrize(
    ("architecture", "reason"),
    [
        ("coca_ViT-B-32", "it writes captions"),
        ("roberta-ViT-B-32", "its text encoder is of another library"),
        ("ViT-L-14-CLIPA", "its last norm is made for a pooled image"),
        ("EVA02-B-16", "its image encoder is a Eva"),
        ("swin_base_patch4_window7_224", "its image encoder is a SwinTransformer"),
        ("ViTamin-S", "its image encoder is a VisionTransformer of a kind of its own"),
    ],
)
def test_other_layouts_are_refused_with_the_reason(architecture, reason):
    spec = backbone_spec(f"open-clip:{architecture}")
    with torch.device("meta"), pytest.raises(ConfigError, match=f"{architecture} cannot.*{reason}"):
        bare_clip_encoder(spec, block=8)


def test_other_layouts_are_refused_before_anything_is_downloaded(monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("a download")

    monkeypatch.setattr(clip_image, "weights_file", refuse)
    name = "open-clip:ViTamin-S/datacomp1b"
    with pytest.raises(ConfigError, match=r"ViTamin-S cannot be used"):
        whole_clip(backbone_spec(name), ModelConfig(backbone=name), offline=False)


@pytest.mark.parametrize("architecture", ["convnext_tiny", "ViT-S-32", "RN50"])
def test_other_models_of_the_same_layouts_are_built_as_they_are(architecture):
    spec = backbone_spec(f"open-clip:{architecture}")
    with torch.device("meta"):
        encoder = bare_clip_encoder(spec, block=8)
        features = encoder.network.eval()(torch.empty(1, 3, 256, 320))
    assert features.shape == (1, encoder.channels, 256 // encoder.stride, 320 // encoder.stride)
    names = [name for stage in encoder.stages for name in stage]
    owned = {name.partition(".")[0] for name, _ in encoder.network.named_parameters()}
    assert owned <= {name.partition(".")[0] for name in names}
