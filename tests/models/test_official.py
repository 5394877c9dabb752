import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from crowdcount.core.bins import Bins
from crowdcount.core.image import NORMALISATIONS
from crowdcount.errors import BadInputError
from crowdcount.inference.sliding import SlidingModel
from crowdcount.models.build import build_model, empty_model
from crowdcount.models.clip_encoders import random_clip, text_features, tokenised
from crowdcount.models.config import ModelConfig
from crowdcount.models.official import official_clip_ebc, our_names
from tests.models.shrunken import OPENAI, SHRUNKEN, TRANSFORMERS, shrunken

GOLDEN = Path(__file__).parents[1] / "golden"
PART_A = Bins(block=8, starts=(0, 1, 2, 3, 4), values=(0.0, 1.0, 2.0, 3.0, 4.29992))
PUBLISHED = {
    "clip-rn50": ("clip_resnet50_r8_t4", ["whole_256x320"]),
    "clip-vit-b-16": ("clip_vit_b_16_r8_t4_vpt32", ["whole_224x224", "whole_256x320"]),
}


def make_weights(name):
    """The weights of a fixture, made again from their seed."""
    spec = importlib.util.spec_from_file_location("make_weights", GOLDEN / "make_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_weights(name, 11)


@pytest.mark.parametrize("backbone", PUBLISHED)
def test_published_weights_give_the_published_outputs(backbone):
    name, cases = PUBLISHED[backbone]
    model = official_clip_ebc(make_weights(name), bins=PART_A, backbone=backbone)
    exact = {"atol": 1e-4, "rtol": 0}
    with np.load(GOLDEN / f"{name}.seed11.npz") as golden:
        assert_close(model.bin_values, torch.from_numpy(golden["anchors"]))
        assert_close(model.text_features, torch.from_numpy(golden["text_features"]), **exact)
        for case in cases:
            images = torch.from_numpy(golden[f"{case}.input"]).float()
            with torch.no_grad():
                found = model.from_normalised(images)
            assert_close(found.logits, torch.from_numpy(golden[f"{case}.logits"]), **exact)
            assert_close(found.counts, torch.from_numpy(golden[f"{case}.density"]), **exact)
        (case,) = {key.partition(".")[0] for key in golden if key.startswith("sliding")}
        window, stride = golden[f"{case}.window_stride"].tolist()
        sliding = SlidingModel(
            model=model.from_normalised, block=PART_A.block, window=window, stride=stride
        )
        with torch.no_grad():
            counts = sliding(torch.from_numpy(golden[f"{case}.input"]).float()).counts
        assert_close(counts, torch.from_numpy(golden[f"{case}.density"]), **exact)
    assert model.normalisation == NORMALISATIONS["imagenet"]
    assert not model.training


def test_the_published_names_and_shapes_are_those_of_the_models():
    for backbone, (name, _) in PUBLISHED.items():
        keys = json.loads((GOLDEN / f"{name}.keys.json").read_text())
        published = {key: torch.empty(shape, device="meta") for key, shape, _ in keys}
        with torch.device("meta"):
            own = empty_model(ModelConfig(backbone=backbone), PART_A).state_dict()
        ours = {"text_features", "mean", "std", "bin_values"}
        shapes = {key: tensor.shape for key, tensor in own.items() if key not in ours}
        assert shapes == {key: tensor.shape for key, tensor in our_names(published).items()}


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
        imported = official_clip_ebc(published(model, text), bins=PART_A, backbone=backbone)
    images = torch.rand(1, 3, 40, 64)
    with torch.no_grad():
        assert_close(imported(images).logits, model(images).logits)


def published(model, clip):
    renamed = {
        "encoder.blocks.": "image_encoder.transformer.resblocks.",
        "encoder.": "image_encoder.",
        "decoder.": "image_decoder.",
        "prompt_tokens.tokens.": "vpt_",
    }
    tensors = {
        f"text_encoder.{name}": tensor
        for name, tensor in clip.state_dict().items()
        if not name.startswith(("visual.", "logit_scale"))
    }
    for name, tensor in model.state_dict().items():
        if name not in ("text_features", "mean", "std", "bin_values"):
            prefix = next((each for each in renamed if name.startswith(each)), "")
            tensors[renamed.get(prefix, "") + name.removeprefix(prefix)] = tensor
    return tensors


def test_what_is_not_such_a_checkpoint_is_refused():
    with shrunken():
        torch.manual_seed(0)
        model = build_model(ModelConfig(pretrained="none"), PART_A)
        tensors = published(model, random_clip(SHRUNKEN["clip-rn50"]))
        with pytest.raises(BadInputError, match=r"does not know: encoder\.more"):
            official_clip_ebc(tensors | {"image_encoder.more": torch.zeros(1)}, bins=PART_A)
        with pytest.raises(BadInputError, match=r"lacks the tensor projection\.bias"):
            official_clip_ebc(
                {name: each for name, each in tensors.items() if name != "projection.bias"},
                bins=PART_A,
            )
