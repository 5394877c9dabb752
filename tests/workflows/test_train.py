"""A training run says truly whether it came to its end."""

from pathlib import Path

import pytest

from crowdcount.config import RunConfig
from crowdcount.workflows.train import train

CONFIG = RunConfig.from_mapping(
    {
        "model": {"backbone": "timm:test_resnet", "pretrained": "none", "neck_width": 8},
        "train": {"epochs": 2, "batch_size": 4, "crop": 64, "workers": 0},
    }
)


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
