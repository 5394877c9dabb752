"""The networks of the literature: shapes, weights, and the published outputs of VGG19."""

from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torch.testing import assert_close

from crowdcount.core.bins import Bins
from crowdcount.errors import BadInputError, ConfigError, InputMissingError
from crowdcount.models.backbones import BACKBONES, backbone_spec
from crowdcount.models.build import build_model, empty_model
from crowdcount.models.config import ModelConfig
from crowdcount.models.encoder_decoder import (
    LAYOUTS,
    RESNET_DECODERS,
    Context,
    network_parts,
)

GOLDEN = Path(__file__).parents[1] / "golden"
PART_A = Bins(block=8, starts=(0, 1, 2, 3, 4), values=(0.0, 1.0, 2.0, 3.0, 4.29992))
NAMES = [name for name, spec in BACKBONES.items() if spec.family in LAYOUTS]


def convolutions(module):
    return [each for each in module.modules() if isinstance(each, nn.Conv2d)]


def test_the_whole_table_is_there():
    assert [
        *("vgg11", "vgg11_bn", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn"),
        *("csrnet", "csrnet_bn", "cannet", "cannet_bn"),
        *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    ] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_weights_lie_where_the_library_looks_for_them(name):
    spec = BACKBONES[name]
    known = torchvision.models.get_model_weights(spec.library_name)
    assert spec.source == known[spec.tag].url


@pytest.mark.parametrize("block", [8, 32])
@pytest.mark.parametrize("name", NAMES)
def test_shapes_of_all_without_computing(name, block):
    with torch.device("meta"):
        parts = network_parts(backbone_spec(name), None, offline=True, block=block)
        features = parts.encoder(torch.empty(2, 3, 192, 256))
        assert features.shape[2:] == (192 // parts.stride, 256 // parts.stride)
        decoded = parts.decoder(torch.empty(2, features.shape[1], 192 // block, 256 // block))
    assert decoded.shape == (2, parts.channels, 192 // block, 256 // block)


@pytest.mark.parametrize("name", NAMES)
def test_batch_norm_is_where_the_name_says(name):
    with torch.device("meta"):
        parts = network_parts(backbone_spec(name), None, offline=True, block=8)
    normed = any(isinstance(each, nn.BatchNorm2d) for each in parts.encoder.modules())
    assert normed == (name.endswith("_bn") or name.startswith("resnet"))


@pytest.mark.parametrize(
    ("name", "number"), [("vgg11", 8), ("vgg13_bn", 10), ("vgg16", 13), ("vgg19_bn", 16)]
)
def test_a_vgg_has_all_its_convolutions_and_one_pooling_less(name, number):
    with torch.device("meta"):
        parts = network_parts(backbone_spec(name), None, offline=True, block=8)
    assert len(convolutions(parts.encoder)) == number
    assert sum(isinstance(each, nn.MaxPool2d) for each in parts.encoder) == 4
    assert [each.out_channels for each in convolutions(parts.decoder)] == [256, 128]


@pytest.mark.parametrize("name", ["csrnet", "csrnet_bn", "cannet", "cannet_bn"])
def test_csrnet_and_cannet_have_ten_convolutions_and_six_dilated_ones(name):
    with torch.device("meta"):
        parts = network_parts(backbone_spec(name), None, offline=True, block=8)
    assert len(convolutions(parts.encoder)) == 10
    dilated = [each for each in convolutions(parts.decoder) if each.dilation == (2, 2)]
    assert [each.out_channels for each in dilated] == [512, 512, 512, 256, 128, 64]
    assert isinstance(parts.context, Context) == name.startswith("cannet")


@pytest.mark.parametrize("name", RESNET_DECODERS)
def test_the_last_stage_of_a_resnet_keeps_the_grid_for_small_blocks(name):
    with torch.device("meta"):
        strides = [
            network_parts(backbone_spec(name), None, offline=True, block=block).stride
            for block in (8, 16, 32)
        ]
        widths = RESNET_DECODERS[name]
        decoder = network_parts(backbone_spec(name), None, offline=True, block=8).decoder
    assert strides == [16, 16, 32]
    assert tuple(block.conv1.out_channels for block in decoder) == widths


def fused(context, features):
    """What the last convolution is given: the context of features, and behind it themselves."""
    seen = []
    context.fuse.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        context(features)
    return seen[-1]


def test_features_without_surroundings_have_themselves_as_context():
    """Where all blocks are alike, what is around a block is what its own features say."""
    context = Context(4).eval()
    for scale in context.scales:
        nn.init.dirac_(scale.weight)
    features = torch.rand(1, 4, 1, 1).expand(1, 4, 7, 9)
    assert_close(fused(context, features), torch.cat([features, features], dim=1))


def test_context_tells_a_block_from_its_surroundings():
    context = Context(4).eval()
    features = torch.rand(1, 4, 12, 12)
    elsewhere = features.clone()
    elsewhere[..., -1, -1] += 5.0
    one, other = (fused(context, each)[0, :, 0, 0] for each in (features, elsewhere))
    assert torch.equal(one[4:], other[4:])
    assert not torch.equal(one[:4], other[:4])


def whole_model(name):
    torch.manual_seed(3)
    return torchvision.models.get_model(name)


def from_file(name, path):
    config = ModelConfig(backbone=name, weights=str(path))
    return network_parts(backbone_spec(name), config, offline=True, block=8)


def test_weights_of_a_file_reach_every_convolution_of_a_resnet(tmp_path):
    whole = whole_model("resnet18")
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    own = from_file("resnet18", tmp_path / "w.pth").encoder.state_dict()
    assert own
    for name, tensor in own.items():
        assert torch.equal(tensor, whole.state_dict()[name]), name


@pytest.mark.parametrize("name", ["vgg11_bn", "csrnet"])
def test_weights_of_a_file_reach_every_convolution_of_a_vgg(tmp_path, name):
    """The classifier, which is most of such a file, need not be in it."""
    library_name = backbone_spec(name).library_name
    with torch.device("meta"):
        shapes = torchvision.models.get_model(library_name).features.state_dict()
    tensors = {
        f"features.{key}": torch.full(shape.shape, float(number), dtype=shape.dtype)
        for number, (key, shape) in enumerate(shapes.items())
    }
    torch.save(tensors, tmp_path / "w.pth")
    own = from_file(name, tmp_path / "w.pth").encoder.state_dict()
    for key, tensor in own.items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(tensor, tensors[f"features.{key}"]), key


def test_a_file_of_another_network_is_refused(tmp_path):
    torch.save(whole_model("resnet18").state_dict(), tmp_path / "w.pth")
    with pytest.raises(BadInputError, match=r"not those of torchvision.s resnet34|needs a tensor"):
        from_file("resnet34", tmp_path / "w.pth")


def test_without_network_the_weights_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(InputMissingError, match="torchvision's vgg16") as error:
        build_model(ModelConfig(backbone="csrnet"), PART_A, offline=True)
    assert "vgg16" in error.value.looked_for
    assert "--weights" in error.value.next_step


def test_other_weights_than_torchvision_has_are_refused():
    with pytest.raises(ConfigError, match="torchvision has no weights 'openai' for vgg19"):
        build_model(ModelConfig(backbone="vgg19", pretrained="openai"), PART_A, offline=True)


@pytest.mark.parametrize("settings", [{"tuning": "prompts"}, {"frozen_stages": 1}])
def test_what_only_clip_offers_is_refused(settings):
    with pytest.raises(ConfigError, match="CLIP"):
        empty_model(ModelConfig(backbone="resnet18", **settings), PART_A)


def test_a_frozen_encoder_keeps_its_weights_and_statistics():
    model = empty_model(ModelConfig(backbone="resnet18", tuning="frozen"), PART_A).train()
    trained = {name for name, each in model.named_parameters() if each.requires_grad}
    assert trained == {
        name for name, _ in model.named_parameters() if not name.startswith("encoder.")
    }
    before = {name: each.clone() for name, each in model.encoder.named_buffers()}
    model(torch.rand(2, 3, 64, 64))
    for name, each in model.encoder.named_buffers():
        assert torch.equal(each, before[name]), name
