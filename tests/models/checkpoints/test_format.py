import copy
import dataclasses
import json
import os

import pytest
import torch
from safetensors.torch import load_file, save_file

from crowdcount.core.bins import Bins
from crowdcount.core.image import WorkingSize
from crowdcount.core.metrics import CountMetrics
from crowdcount.errors import BadInputError, InputMissingError
from crowdcount.models.build import build_model
from crowdcount.models.checkpoints.card import Card
from crowdcount.models.checkpoints.format import describe, load_checkpoint, save_checkpoint
from crowdcount.models.checkpoints.names import starter_folder, starter_ships
from crowdcount.models.config import ModelConfig

CARD = Card(name="toy", working_size=WorkingSize(short_side_min=64, long_side_max=512))
BINS = Bins(block=8, starts=(0, 1, 2), values=(0.0, 1.0, 2.2))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(ModelConfig(backbone="timm:test_resnet", pretrained="none"), BINS)


@pytest.fixture
def folder(tmp_path, model):
    save_checkpoint(tmp_path / "best", model, card=CARD)
    return tmp_path / "best"


def edit(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def test_the_folder_describes_the_model(folder, model):
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    config = json.loads((folder / "config.json").read_text())
    assert config["bins"] == BINS.to_json()
    assert config["model"]["backbone"] == "timm:test_resnet"
    assert config["normalisation"] == {"mean": [0.5] * 3, "std": [0.5] * 3}
    assert config["prompts"] is None
    assert config["card"] == CARD.to_json()


def test_an_earlier_checkpoint_is_replaced_and_a_failed_one_changes_nothing(folder, model):
    other = dataclasses.replace(CARD, name="other")
    save_checkpoint(folder, model, card=other)
    broken = CountMetrics(mae=float("nan"), rmse=1.0, nae=None, images=1)
    with pytest.raises(ValueError, match="JSON"):
        save_checkpoint(folder, model, card=dataclasses.replace(CARD, metrics={"val": broken}))
    assert load_checkpoint(folder).card == other
    assert [path.name for path in folder.parent.iterdir()] == ["best"]


def test_weights_and_tags_of_the_training_machine_are_not_needed(folder):
    settings = json.loads((folder / "config.json").read_text())["model"]
    edit(folder, model=settings | {"weights": "/gone/w.pth", "pretrained": "a_tag_of_long_ago"})
    assert load_checkpoint(folder).model.config.weights == "/gone/w.pth"


def test_channels_last_and_training_mode_can_be_saved(tmp_path, model):
    model.train().to(memory_format=torch.channels_last)
    save_checkpoint(tmp_path / "last", model, card=CARD)
    loaded = load_checkpoint(tmp_path / "last").model.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.state_dict().items())


@pytest.fixture
def trained(model):
    """One with weights as large as trained ones, and statistics beyond float16."""
    model = copy.deepcopy(model)
    torch.manual_seed(1)
    for parameter in model.parameters():
        parameter.data = torch.randn_like(parameter) * 0.05
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.fill_(1e6)
        elif name.endswith("running_mean"):
            buffer.fill_(1e-9)
    return model


def test_half_stores_weights_alone_in_half_the_bytes(tmp_path, trained):
    save_checkpoint(tmp_path / "whole", trained, card=CARD)
    save_checkpoint(tmp_path / "half", trained, card=CARD, half=True)
    stored = load_file(tmp_path / "half" / "model.safetensors")
    weights = dict(trained.named_parameters())
    for name, tensor in stored.items():
        halved = name in weights and weights[name].ndim > 1
        assert (tensor.dtype == torch.float16) == halved, name
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("half", "whole")]
    assert sizes[0] < 0.6 * sizes[1]


def test_half_comes_back_as_float32_and_counts_the_same(tmp_path, trained):
    save_checkpoint(tmp_path / "half", trained, card=CARD, half=True)
    loaded = load_checkpoint(tmp_path / "half").model
    assert {tensor.dtype for tensor in loaded.parameters()} == {torch.float32}
    for name, buffer in trained.named_buffers():  # the counts of the bins are among them
        assert torch.equal(loaded.get_buffer(name), buffer), name
    images = torch.rand(2, 3, 64, 96)
    with torch.no_grad():
        counts, expected = loaded(images).counts, trained.eval()(images).counts
    assert not torch.equal(counts, expected)
    torch.testing.assert_close(counts, expected, rtol=1e-3, atol=1e-3)


def test_a_weight_that_float16_cannot_hold_stays_as_it_is(tmp_path, trained):
    name, largest = next((n, p) for n, p in trained.named_parameters() if p.ndim > 1)
    largest.data[0, 0] = 1e5
    save_checkpoint(tmp_path / "half", trained, card=CARD, half=True)
    assert torch.equal(load_checkpoint(tmp_path / "half").model.get_parameter(name), largest)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_are_for_whom_the_umask_lets_read_them(tmp_path, model, umask, mode):
    before = os.umask(umask)
    try:
        save_checkpoint(tmp_path / "best", model, card=CARD)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "best").iterdir()} == {mode}


@pytest.mark.skipif(not starter_ships(), reason="this version ships no starter")
def test_every_value_of_a_description_is_read_and_written_again():
    config = json.loads((starter_folder() / "config.json").read_text())
    again = json.loads(json.dumps(describe(starter_folder()).to_json()))
    assert again.pop("model").items() >= config.pop("model").items()
    assert again == config


def test_a_missing_part_is_missing_input(folder, tmp_path):
    with pytest.raises(InputMissingError, match="not a checkpoint"):
        load_checkpoint(tmp_path / "nowhere")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputMissingError, match="not a checkpoint"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format 2"),
        ({"format": None}, "not the description of a checkpoint"),
        ({"bins": {"block": 8}}, "does not describe a model"),
        ({"bins": None}, "does not describe a model"),
        ({"card": None}, "does not describe a model"),
        ({"crowdcount": None}, "does not describe a model"),
        ({"model": {"backbone": "clip-rn5000"}}, "unknown backbone"),
        ({"model": {"colour": "red"}}, "colour"),
        ({"normalisation": {"mean": [0.5] * 3}}, "does not describe a model"),
    ],
)
def test_a_description_that_is_wrong_is_bad_input(folder, changes, message):
    edit(folder, **changes)
    with pytest.raises(BadInputError, match=message):
        load_checkpoint(folder)


def test_a_file_that_is_no_json_is_bad_input(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(BadInputError, match="not the description"):
        load_checkpoint(folder)


def test_weights_of_another_model_are_bad_input(folder):
    settings = json.loads((folder / "config.json").read_text())["model"]
    edit(folder, model=settings | {"neck_width": 64})
    with pytest.raises(BadInputError, match=r"has shape .* expected"):
        load_checkpoint(folder)
    edit(folder, model=settings | {"backbone": "timm:test_efficientnet"})
    with pytest.raises(BadInputError, match=r"lacks \d+ tensors \("):
        load_checkpoint(folder)


def test_bins_that_are_not_those_of_the_weights_are_bad_input(folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file({k: v for k, v in tensors.items() if k != "bin_values"}, path)
    with pytest.raises(BadInputError, match="lacks the tensor bin_values"):
        load_checkpoint(folder)
