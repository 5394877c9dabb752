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
        ("prompt_depth", "middle"),
        ("prompt_dropout", 1.0),
        ("prompt_dropout", -0.1),
        ("normalisation", "imagnet"),
    ],
)
def test_nonsense_is_refused_by_the_name_of_the_setting(setting, value):
    with pytest.raises(ConfigError, match=rf"^model\.{setting}: "):
        ModelConfig(**{setting: value})


def test_a_misspelt_backbone_is_told_the_nearest_and_all_known_names():
    with pytest.raises(ConfigError) as caught:
        ModelConfig(backbone="clip-rn5O")
    message = str(caught.value)
    assert "did you mean 'clip-rn50'?" in message
    assert all(name in message for name in [*BACKBONES, "timm:NAME", "open-clip:ARCH"])


def test_every_statistics_can_be_chosen():
    for name in ("backbone", *NORMALISATIONS):
        assert ModelConfig(normalisation=name).normalisation == name
