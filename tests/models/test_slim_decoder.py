"""The decoder beside the published one, and a projection that starts as CLIP's own."""

import pytest
import torch
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from crowdcount.core.bins import Bins
from crowdcount.errors import ConfigError
from crowdcount.models.build import build_model, empty_model
from crowdcount.models.checkpoint import load_checkpoint, save_checkpoint
from crowdcount.models.clip_encoders import own_projection, random_clip
from crowdcount.models.config import ModelConfig
from crowdcount.models.neck import Neck
from tests.models.shrunken import OPENAI, SHRUNKEN, TRANSFORMERS, shrunken

FIVE = Bins(block=8, starts=(0, 1, 2, 3, 4), values=(0.0, 1.0, 2.0, 3.0, 4.3))
RESNETS = [name for name in OPENAI if name not in TRANSFORMERS]


def fresh(backbone, **settings):
    torch.manual_seed(0)
    return build_model(ModelConfig(backbone=backbone, pretrained="none", **settings), FIVE)


def multiply_adds(decoder):
    """Of all but the encoder, in billions, for an image of 448 x 448 pixels; at its real size."""
    with torch.device("meta"):
        model = empty_model(ModelConfig(backbone="clip-rn50", decoder=decoder), FIVE).eval()
        model.requires_grad_(requires_grad=False)
        images = torch.empty(1, 3, 448, 448)
        flops = []
        for network in (model.block_logits, model.encoder):
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                network(images)
            flops.append(counter.get_total_flops())
    return (flops[0] - flops[1]) / 2e9


def test_it_takes_less_than_a_tenth_of_the_arithmetic():
    paper, slim = multiply_adds("paper"), multiply_adds("slim")
    assert paper > 140
    assert slim < paper / 10
    assert round(slim) == 2
    assert round(paper) == 151


@pytest.mark.parametrize("backbone", RESNETS)
@pytest.mark.parametrize("block", [8, 16, 32])
def test_all_resnets_count_with_it(backbone, block, tmp_path):
    torch.manual_seed(0)
    bins = Bins(block=block, starts=FIVE.starts, values=FIVE.values)
    with shrunken():
        config = ModelConfig(backbone=backbone, pretrained="none", decoder="slim", block=block)
        model = build_model(config, bins).eval()
        assert isinstance(model.decoder, Neck)
        images = torch.rand(1, 3, 70, 50)
        with torch.no_grad():
            prediction = model(images)
        assert prediction.logits.shape == (1, 5, -(-70 // block), -(-50 // block))
        save_checkpoint(tmp_path / "slim", model, card={})
        with torch.no_grad():
            again = load_checkpoint(tmp_path / "slim").model(images)
    assert torch.equal(prediction.logits, again.logits)


def test_every_stage_has_a_say():
    with shrunken():
        model = fresh("clip-rn50", decoder="slim").train()
        model(torch.rand(2, 3, 64, 64)).logits.square().sum().backward()
    for stage in ("layer1", "layer2", "layer4"):
        gradients = [each.grad for each in getattr(model.encoder, stage).parameters()]
        assert any(each is not None and each.any() for each in gradients), stage
    assert all(each.grad.isfinite().all() for each in model.decoder.parameters())


def test_other_networks_are_refused():
    with shrunken():
        with pytest.raises(ConfigError, match="slim takes the stages of CLIP's ResNets"):
            fresh("clip-vit-b-16", decoder="slim")
        with pytest.raises(ConfigError, match="slim is for CLIP's backbones, not for vgg11"):
            fresh("vgg11", decoder="slim")
        with pytest.raises(ConfigError, match="clip is for CLIP's backbones, not for timm"):
            fresh("timm:test_resnet", projection_init="clip")
    with pytest.raises(ConfigError, match="unknown 'fat'"):
        ModelConfig(decoder="fat")


@pytest.mark.parametrize("backbone", ["clip-rn50", "clip-vit-b-16", "clip-vit-l-14"])
def test_the_projection_starts_as_that_of_clip(backbone):
    with shrunken():
        torch.manual_seed(0)
        clip = random_clip(SHRUNKEN[backbone]).visual
        own = own_projection(clip)
        model = fresh(backbone, projection_init="clip")
        other = fresh(backbone)
        if backbone == "clip-rn50":
            features = torch.rand(7, clip.attnpool.v_proj.in_features)
            pool = clip.attnpool
            expected = pool.c_proj(pool.v_proj(features))
        else:
            features = torch.rand(7, clip.proj.shape[0])
            expected = features @ clip.proj
    assert_close(features @ own.weight.T + own.bias, expected)
    assert model.projection.weight.shape == (*own.weight.shape, 1, 1)
    assert_close(
        model.projection.weight[:, :, 0, 0], own.weight, msg="the same seed, the same CLIP"
    )
    assert not torch.equal(model.projection.weight, other.projection.weight)


@pytest.mark.parametrize(
    ("backbone", "settings"), [("clip-rn101", {}), ("clip-rn50", {"decoder": "slim"})]
)
def test_a_projection_of_another_width_is_refused(backbone, settings):
    with shrunken(), pytest.raises(ConfigError, match=r"projects \d+ channels and its decoder"):
        fresh(backbone, projection_init="clip", **settings)
