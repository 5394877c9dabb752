"""A training run says truly whether it came to its end."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.data.prepared.manifest import PreprocessConfig
from crowdcount.errors import UsageError
from crowdcount.models.checkpoints.names import WEIGHTS_NAME
from crowdcount.runs.folder import LOG, find_run
from crowdcount.training import loop
from crowdcount.workflows.counter import load
from crowdcount.workflows.evaluate import evaluate
from crowdcount.workflows.preprocess import preprocess
from crowdcount.workflows.runs import compare, list_runs
from crowdcount.workflows.train import train
from tests.tiny_run import tiny_config

CONFIG = tiny_config(train__epochs=2)


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


@pytest.mark.parametrize(("epoch", "interrupted"), [(1, True), (2, False)])
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
def plain(prepared, tmp_path_factory):
    """The result of the settings of this file; tests must not write into its run."""
    return train(CONFIG, [prepared], out=tmp_path_factory.mktemp("plain") / "run", device="cpu")


@pytest.fixture(scope="module")
def plain_weights(plain):
    return (plain.run / "last" / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def one_epoch(prepared, tmp_path_factory):
    """The weights after one epoch of the same settings."""
    out = tmp_path_factory.mktemp("short") / "run"
    result = train(tiny_config(), [prepared], out=out, device="cpu")
    return (result.run / "last" / "model.safetensors").read_bytes()


def test_a_run_that_nobody_stops_is_not_interrupted(plain):
    assert not plain.interrupted
    assert [line["epoch"] for line in log_of(plain.run)] == [1, 2]


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
    prepared, workplace, one_epoch, key, value
):
    config = tiny_config(**{key.replace(".", "__"): value})
    result = train(config, [prepared], out=Path("run"), device="cpu")
    assert (result.run / "last" / "model.safetensors").read_bytes() != one_epoch


@pytest.mark.parametrize(("cache", "reads"), [("auto", 1), ("memory", 1), ("disk", 1), ("off", 2)])
def test_the_same_settings_come_to_the_same_weights_and_a_cache_saves_reading(
    prepared, workplace, plain_weights, monkeypatch, cache, reads
):
    read = []
    sample = PreparedDataset.sample

    def noted(self, record):
        read.append(record.name)
        return sample(self, record)

    monkeypatch.setattr(PreparedDataset, "sample", noted)
    result = train(changed(cache=cache), [prepared], out=Path("run"), device="cpu")
    assert (result.run / "last" / "model.safetensors").read_bytes() == plain_weights
    training = [record.name for record in prepared.records("train")]
    assert [read.count(name) for name in training] == [reads] * len(training)


# ---- selection


def changed(**train_settings):
    return tiny_config(
        **{"train__epochs": 2} | {f"train__{name}": value for name, value in train_settings.items()}
    )


def log_of(run):
    return [json.loads(line) for line in (run / LOG).read_text().splitlines()]


def test_a_part_that_no_longer_learns_is_warned_of_once(prepared, workplace, caplog):
    first = train(CONFIG, [prepared], out=Path("first"), device="cpu").run / "last"
    assert "no gradient" not in caplog.text
    tensors = load_file(first / WEIGHTS_NAME)
    tensors["encoder.bn1.bias"].fill_(-1000.0)  # the ReLU behind it gives 0 for every image
    save_file(tensors, first / WEIGHTS_NAME)
    run = train(changed(init=str(first)), [prepared], out=Path("second"), device="cpu").run
    first_epoch, second_epoch = (line["without_gradient"] for line in log_of(run))
    assert first_epoch == second_epoch
    assert {"encoder.bn1.weight", "encoder.bn1.bias"} < set(first_epoch)
    assert all(name.startswith("encoder.") for name in first_epoch)
    (warning,) = [each.getMessage() for each in caplog.records if each.levelname == "WARNING"]
    assert warning.startswith(f"{len(first_epoch)} trained tensors got no gradient")
    assert f"of epochs 1 and 2, from {first_epoch[0]} to {first_epoch[-1]}" in warning


def test_a_tensor_without_gradient_in_one_epoch_alone_is_not_warned_of(
    prepared, workplace, caplog, monkeypatch
):
    # As in the first step of networks whose residual branches start at zero.
    names = iter([("encoder.bn1.bias",), ("encoder.bn1.weight",)])
    monkeypatch.setattr(loop, "_without_gradient", lambda model: next(names))
    train(CONFIG, [prepared], out=Path("run"), device="cpu")
    assert "no gradient" not in caplog.text


def test_test_images_are_selected_on_only_where_that_is_allowed(prepared, workplace):
    with pytest.raises(UsageError, match="selected on the test images") as caught:
        train(changed(select_on="test"), [prepared], out=Path("run"))
    assert "--allow-test-selection" in str(caught.value)
    assert not Path("run").exists()


def test_a_selection_on_test_images_is_stamped(prepared, plain, workplace):
    config = changed(select_on="test")
    result = train(
        config, [prepared], out=Path("runs/test"), device="cpu", allow_test_selection=True
    )
    shutil.copytree(plain.run, "runs/val")
    images = {
        name: [line[name]["images"] for line in log_of(Path("runs") / name)]
        for name in ("test", "val")
    }
    assert images == {"test": [3, 3], "val": [1, 1]}
    assert all("val" not in line for line in log_of(result.run))
    best = load(result.checkpoint, device="cpu")
    found = evaluate(best, [prepared], split="test")
    assert found.metrics.mae == pytest.approx(result.best.mae, rel=1e-5)
    assert best.provenance.selected_on == found.to_json()["selected_on"] == "test"
    plain = evaluate(load("runs/val/best", device="cpu"), [prepared], split="test")
    assert plain.selected_on == plain.to_json()["selected_on"] == "val"
    card = json.loads((result.checkpoint / "config.json").read_text())["card"]
    assert card["provenance"]["selected_on"] == "test"
    assert card["metrics"] == {"test": dataclasses.asdict(result.best)}
    assert {each.name: each.selected_on for each in list_runs()[0]} == {
        "test": "test",
        "val": "val",
    }
    compared = compare([find_run("test"), find_run("val")])
    assert compared.settings == {"train.select_on": ("test", "val")}
    assert compared.metrics["mae"][0] == result.best.mae


def test_validation_sees_the_windows_that_evaluation_will(prepared, workplace):
    config = tiny_config(optim__lr=0.1, model__window=64)
    result = train(config, [prepared], out=Path("run"), device="cpu")
    best = load(result.checkpoint, device="cpu")
    assert best.model.config.window == 64
    assert evaluate(best, [prepared]).metrics.mae == pytest.approx(result.best.mae, rel=1e-5)
    best.model.config = dataclasses.replace(best.model.config, window=0)
    assert evaluate(best, [prepared]).metrics.mae != pytest.approx(result.best.mae, rel=1e-4)


def test_several_sets_are_validated_together_and_each(prepared, workplace):
    shutil.copytree(prepared.folder, "data/other")
    manifest = json.loads(Path("data/other/manifest.json").read_text())
    held_out = [each["file"] for each in manifest["images"] if each["split"] == "train"][:3]
    Path("data/other/manifest.json").write_text(json.dumps(manifest | {"held_out": held_out}))
    sets = [prepared, PreparedDataset.open(Path("data/other"))]
    result = train(changed(epochs=1), sets, out=Path("run"), device="cpu")
    (line,) = log_of(result.run)
    # Both are called alike, so folders tell them apart.
    first, second = (line["val_sets"][str(each.folder)] for each in sets)
    assert (first["images"], second["images"], line["val"]["images"]) == (1, 3, 4)
    assert 4 * line["val"]["mae"] == pytest.approx(first["mae"] + 3 * second["mae"])
    best = load(result.checkpoint, device="cpu")
    for each in sets:
        alone = evaluate(best, [each]).metrics
        assert line["val_sets"][str(each.folder)]["rmse"] == pytest.approx(alone.rmse, rel=1e-5)
    card = json.loads((result.checkpoint / "config.json").read_text())["card"]
    assert card["metrics"] == {"val": line["val"], "val_sets": line["val_sets"]}


def test_a_single_set_has_no_metrics_of_its_own(plain):
    assert all("val_sets" not in line for line in log_of(plain.run))


def test_a_set_without_images_for_validation_is_trained_to_its_last_epoch(
    scenes, prepared, workplace, caplog
):
    whole = PreprocessConfig(val_fraction=0)
    (result,) = preprocess(scenes, out=Path("data/whole"), config=whole)
    data = PreparedDataset.open(result.folder)
    assert "val" not in data.splits
    result = train(tiny_config(), [data], out=Path("run"), device="cpu")
    assert "no images for validation" in caplog.text
    assert result.best is None
    assert result.checkpoint == Path("run/last")
    assert find_run("run").record.finished
    # Beside a set that has some, those are measured.
    result = train(tiny_config(), [data, prepared], out=Path("both"), device="cpu")
    (line,) = map(json.loads, Path("both", LOG).read_text().splitlines())
    assert line["val"]["images"] == len(prepared.records("val"))
