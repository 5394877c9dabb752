import pytest
import timm
import torch
from torch.testing import assert_close

from crowdcount.errors import BadInputError, ConfigError
from crowdcount.models.backbones import backbone_spec
from crowdcount.models.config import ModelConfig
from crowdcount.models.timm_encoders import bare_timm_encoder, timm_encoder

# Each wraps its model in another way: kept names, dots turned into underscores, put under `model`.
WRAPPED = ["test_resnet", "test_efficientnet", "test_convnext", "test_vit", "test_mambaout"]


def from_file(name, path):
    config = ModelConfig(backbone=f"timm:{name}", weights=str(path))
    return timm_encoder(backbone_spec(config.backbone), config, offline=True)


def renamed(tensors):
    return {
        f"_{number}.{name.rpartition('.')[2]}": tensor
        for number, (name, tensor) in enumerate(tensors.items())
    }


@pytest.mark.parametrize("name", WRAPPED)
@pytest.mark.parametrize("names", [dict, renamed], ids=["own names", "other names"])
def test_weights_of_a_file_reach_every_stage(tmp_path, name, names):
    whole = timm.create_model(name).eval()
    torch.save(names(whole.state_dict()), tmp_path / "weights.pth")
    encoder = from_file(name, tmp_path / "weights.pth").eval()
    images = torch.rand(1, 3, 160, 160)
    expected = whole.forward_intermediates(images, intermediates_only=True)
    stages = encoder(images)
    for stage, features in zip(stages, expected[-len(stages) :], strict=True):
        same = stage.permute(0, 3, 1, 2) if stage.shape != features.shape else stage
        assert_close(same, features)


def test_a_file_for_another_number_of_classes_is_taken(tmp_path):
    tensors = timm.create_model("test_resnet", num_classes=7).state_dict()
    torch.save(tensors, tmp_path / "fine.pth")
    torch.save({k: v for k, v in tensors.items() if not k.startswith("fc.")}, tmp_path / "none.pth")
    for name in ("fine.pth", "none.pth"):
        encoder = from_file("test_resnet", tmp_path / name)
        assert_close(encoder.state_dict()["conv1.0.weight"], tensors["conv1.0.weight"])


def test_a_file_of_another_model_is_refused(tmp_path):
    torch.save(timm.create_model("test_efficientnet").state_dict(), tmp_path / "other.pth")
    with pytest.raises(BadInputError, match="not those of timm's test_resnet"):
        from_file("test_resnet", tmp_path / "other.pth")


def test_a_model_of_one_fixed_size_is_refused():
    with pytest.raises(ConfigError, match="no feature stages for images of any size"):
        bare_timm_encoder(backbone_spec("timm:test_maxvit"))


def test_a_transformer_for_one_size_takes_others_where_timm_can():
    encoder = bare_timm_encoder(backbone_spec("timm:deit_tiny_patch16_224"))
    assert encoder(torch.rand(1, 3, 32, 80))[-1].shape == (1, 192, 2, 5)
    assert encoder.training
