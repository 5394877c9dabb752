"""The backbones of the table in small: the same layouts and proportions, fewer and thinner layers.

What is built is decided by open_clip's description of a model alone. So a smaller description,
under a name of its own, goes the whole way that the model itself goes, in a hundredth of the time.
"""

import functools
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import open_clip
import pytest
import torchvision
from timm.models import register_model
from timm.models.fastvit import FastVit
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision.models import resnet, vgg

from crowdcount.models import clip_ebc, encoder_decoder
from crowdcount.models.backbones import BACKBONES

FACTOR = 16
"""How many times thinner each layer is."""

LAYERS = 2
"""Blocks of a transformer."""

FULL_SIZE = dict(BACKBONES)
CLIP = tuple(name for name, spec in FULL_SIZE.items() if spec.family == "clip")
TRANSFORMERS = tuple(name for name in CLIP if FULL_SIZE[name].window)
OPENAI = tuple(name for name in CLIP if FULL_SIZE[name].tag == "openai")
SLIM = tuple(name for name in CLIP if name in OPENAI or name in TRANSFORMERS)
"""Those that the slim decoder takes."""


tokenizer = functools.cache(open_clip.get_tokenizer)
"""Making a tokeniser takes most of the time of a small model."""


@contextmanager
def shrunken() -> Iterator[None]:
    """Let the names of the table mean its backbones in small."""
    with pytest.MonkeyPatch.context() as patch:
        for name, spec in SHRUNKEN.items():
            patch.setitem(BACKBONES, name, spec)
        for letter, layers in vgg.cfgs.items():
            thin = [each if each == "M" else each // FACTOR for each in layers]
            patch.setitem(vgg.cfgs, letter, thin)
        for decoder in ("VGG_DECODER", "DILATED_DECODER"):
            patch.setattr(encoder_decoder, decoder, _thin(getattr(encoder_decoder, decoder)))
        for name, widths in encoder_decoder.RESNET_DECODERS.items():
            patch.setitem(encoder_decoder.RESNET_DECODERS, name, _thin(widths))
        patch.setattr(torchvision.models, "get_model", _shallow)
        patch.setattr(open_clip, "get_tokenizer", tokenizer)
        patch.setattr(clip_ebc, "SLIM_WIDTH", clip_ebc.SLIM_WIDTH // FACTOR)
        yield


def without_norms(model: nn.Module) -> nn.Module:
    """Take out the norms, none of which has a multiply-add and all of which take long to count."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d | nn.LayerNorm):
                setattr(module, name, nn.Identity())
    return model


def _thin(widths: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(width // FACTOR for width in widths)


def _shallow(name: str) -> resnet.ResNet:
    """Return a ResNet with one block in each stage; its widths stay.

    Backward passes of far thinner ones abort now and then inside oneDNN.
    """
    block = resnet.BasicBlock if name in ("resnet18", "resnet34") else resnet.Bottleneck
    return resnet.ResNet(block, [1, 1, 1, 1])


@register_model
def shrunken_siglip(pretrained: bool = False, **options) -> VisionTransformer:
    return VisionTransformer(
        embed_dim=768 // FACTOR,
        depth=LAYERS,
        num_heads=3,
        class_token=False,
        global_pool="map",
        num_classes=options.get("num_classes", 0),
    )


@register_model
def shrunken_fastvit(pretrained: bool = False, **options) -> FastVit:
    return FastVit(
        layers=(1, 1, 1, 1),
        embed_dims=(8, 16, 16, 64),
        mlp_ratios=(2, 2, 2, 2),
        token_mixers=("repmixer", "repmixer", "repmixer", "attention"),
        se_downsamples=(False, False, True, True),
        downsamples=(False, True, True, True),
        num_classes=options.get("num_classes", 0),
    )


_TIMM = {
    "convnext_base": "test_convnext",
    "fastvit_mci1": "shrunken_fastvit",
    "vit_base_patch16_siglip_224": "shrunken_siglip",
}


def _shrink(shape: dict) -> dict:
    vision, text = dict(shape["vision_cfg"]), dict(shape["text_cfg"])
    if "timm_model_name" in vision:
        vision["timm_model_name"] = _TIMM[vision["timm_model_name"]]
        vision["timm_drop_path"] = 0.0
    else:
        vision["width"] //= FACTOR
        is_resnet = isinstance(vision["layers"], list)
        vision["layers"] = [1, 2, 1, 1] if is_resnet else LAYERS
        vision["head_width"] = 64 if is_resnet else 16
    text |= {"width": text["width"] // FACTOR, "heads": 1, "layers": 1}
    return shape | {
        "embed_dim": shape["embed_dim"] // FACTOR,
        "vision_cfg": vision,
        "text_cfg": text,
    }


def _register() -> dict:
    specs = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in CLIP:
            spec = FULL_SIZE[name]
            small = f"shrunken-{spec.library_name}"
            shape = _shrink(open_clip.get_model_config(spec.library_name))
            (Path(folder) / f"{small}.json").write_text(json.dumps(shape))
            decoder = tuple(width // FACTOR for width in spec.decoder)
            specs[name] = replace(spec, library_name=small, decoder=decoder)
        open_clip.add_model_config(folder)
    return specs


SHRUNKEN = _register()
