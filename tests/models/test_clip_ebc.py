import logging
import math
import sys

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from crowdcount.core.bins import Bins
from crowdcount.core.published_bins import PUBLISHED_BINS
from crowdcount.core.types import block_target
from crowdcount.errors import ConfigError
from crowdcount.losses.dace import DaceConfig, dace_loss
from crowdcount.models.build import build_model, empty_model
from crowdcount.models.clip_ebc import BasicBlock, Bottleneck
from crowdcount.models.clip_image import bare_clip_encoder, random_clip
from crowdcount.models.clip_text import text_features, tokenise
from crowdcount.models.config import ModelConfig
from tests.models.small_backbones import CLIP, SHRUNKEN, TRANSFORMERS, shrunken

BINS = Bins(block=8, starts=(0, 1, 2), values=(0.0, 1.0, 2.2))
SPEC = SHRUNKEN["clip-rn50"]


@pytest.fixture(scope="module", autouse=True)
def _small():
    with shrunken():
        yield


@pytest.fixture(scope="module")
def empty():
    return empty_model(ModelConfig(pretrained="none"), BINS).eval()


@pytest.mark.parametrize("backbone", [name for name in CLIP if name != "siglip-b-16"])
def test_weights_of_a_file_reach_image_encoder_and_sentences(backbone, tmp_path, monkeypatch):
    monkeypatch.setattr(logging.root, "handlers", [])
    torch.manual_seed(3)
    spec = SHRUNKEN[backbone]
    clip = random_clip(spec)
    wrapped = {f"module.{name}": tensor.half() for name, tensor in clip.state_dict().items()}
    torch.save({"state_dict": wrapped}, tmp_path / "clip.pt")
    clip.load_state_dict({name.removeprefix("module."): t for name, t in wrapped.items()})
    settings = ModelConfig(backbone=backbone, weights=str(tmp_path / "clip.pt"))
    model = build_model(settings, BINS, offline=True)

    visual = {n.replace("trunk.", ""): t for n, t in clip.visual.state_dict().items()}
    own = {
        name.replace("blocks.", "transformer.resblocks.")
        if backbone in TRANSFORMERS
        else name: tensor
        for name, tensor in model.encoder.state_dict().items()
    }
    left = {name.partition(".")[0] for name in visual.keys() - own.keys()}
    assert left <= {"attnpool", "proj", "head"}
    assert own.keys() <= visual.keys()
    assert all(torch.equal(tensor, visual[name]) for name, tensor in own.items())
    tokens = tokenise(spec, model.prompts, offline=True)
    assert_close(model.text_features, text_features(clip, tokens))
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
    sentences = torch.rand_like(empty.text_features)
    images = torch.rand(1, 3, 32, 32)
    empty.text_features.copy_(sentences)
    logits = empty(images).logits
    assert logits.abs().max() <= 1 / 0.07
    empty.text_features.copy_(sentences * torch.tensor([[0.1], [1.0], [50.0]]))
    assert_close(empty(images).logits, logits)
    with torch.no_grad():
        empty.logit_scale += math.log(2)
    assert_close(empty(images).logits, 2 * logits)


def test_the_sentences_do_not_learn(empty):
    assert "text_features" not in dict(empty.named_parameters())


@pytest.mark.parametrize("backbone", CLIP)
@pytest.mark.parametrize("head", ["ebc", "zip"])
def test_without_trained_weights_sentences_stand_at_right_angles(backbone, head):
    config = ModelConfig(backbone=backbone, pretrained="none", head=head)
    model = build_model(config, BINS)
    sentences = model.text_features
    if head == "zip":
        sentences = torch.cat([model.occupancy_features, sentences])
    assert len(sentences) == len(model.prompts)
    assert_close(sentences @ sentences.T, torch.eye(len(sentences)))


def test_a_template_makes_other_sentences_and_other_features():
    def build(**settings):
        torch.manual_seed(0)
        return build_model(ModelConfig(pretrained="none", **settings), BINS)

    usual, own = build(), build(prompt_template="A photo of {people}.")
    assert own.prompts == (
        "A photo of no person.",
        "A photo of one person.",
        "A photo of more than two people.",
    )
    assert (usual.text_features - own.text_features).abs().max() > 1e-3


@pytest.mark.parametrize("backbone", ["clip-rn50", "siglip-b-16"])
def test_a_template_behind_whose_end_the_people_stand_is_refused(backbone):
    long = "well, " * 60 + "{people}."
    config = ModelConfig(backbone=backbone, pretrained="none", prompt_template=long)
    with pytest.raises(ConfigError, match=r"model\.prompt_template: so long"):
        build_model(config, BINS)


def test_trained_siglip_says_which_package_reads_its_sentences(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"transformers, which is not installed"):
        tokenise(SHRUNKEN["siglip-b-16"], ["one", "two"], offline=True)


@pytest.mark.parametrize(("block", "stride"), [(8, 16), (16, 16), (32, 32)])
def test_the_last_stage_keeps_the_grid_for_small_blocks(block, stride):
    encoder = bare_clip_encoder(SPEC, block=block)
    assert (encoder.stride, encoder.channels, encoder.embedding) == (stride, 128, 64)
    features = encoder.network.eval()(torch.rand(1, 3, 64, 96))
    assert features.shape == (1, 128, 64 // stride, 96 // stride)


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


@pytest.mark.parametrize(("block", "last"), [(Bottleneck, "bn3"), (BasicBlock, "bn2")])
def test_a_residual_block_changes_width_only_through_its_shortcut(block, last):
    same, narrower = block(8, 8), block(8, 4)
    assert isinstance(same.downsample, nn.Identity)
    assert isinstance(narrower.downsample, nn.Sequential)
    features = torch.rand(2, 8, 3, 5)
    assert narrower(features).shape == (2, 4, 3, 5)
    with torch.no_grad():
        getattr(same, last).weight.zero_()
    assert_close(same(features), features)  # what is left is the shortcut, and features >= 0
