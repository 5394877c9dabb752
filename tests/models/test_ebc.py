import pytest
import torch
from torch import nn
from torch.testing import assert_close

from crowdcount.core.bins import Bins
from crowdcount.core.image import NORMALISATIONS
from crowdcount.errors import ConfigError
from crowdcount.models.build import build_model
from crowdcount.models.config import ModelConfig
from crowdcount.models.ebc import classification_head

BINS = Bins(block=8, starts=(0, 1, 2, 3, 4), values=(0.0, 1.0, 2.0, 3.0, 4.29992))


def model(bins=BINS, **settings):
    config = ModelConfig(
        backbone="timm:test_resnet", pretrained="none", block=bins.block, **settings
    )
    return build_model(config, bins)


@pytest.mark.parametrize("block", [8, 16, 32])
def test_an_untrained_model_expects_a_plausible_crowd(block):
    most = (block // 4) ** 2
    starts = tuple(range(most + 1))
    bins = Bins(block=block, starts=starts, values=tuple(map(float, starts)))
    count = model(bins)(torch.rand(1, 3, 448, 448)).counts.sum().item()
    assert 100 < count < 400  # 448 x 448 pixels of part A hold about 200 heads


def test_bins_of_another_block_are_refused():
    with pytest.raises(ConfigError, match=r"model\.block: 16, but the bins .* blocks of 8"):
        build_model(ModelConfig(backbone="timm:test_resnet", pretrained="none", block=16), BINS)


def test_statistics_are_the_backbones_unless_chosen():
    assert model().normalisation == NORMALISATIONS["half"]
    assert model(normalisation="imagenet").normalisation == NORMALISATIONS["imagenet"]


def test_images_are_normalised_once():
    counter = model(normalisation="imagenet").eval()
    images = torch.rand(1, 3, 32, 32)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    assert_close(counter(images).logits, counter.from_normalised((images - mean) / std).logits)


def test_the_neck_has_the_width_that_is_asked_for():
    assert model(neck_width=48).head[-1].in_channels == 48


@pytest.mark.parametrize(("norm", "same"), [("layer", True), ("batch", False)])
def test_a_neck_of_layer_norms_counts_as_it_was_trained_to(norm, same):
    counter = model(neck_width=8, neck_norm=norm, frozen_statistics=True)
    images = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        trained, counted = counter.train()(images).logits, counter.eval()(images).logits
        assert torch.allclose(trained, counted, atol=1e-5) is same
        assert torch.allclose(counter.train()(images[:1]).logits, trained[:1], atol=1e-5) is same


def test_a_neck_of_layer_norms_has_no_statistics_to_keep_still():
    with pytest.raises(ConfigError, match=r"model\.frozen_head_statistics: .* no batch norm"):
        model(neck_norm="layer", frozen_head_statistics=True)


def test_a_norm_of_the_neck_is_refused_where_there_is_none():
    config = ModelConfig(backbone="vgg11", pretrained="none", neck_norm="layer")
    with pytest.raises(ConfigError, match=r"model\.neck_norm: layer, and vgg11 has no neck"):
        build_model(config, BINS)


def test_wide_features_are_reduced_to_512_first():
    narrow, wide = classification_head(512, BINS), classification_head(513, BINS)
    assert [type(layer) for layer in narrow] == [nn.Conv2d]
    assert [type(layer) for layer in wide] == [nn.Conv2d, nn.ReLU, nn.Conv2d]
    assert wide[-1].in_channels == 512


def test_the_seed_decides_the_weights():
    def fresh(seed):
        torch.manual_seed(seed)
        return model().state_dict()

    one, same, other = fresh(1), fresh(1), fresh(2)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_the_small_one_is_small():
    config = ModelConfig(backbone="timm:tf_efficientnet_lite0", pretrained="none")
    parameters = sum(p.numel() for p in build_model(config, BINS).parameters())
    assert 3.0e6 < parameters < 3.5e6


@pytest.mark.parametrize("block", [8, 16, 32])
def test_the_decoder_of_zip_gives_a_map_of_blocks(block):
    config = ModelConfig(
        backbone="timm:mobilenetv4_conv_small_050", pretrained="none", decoder="zip", block=block
    )
    bins = Bins(block=block, starts=(0, 1, 2), values=(0.0, 1.0, 2.5))
    model = build_model(config, bins)
    prediction = model(torch.rand(2, 3, 70, 100))
    assert prediction.counts.shape == (2, 1, -(-70 // block), -(-100 // block))
    prediction.counts.sum().backward()
    assert all(parameter.grad is not None for parameter in model.neck.parameters())


def test_the_decoder_of_zip_refuses_blocks_that_its_stride_does_not_double_to():
    config = ModelConfig(
        backbone="timm:mobilenetv4_conv_small_050", pretrained="none", decoder="zip", block=12
    )
    with pytest.raises(ConfigError, match="needs blocks of 8, 16 or 32 pixels, got 12"):
        build_model(config, Bins(block=12, starts=(0, 1), values=(0.0, 1.5)))
