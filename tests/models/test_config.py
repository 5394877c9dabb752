import dataclasses

import pytest

from crowdcount.core.image import NORMALISATIONS
from crowdcount.errors import ConfigError
from crowdcount.models.backbones import BACKBONES
from crowdcount.models.config import ModelConfig


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("backbone", "clip-rn51"),
        ("backbone", "timm:"),
        ("head", "zap"),
        ("block", 0),
        ("neck_width", 0),
        ("block", 1025),
        ("neck_width", 4097),
        ("neck_norm", "group"),
        ("pretrained", ""),
        ("weights", ""),
        ("bins", ""),
        ("backbone", "open-clip:"),
        ("prompts", "emoji"),
        ("prompt_template", ""),
        ("prompt_template", "How many?"),
        ("prompt_template", "{people} and {people}"),
        ("prompt_template", "{count} of {people}"),
        ("prompt_template", "{people} }"),
        ("prompt_template", "{people!r}"),
        ("tuning", "half"),
        ("frozen_stages", -1),
        ("prompt_tokens", 0),
        ("prompt_tokens", 1025),
        ("position_grid", 0),
        ("position_grid", 257),
        ("position_grid", 16),
        ("prompt_depth", "middle"),
        ("prompt_dropout", 1.0),
        ("prompt_dropout", -0.1),
        ("normalisation", "imagnet"),
        ("window", -8),
        ("window", 4),
        ("window", 444),
        ("window", 8200),
        ("window_stride", 8),
    ],
)
def test_nonsense_is_refused_by_the_name_of_the_setting(setting, value):
    with pytest.raises(ConfigError, match=rf"^model\.{setting}: "):
        ModelConfig(**{setting: value})


def test_a_misspelt_backbone_gets_a_suggestion_and_all_known_names():
    with pytest.raises(ConfigError) as caught:
        ModelConfig(backbone="clip-rn5O")
    message = str(caught.value)
    assert "did you mean 'clip-rn50'?" in message
    assert all(name in message for name in [*BACKBONES, "timm:NAME", "open-clip:ARCH"])


def test_every_statistics_can_be_chosen():
    for name in ("backbone", *NORMALISATIONS):
        assert ModelConfig(normalisation=name).normalisation == name


@pytest.fixture
def windowed(monkeypatch):
    """The name of a backbone that needs windows of 224 pixels."""
    spec = dataclasses.replace(BACKBONES["clip-rn50"], window=224)
    monkeypatch.setitem(BACKBONES, "windowed", spec)
    return "windowed"


@pytest.mark.parametrize(("block", "own"), [(8, 224), (32, 224), (24, 240)])
def test_the_window_is_that_of_the_backbone_in_whole_blocks_unless_another_is_named(
    windowed, block, own
):
    assert ModelConfig(backbone=windowed, block=block).resolved().window == own
    assert ModelConfig(backbone=windowed, block=block, window=480).window == 480
    assert ModelConfig(backbone=windowed, block=block, window=0).window == 0
    assert ModelConfig(block=block).resolved().window is None
    assert ModelConfig(backbone="timm:test_resnet", block=block).resolved().window is None


def test_settings_that_were_settled_stay_as_they_are(windowed):
    config = ModelConfig(backbone=windowed).resolved()
    assert config.window == 224
    assert config.resolved() == config
    assert ModelConfig(**dataclasses.asdict(config)) == config


@pytest.mark.parametrize("stride", [0, -8, 4, 100, 232])
def test_a_stride_that_leaves_gaps_or_cuts_blocks_is_refused(windowed, stride):
    assert ModelConfig(backbone=windowed, window_stride=112).window_stride == 112
    for named in ({}, {"window": 224}):
        with pytest.raises(ConfigError, match=r"^model\.window_stride: expected"):
            ModelConfig(backbone=windowed, window_stride=stride, **named)


def test_a_grid_of_positions_says_how_large_windows_are():
    assert ModelConfig(backbone="clip-vit-b-16", position_grid=16).resolved().window == 256
    assert ModelConfig(backbone="clip-vit-l-14", position_grid=32).resolved().window == 448
    assert ModelConfig(backbone="open-clip:ViT-B-32", position_grid=10).resolved().window == 320
    assert ModelConfig(backbone="clip-vit-b-32", position_grid=16, window=224).window == 224
    for other in ("open-clip:RN50", "siglip-b-16", "timm:test_resnet"):
        with pytest.raises(ConfigError, match=rf"^model\.position_grid: {other} has no position"):
            ModelConfig(backbone=other, position_grid=16)


def test_images_that_are_counted_whole_have_no_stride(windowed):
    with pytest.raises(ConfigError, match=r"^model\.window_stride: 224, but images are counted"):
        ModelConfig(backbone=windowed, window=0, window_stride=224)


def test_the_next_size_that_fits_is_named():
    with pytest.raises(ConfigError, match=r"multiple of model\.block, 16, got 440") as refused:
        ModelConfig(block=16, window=440)
    assert refused.value.next_step == "the next one is 448"
