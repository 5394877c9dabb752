import logging
import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from crowdcount.core.bins import Bins
from crowdcount.core.blocks import block_target
from crowdcount.core.published_bins import PUBLISHED_BINS
from crowdcount.losses.dace import DaceConfig, dace_loss
from crowdcount.models.backbones import backbone_spec
from crowdcount.models.build import build_model, empty_model
from crowdcount.models.clip_ebc import Bottleneck
from crowdcount.models.clip_encoders import bare_clip_encoder, random_clip, text_features
from crowdcount.models.config import ModelConfig

BINS = Bins(block=8, starts=(0, 1, 2), values=(0.0, 1.0, 2.2))
SPEC = backbone_spec("clip-rn50")


@pytest.fixture(scope="module")
def empty():
    return empty_model(ModelConfig(pretrained="none"), BINS).eval()


def test_weights_of_a_file_reach_image_encoder_and_sentences(tmp_path, monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])
    torch.manual_seed(3)
    clip = random_clip(SPEC)
    wrapped = {f"module.{name}": tensor.half() for name, tensor in clip.state_dict().items()}
    torch.save({"state_dict": wrapped}, tmp_path / "clip.pt")
    clip.load_state_dict({name.removeprefix("module."): t for name, t in wrapped.items()})
    model = build_model(ModelConfig(weights=str(tmp_path / "clip.pt")), BINS, offline=True)

    own = model.encoder.state_dict()
    for name, tensor in clip.visual.state_dict().items():
        if not name.startswith("attnpool."):
            assert torch.equal(own.pop(name), tensor), name
    assert not own
    assert_close(model.text_features, text_features(clip, SPEC, model.prompts))
    assert model.training
    # open_clip logs in a way that would set up the root logger of the whole process.
    assert logging.root.handlers == []


def test_no_tensor_belongs_to_a_text_encoder_or_pooling(empty):
    parts = {name.split(".")[0] for name in empty.state_dict()}
    assert parts == {
        *("encoder", "decoder", "projection", "logit_scale", "text_features"),
        *("mean", "std", "bin_values"),
    }
    assert not any("attnpool" in name for name in empty.state_dict())


def test_logits_are_scaled_cosines(empty):
    sentences = torch.rand(3, 1024)
    images = torch.rand(1, 3, 32, 32)
    empty.text_features.copy_(sentences)
    logits = empty(images).logits
    assert logits.abs().max() <= 1 / 0.07
    empty.text_features.copy_(sentences * torch.tensor([[0.1], [1.0], [50.0]]))
    assert_close(empty(images).logits, logits)
    with torch.no_grad():
        empty.logit_scale += math.log(2)
    assert_close(empty(images).logits, 2 * logits)


def test_everything_but_the_sentences_learns(empty):
    assert all(parameter.requires_grad for parameter in empty.parameters())
    assert "text_features" not in dict(empty.named_parameters())


@pytest.mark.parametrize(("block", "stride"), [(8, 16), (16, 16), (32, 32)])
def test_the_last_stage_keeps_the_grid_for_small_blocks(block, stride):
    encoder = bare_clip_encoder(SPEC, block=block)
    assert (encoder.stride, encoder.channels, encoder.embedding) == (stride, 2048, 1024)
    features = encoder.network.eval()(torch.rand(1, 3, 64, 96))
    assert features.shape == (1, 2048, 64 // stride, 96 // stride)


def test_bins_of_several_counts_go_through_clip_and_learn():
    # The published code fails on such bins before the first image.
    table = PUBLISHED_BINS["qnrf-r16-t8-dynamic"]
    bins = Bins(block=16, starts=table.starts, values=table.values)
    model = build_model(ModelConfig(pretrained="none", block=16), bins)
    assert model.prompts[4] == "There are between four and five people."
    points = torch.tensor([[20.0, 20.0]] * 5)
    target = block_target((points,), height=64, width=64, block=16)
    prediction = model(torch.rand(1, 3, 64, 64))
    terms = dace_loss(prediction, target, bins, DaceConfig())
    terms.total.backward()
    assert prediction.logits.shape == (1, 7, 4, 4)
    assert bins.classify(target.counts)[0, 0, 1, 1] == 4
    assert torch.isfinite(terms.total)
    assert model.projection.weight.grad.abs().sum() > 0


def test_a_bottleneck_changes_width_only_through_its_shortcut():
    same, narrower = Bottleneck(8, 8), Bottleneck(8, 4)
    assert isinstance(same.downsample, nn.Identity)
    assert isinstance(narrower.downsample, nn.Sequential)
    features = torch.rand(2, 8, 3, 5)
    assert narrower(features).shape == (2, 4, 3, 5)
    with torch.no_grad():
        same.bn3.weight.zero_()
    assert_close(same(features), features)  # what is left is the shortcut, and features >= 0
