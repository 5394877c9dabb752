"""A training run says truly whether it came to its end."""

from pathlib import Path

import pytest

from crowdcount.config import RunConfig
from crowdcount.data.prepared import PreparedDataset
from crowdcount.workflows.preprocess import preprocess
from crowdcount.workflows.train import train

CONFIG = RunConfig.from_mapping(
    {
        "model": {"backbone": "timm:test_resnet", "pretrained": "none", "neck_width": 8},
        "train": {"epochs": 2, "batch_size": 4, "crop": 64, "workers": 0},
    }
)


@pytest.fixture(scope="module")
def prepared(scenes, tmp_path_factory):
    """A set of its own: training leaves bins beside the data."""
    (result,) = preprocess(scenes, out=tmp_path_factory.mktemp("training") / "square")
    return PreparedDataset.open(result.folder)


class StopsAfter:
    """Asks for a stop when an epoch is validated and done, as a signal between epochs does."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.stop = False

    def started(self, *, epochs, steps, done=0):
        pass

    def stepped(self, loss):
        pass

    def finished_epoch(self, report, best):
        self.stop = report.epoch == self.epoch


@pytest.mark.parametrize(("epoch", "interrupted"), [(1, True), (2, False), (3, False)])
def test_a_stop_between_epochs_is_an_interruption_unless_all_is_done(
    prepared, workplace, epoch, interrupted
):
    watcher = StopsAfter(epoch)
    result = train(
        CONFIG, [prepared], out=Path("run"), should_stop=lambda: watcher.stop, watcher=watcher
    )
    assert result.interrupted == interrupted
    lines = (result.run / "log.jsonl").read_text().splitlines()
    assert len(lines) == min(epoch, 2)


@pytest.fixture(scope="module")
def plain_weights(prepared, tmp_path_factory):
    """What the settings of this file come to."""
    result = train(CONFIG, [prepared], out=tmp_path_factory.mktemp("plain") / "run", device="cpu")
    return (result.run / "last" / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optim.name", "adamw"),
        ("optim.encoder_lr", 1e-6),
        ("optim.weight_decay", 0.5),
        ("optim.clip_norm", 1e-9),
        ("schedule.name", "restarts"),
        ("schedule.warmup", 0.9),
        ("train.accumulate", 4),
        ("train.precision", "bf16"),
        ("train.precision", "fp16"),
        ("train.ema_decay", 0.99),
    ],
)
def test_every_setting_of_optimisation_reaches_the_weights(
    prepared, workplace, plain_weights, key, value
):
    section, name = key.split(".")
    changed = CONFIG.to_mapping()
    changed.setdefault(section, {})[name] = value
    result = train(RunConfig.from_mapping(changed), [prepared], out=Path("run"), device="cpu")
    assert (result.run / "last" / "model.safetensors").read_bytes() != plain_weights


def test_the_same_settings_come_to_the_same_weights(prepared, workplace, plain_weights):
    result = train(CONFIG, [prepared], out=Path("run"), device="cpu")
    assert (result.run / "last" / "model.safetensors").read_bytes() == plain_weights
