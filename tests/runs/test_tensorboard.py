"""TensorBoard shows what the log says, each epoch once, whatever stopped the run."""

import json
import sys
from datetime import datetime
from pathlib import Path

import pytest

from crowdcount.config import RunConfig
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.errors import InputMissingError
from crowdcount.runs.folder import LOG, RunFolder
from crowdcount.runs.tensorboard import EVENTS, EventWriter, scalars
from crowdcount.workflows.preprocess import preprocess
from crowdcount.workflows.train import resume, train

STARTED = "2026-01-02T03:04:05+00:00"


def settings(**changes):
    return RunConfig.from_mapping(
        {
            "model": {"backbone": "timm:test_resnet", "pretrained": "none", "neck_width": 8},
            "train": {
                **{"epochs": 3, "batch_size": 4, "crop": 64, "workers": 0},
                **{"tensorboard": True, "validate_every": 2, **changes},
            },
        }
    )


@pytest.fixture(scope="module")
def data(scenes, tmp_path_factory):
    """Seven training images, so two steps an epoch."""
    (result,) = preprocess(scenes, out=tmp_path_factory.mktemp("training") / "square")
    return PreparedDataset.open(result.folder)


def shown(folder):
    """What TensorBoard reads: for each tag its steps and values."""
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", exc_type=ImportError
    )
    events = reader.EventAccumulator(str(folder))
    events.Reload()
    return {
        tag: [(each.step, each.value) for each in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def logged(folder):
    """The same from the log; TensorBoard keeps float32."""
    lines = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    found = {}
    for line in lines:
        for tag, value in scalars(line).items():
            found.setdefault(tag, []).append((line["epoch"], pytest.approx(value, rel=1e-6)))
    return found


class Stopper:
    """Asks for a stop after a number of steps."""

    def __init__(self, after):
        self.left = after

    def started(self, *, epochs, steps, done=0):
        pass

    def stepped(self, loss):
        self.left -= 1

    def finished_epoch(self, report, best):
        pass

    def __call__(self):
        return self.left <= 0


def test_every_number_of_a_line_has_a_tag_of_its_own():
    line = {
        "epoch": 3,
        "loss": 2.5,
        "skipped": 0,
        "gradient_norm": None,
        "complete": True,
        "val": {"mae": 4.0, "images": 2},
        "val_sets": {"sha": {"mae": 3.0}, "shb": {"mae": 5.0}},
    }
    assert scalars(line) == {
        **{"train/loss": 2.5, "train/skipped": 0.0, "val/mae": 4.0, "val/images": 2.0},
        **{"val_sets/sha/mae": 3.0, "val_sets/shb/mae": 5.0},
    }


@pytest.mark.parametrize("after", [100, 3, 4], ids=["whole", "in 2", "after 2"])
def test_a_stop_doubles_nothing(data, workplace, after):
    stop = Stopper(after)
    result = train(
        settings(), [data], out=Path("run"), device="cpu", should_stop=stop, watcher=stop
    )
    assert shown(result.run) == logged(result.run)
    if result.interrupted:
        # What a killed process leaves: an epoch after the state, and half of the next.
        (events,) = result.run.glob(f"{EVENTS}*")
        events.write_bytes(events.read_bytes() + events.read_bytes()[-50:])
        resume(RunFolder.open(result.run))
    seen = shown(result.run)
    assert seen == logged(result.run)
    assert [step for step, _ in seen["train/loss"]] == [1, 2, 3]
    assert [step for step, _ in seen["val/mae"]] == [2, 3]
    assert {"train/lr", "train/gradient_norm", "train/waiting", "train/peak_memory"} < seen.keys()
    assert len(list(result.run.glob(f"{EVENTS}*"))) == 1


def test_it_can_begin_with_the_resumption_of_a_run(data, workplace):
    stop = Stopper(3)
    run = Path("run")
    train(settings(tensorboard=False), [data], out=run, should_stop=stop, watcher=stop)
    assert not list(run.glob(f"{EVENTS}*"))
    resume(RunFolder.open(run), settings())
    assert shown(run) == logged(run)


def test_a_writer_begins_with_the_log_and_its_times_hold_no_stop(tmp_path):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", exc_type=ImportError
    )
    log = [{"epoch": k, "seconds": 10.0 * k, "loss": 1 / k} for k in (1, 2, 3)]
    for stale in ({**log[2], "loss": 9.0}, log[2]):
        writer = EventWriter(tmp_path, log[:2], started=STARTED)
        writer.add(stale)
        writer.close()
    assert len(list(tmp_path.iterdir())) == 1
    seen = accumulator.EventAccumulator(str(tmp_path))
    seen.Reload()
    events = seen.Scalars("train/loss")
    assert [(each.step, each.value) for each in events] == [
        (line["epoch"], pytest.approx(line["loss"])) for line in log
    ]
    began = datetime.fromisoformat(STARTED).timestamp()
    assert [each.wall_time - began for each in events] == pytest.approx([10, 30, 60])


def test_without_the_package_nothing_begins(data, workplace, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(InputMissingError, match="not installed") as caught:
        train(settings(), [data], out=Path("run"))
    assert "pip install 'crowdcount-ebc[tensorboard]'" in str(caught.value)
    assert not Path("run").exists()
    run = train(settings(tensorboard=False), [data], out=Path("run"), device="cpu").run
    with pytest.raises(InputMissingError, match="not installed"):
        resume(RunFolder.open(run), settings())
