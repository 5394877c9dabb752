"""The decoder beside the published one, and a projection that starts as CLIP's own."""

import copy
import functools

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from crowdcount.core.bins import Bins
from crowdcount.core.image import WorkingSize
from crowdcount.errors import ConfigError
from crowdcount.models.build import build_model, empty_model
from crowdcount.models.checkpoints.card import Card
from crowdcount.models.checkpoints.format import load_checkpoint, save_checkpoint
from crowdcount.models.clip_image import level_features, own_projection, random_clip
from crowdcount.models.config import ModelConfig
from tests.models.small_backbones import SHRUNKEN, SLIM, shrunken, without_norms

CARD = Card(name="toy", working_size=WorkingSize(short_side_min=64, long_side_max=512))
FIVE = Bins(block=8, starts=(0, 1, 2, 3, 4), values=(0.0, 1.0, 2.0, 3.0, 4.3))


def fresh(backbone, **settings):
    torch.manual_seed(0)
    return build_model(ModelConfig(backbone=backbone, pretrained="none", **settings), FIVE)


@functools.cache
def multiply_adds(backbone, decoder):
    """Of all but the encoder, in billions, for an image of 448 x 448 pixels; at its real size."""
    with torch.device("meta"):
        config = ModelConfig(backbone=backbone, decoder=decoder, tuning="full")
        model = without_norms(empty_model(config, FIVE).eval())
        model.requires_grad_(requires_grad=False)
        images = torch.empty(1, 3, 448, 448)
        flops = []
        for network in (model.block_logits, model.encoder):
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                network(images)
            flops.append(counter.get_total_flops())
    return (flops[0] - flops[1]) / 2e9


@pytest.mark.parametrize("backbone", SLIM)
def test_it_takes_less_than_a_tenth_of_the_arithmetic(backbone):
    assert 0 < multiply_adds(backbone, "slim") < multiply_adds(backbone, "paper") / 10


@pytest.mark.parametrize(
    ("backbone", "paper", "slim"), [("clip-rn50", 141, 2), ("clip-vit-b-16", 35, 2)]
)
def test_the_arithmetic_is_what_the_documentation_says(backbone, paper, slim):
    assert round(multiply_adds(backbone, "paper")) == paper
    assert round(multiply_adds(backbone, "slim")) == slim


@pytest.mark.parametrize(
    ("backbone", "levels"), [("clip-rn50", 3), ("clip-vit-b-16", 3), ("clip-vit-l-14", 2)]
)
def test_early_features_have_a_say_of_their_own(backbone, levels):
    with shrunken():
        model = fresh(backbone, decoder="slim", tuning="full").eval()
    images = torch.rand(1, 3, 112, 112)
    used = [stage.clone() for stage in level_features(model.encoder, images)]
    assert len(model.decoder.lateral) == levels
    last_alone = [torch.zeros_like(stage) for stage in used[:-1]] + [used[-1]]
    with torch.no_grad():
        all_of_them = model.decoder(used, height=112, width=112)
        late = model.decoder(last_alone, height=112, width=112)
    assert all_of_them.shape[-2:] == (14, 14)
    assert not torch.allclose(all_of_them, late, atol=1e-3)


def test_levels_of_a_transformer_follow_its_blocks():
    torch.manual_seed(0)
    with shrunken():
        network = fresh("clip-vit-b-16", tuning="full").eval().encoder
    network.blocks.extend(copy.deepcopy(list(network.blocks)) * 2)
    images = torch.rand(1, 3, 32, 48)
    with torch.no_grad():
        levels = level_features(network, images)
        assert torch.equal(levels[-1], network(images))
        network.ln_post = torch.nn.Identity()
        for level, blocks in zip(levels[:-1], (2, 3, 5), strict=True):
            shorter = copy.deepcopy(network)
            shorter.blocks = shorter.blocks[:blocks]
            assert torch.equal(level, shorter(images))


@pytest.mark.parametrize("backbone", ["clip-rn50", "clip-vit-b-16"])
@pytest.mark.parametrize("head", ["ebc", "zip"])
def test_an_untrained_model_takes_blocks_for_empty(backbone, head):
    images = torch.rand(2, 3, 64, 64)
    heads = {}
    with shrunken(), torch.no_grad():
        for decoder in ("paper", "slim"):
            heads[decoder] = fresh(backbone, decoder=decoder, head=head)(images).counts.mean()
    assert heads["slim"] < heads["paper"] / 2


def test_the_norm_of_the_neck_is_its_norm():
    with shrunken():
        decoder = fresh("clip-rn50", decoder="slim", neck_norm="layer").decoder
    assert not any(isinstance(each, nn.BatchNorm2d) for each in decoder.modules())


@pytest.mark.parametrize(
    ("backbone", "settings", "frozen"),
    [
        ("clip-vit-b-16", {}, ("encoder",)),
        ("clip-vit-b-16", {"tuning": "frozen"}, ("encoder",)),
        ("clip-vit-b-16", {"tuning": "full", "frozen_stages": 1}, ("encoder.blocks.0",)),
        ("clip-rn50", {"tuning": "frozen"}, ("encoder",)),
        ("clip-rn50", {"frozen_stages": 2}, ("encoder.conv1", "encoder.layer1")),
    ],
)
def test_what_is_frozen_stays_so_and_the_decoder_learns(backbone, settings, frozen):
    with shrunken():
        model = fresh(backbone, decoder="slim", **settings).train()
        model(torch.rand(2, 3, 64, 64)).logits.square().sum().backward()
    names = {name for name, each in model.named_parameters() if each.requires_grad}
    assert not any(name.startswith(tuple(f"{each}." for each in frozen)) for name in names)
    parts = {"decoder", "projection", "logit_scale"}
    parts |= {"prompt_tokens"} if model.prompt_tokens is not None else set()
    parts |= set() if frozen == ("encoder",) else {"encoder"}
    assert {name.partition(".")[0] for name in names} == parts
    for name, parameter in model.decoder.named_parameters():
        assert parameter.grad.any(), name


def test_other_networks_are_refused():
    with shrunken():
        with pytest.raises(ConfigError, match="slim takes CLIP's ResNets and vision transformers"):
            fresh("mobileclip-s1", decoder="slim")
        with pytest.raises(ConfigError, match="zip is for timm's backbones, not for clip-rn50"):
            fresh("clip-rn50", decoder="zip")
        with pytest.raises(ConfigError, match="slim is for CLIP's backbones, not for vgg11"):
            fresh("vgg11", decoder="slim")
        with pytest.raises(ConfigError, match="clip is for CLIP's backbones, not for timm"):
            fresh("timm:test_resnet", projection_init="clip")
    with pytest.raises(ConfigError, match="got 'fat'"):
        ModelConfig(decoder="fat")


@pytest.mark.parametrize("backbone", ["clip-rn50", "clip-vit-b-16", "clip-vit-l-14"])
def test_the_projection_starts_as_that_of_clip(backbone, tmp_path):
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
    with shrunken():
        save_checkpoint(tmp_path / "started", model, card=CARD)
        again = load_checkpoint(tmp_path / "started").model
    assert torch.equal(again.projection.weight, model.projection.weight)


@pytest.mark.parametrize(
    ("backbone", "settings"), [("clip-rn101", {}), ("clip-rn50", {"decoder": "slim"})]
)
def test_a_projection_of_another_width_is_refused(backbone, settings):
    with shrunken(), pytest.raises(ConfigError, match=r"projects \d+ channels and its decoder"):
        fresh(backbone, projection_init="clip", **settings)


@pytest.mark.parametrize("backbone", ["clip-convnext-base-w", "mobileclip-s1", "siglip-b-16"])
def test_a_projection_that_is_not_known_is_refused(backbone):
    with shrunken(), pytest.raises(ConfigError, match=f"{backbone} has no projection of its own"):
        fresh(backbone, projection_init="clip")
