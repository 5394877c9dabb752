"""A run that was killed at any moment and resumed is the run that nobody disturbed."""

import dataclasses
import hashlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from crowdcount.config import RunConfig
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.errors import (
    BadInputError,
    DivergedError,
    InputMissingError,
    UsageError,
    WorkerEndedError,
)
from crowdcount.runs.folder import CURVES, LOG, RECORD, STATE, RunFolder, find_run
from crowdcount.scenes.scene import SceneSettings, write_scenes
from crowdcount.training.divergence import Evidence
from crowdcount.training.optimiser import OptimConfig
from crowdcount.workflows.evaluate import evaluate
from crowdcount.workflows.preprocess import preprocess
from crowdcount.workflows.runs import summary
from crowdcount.workflows.train import resume, train
from tests.tiny_run import TIMES

KILLS = 3


def settings(**changes):
    return RunConfig.from_mapping(
        {
            "model": {"backbone": "timm:test_efficientnet", "pretrained": "none", "neck_width": 8},
            "optim": {"name": "adamw", "lr": 1e-3, "encoder_lr": 1e-4, "clip_norm": 1.0},
            "train": {
                "epochs": 3,
                "batch_size": 4,
                "accumulate": 2,
                "crop": 64,
                "workers": 0,
                "ema_decay": 0.9,
                "validate_every": 2,
                "checkpoint_every_steps": 2,
                **changes,
            },
        }
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Twelve small scenes, one of them for validation: three steps an epoch."""
    folder = tmp_path_factory.mktemp("many")
    scenes = SceneSettings(width=96, height=96, max_heads=9)
    write_scenes(folder / "square/train", images=12, seed=5, settings=scenes)
    (result,) = preprocess(folder / "square", out=folder / "data")
    return PreparedDataset.open(result.folder)


# ---- kills


def in_a_process(folder, source, out, workers):
    """Begin a run, or go on with it, in a process group of its own."""
    os.setsid()
    os.chdir(folder)
    torch.set_num_threads(1)
    # As in a process of one's own; otherwise its workers would come of a server, too, and import.
    multiprocessing.set_start_method("fork", force=True)
    if out.exists():
        resume(RunFolder.open(out), settings(workers=workers))
    else:
        train(settings(workers=workers), [PreparedDataset.open(source)], out=out, device="cpu")


class Runner:
    """Starts trainings as forks of a process that has imported everything already."""

    def __init__(self, folder, source):
        self.context = multiprocessing.get_context("forkserver")
        # With what training and its curves import when they need it.
        imported = ["timm", "torchvision", "matplotlib.figure", "matplotlib.style"]
        self.context.set_forkserver_preload([__name__, "crowdcount.workflows.train", *imported])
        self.folder, self.source = folder, source

    def start(self, out, *, workers):
        process = self.context.Process(
            target=in_a_process, args=(self.folder, self.source, out, workers)
        )
        process.start()
        return process


@pytest.fixture(scope="module")
def runner(data, tmp_path_factory):
    return Runner(tmp_path_factory.mktemp("runner"), data.folder)


@pytest.fixture(scope="module")
def undisturbed(runner, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    process = runner.start(out, workers=0)
    process.join()
    assert process.exitcode == 0
    return what_is_left(out)


def what_is_left(run):
    """Hashes of all weights and of the curves, and the log without times and memory."""
    files = ("best/model.safetensors", "last/model.safetensors", "curves.png")
    top = sorted(str(path.relative_to(run)) for path in run.glob("top/*/model.safetensors"))
    hashes = {
        name: hashlib.sha256((run / name).read_bytes()).hexdigest() for name in (*files, *top)
    }
    lines = [json.loads(line) for line in (run / LOG).read_text().splitlines()]
    return hashes, [{key: line[key] for key in line if key not in TIMES} for line in lines]


def state_number(run):
    """Another number for every state that is saved."""
    try:
        return (run / STATE).stat().st_mtime_ns
    except FileNotFoundError:
        return None


def kill_after(process, run, *, states, delay):
    """Wait for so many new states, a little longer, and kill the process and its workers."""
    for _ in range(states):
        last = state_number(run)
        while process.is_alive() and state_number(run) == last:
            time.sleep(0.0005)
    time.sleep(delay)
    if process.is_alive():
        os.killpg(process.pid, signal.SIGKILL)
    process.join()


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3 worker processes")
@pytest.mark.parametrize("workers", [0, 3])
def test_kills_at_random_moments_leave_no_trace(runner, undisturbed, tmp_path, workers):
    draw = random.Random(workers)
    run = tmp_path / "run"
    killed = 0
    for number in range(KILLS):
        process = runner.start(run, workers=workers)
        while process.is_alive() and not (run / LOG).exists():
            time.sleep(0.001)
        # The first kill may fall before any state is saved.
        kill_after(process, run, states=min(number, 2), delay=draw.uniform(0, 0.2))
        killed += process.exitcode == -signal.SIGKILL
    process = runner.start(run, workers=workers)
    process.join()
    assert process.exitcode == 0
    assert killed >= KILLS // 2
    assert what_is_left(run) == undisturbed
    assert RunFolder.open(run).record.finished
    left = {path.name for path in run.iterdir()}
    assert left == {"best", "curves.png", "last", "log.jsonl", "run.json", "settings.toml"}


def test_a_run_that_another_process_trains_is_neither_resumed_nor_replaced(runner, data, tmp_path):
    run = tmp_path / "run"
    process = runner.start(run, workers=0)
    try:
        while not (run / STATE).exists():
            assert process.is_alive()
            time.sleep(0.001)
        os.kill(process.pid, signal.SIGSTOP)
        record = (run / RECORD).read_text()
        with pytest.raises(UsageError, match="another process trains this run"):
            resume(RunFolder.open(run))
        with pytest.raises(UsageError, match="another process trains this run"):
            train(settings(), [data], out=run, device="cpu", force=True)
        assert (run / RECORD).read_text() == record
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
    train(settings(epochs=1), [data], out=run, device="cpu", force=True)
    assert (run / RECORD).read_text() != record
    assert not list(tmp_path.glob(".*"))


# ---- stops


class Stopper:
    """Asks for a stop after a number of steps."""

    def __init__(self, after):
        self.left = after

    def started(self, *, epochs, steps, done=0):
        self.done = done

    def stepped(self, loss):
        self.left -= 1

    def finished_epoch(self, report, best):
        pass

    def __call__(self):
        return self.left <= 0


def stopped(data, *, after, config=None, out=Path("run")):
    """A run that was stopped after a number of steps."""
    stop = Stopper(after)
    result = train(
        config or settings(), [data], out=out, device="cpu", should_stop=stop, watcher=stop
    )
    assert result.interrupted
    return RunFolder.open(out)


@pytest.fixture(scope="module")
def begun(data, tmp_path_factory):
    """A run that was stopped in the midst of its second epoch; tests must not write into it."""
    return stopped(data, after=4, out=tmp_path_factory.mktemp("begun") / "run").folder


@pytest.fixture
def run(begun, workplace):
    """A copy of that run, ``run`` in an empty working directory."""
    return RunFolder.open(shutil.copytree(begun, Path("run")))


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """What a run in this process leaves that nobody stops."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train(settings(), [data], out=out, device="cpu")
    return what_is_left(out)


@pytest.mark.parametrize(
    ("after", "every"),
    [
        (1, {}),
        (3, {}),
        (4, {"checkpoint_every_steps": None}),
        (8, {"checkpoint_every_steps": None}),
    ],
)
def test_a_stop_is_saved_where_it_happens(data, whole, workplace, after, every):
    run = stopped(data, after=after, config=settings(**every))
    assert (run.folder / CURVES).read_bytes().startswith(b"\x89PNG")
    watcher = Stopper(100)
    result = resume(run, watcher=watcher)
    assert watcher.done == after
    assert not result.interrupted
    assert what_is_left(run.folder) == whole
    assert result.best == RunFolder.open(run.folder).record.best


# Steps so large that the error soon rises again.
SELECTING = dataclasses.replace(
    settings(epochs=30, validate_every=1, patience=2, keep_best=2), optim=OptimConfig(lr=0.1)
)


@pytest.fixture(scope="module")
def selected(data, tmp_path_factory):
    """A run that ends early and keeps its two best checkpoints, which nobody stops."""
    out = tmp_path_factory.mktemp("selected") / "run"
    result = train(SELECTING, [data], out=out, device="cpu")
    assert not result.interrupted
    return what_is_left(out)


def test_training_ends_when_patience_does_and_the_best_are_kept(selected):
    hashes, lines = selected
    errors = [line["val"]["mae"] for line in lines]
    best = errors.index(min(errors)) + 1
    assert len(lines) == best + 2 < 30
    for epoch in range(1, len(lines)):
        assert epoch - (errors[:epoch].index(min(errors[:epoch])) + 1) < 2
    two_best = sorted(sorted(range(1, len(lines) + 1), key=lambda epoch: errors[epoch - 1])[:2])
    kept = [name for name in hashes if name.startswith("top/")]
    assert kept == [f"top/epoch-{epoch:04d}/model.safetensors" for epoch in two_best]
    assert hashes[f"top/epoch-{best:04d}/model.safetensors"] == hashes["best/model.safetensors"]


def test_a_stop_changes_neither_when_training_ends_nor_what_is_kept(data, selected, workplace):
    run = stopped(data, after=4, config=SELECTING)
    # What a killed process leaves: half a checkpoint, and one that was logged after the state.
    for name in (".0123abcd.epoch-0009", "epoch-0099"):
        (run.folder / "top" / name).mkdir(parents=True)
    result = resume(run)
    assert not result.interrupted
    assert what_is_left(run.folder) == selected
    assert RunFolder.open(run.folder).record.finished
    assert len(list((run.folder / "top").iterdir())) == 2


class WorkerKiller(Stopper):
    """Kills the worker that prepares the batches, during a step."""

    def stepped(self, loss):
        super().stepped(loss)
        if self.left == 0:
            (worker,) = multiprocessing.active_children()
            os.kill(worker.pid, signal.SIGKILL)

    def __call__(self):
        return False


def test_a_worker_that_is_killed_ends_the_run_where_it_was(data, whole, workplace, caplog):
    config = settings(workers=1, checkpoint_every_steps=None)
    with pytest.raises(WorkerEndedError, match="a process that prepares batches ended") as caught:
        train(config, [data], out=Path("run"), device="cpu", watcher=WorkerKiller(1))
    assert "/dev/shm" in caught.value.looked_for
    assert "--shm-size" in caught.value.next_step
    assert "train.workers" in caught.value.next_step
    assert "crowdcount train --resume run" in caplog.text
    run = RunFolder.open(Path("run"))
    resume(run, settings(workers=0, checkpoint_every_steps=None))
    assert what_is_left(run.folder) == whole


def test_what_follows_the_state_is_cut_off(data, whole, run):
    with (run.folder / LOG).open("a") as stream:
        stream.write('{"epoch": 2, "half a li')
    (run.folder / ".0123abcd.state.pt").write_bytes(b"half a state")
    (run.folder / ".0123abcd.best").mkdir()
    (run.folder / ".lock").touch()  # of an earlier version
    resume(run)
    assert what_is_left(run.folder) == whole
    assert not list(run.folder.glob(".*"))


@pytest.mark.parametrize("keep_best", [1, 2])
def test_the_best_on_disk_is_that_of_the_record(data, workplace, monkeypatch, keep_best):
    """A kill between the best checkpoint of epoch 2 and its state; then epoch 2 comes out worse."""
    errors = iter([5.0, 3.0, 6.0, 7.0])

    def scripted(counter, data, *, split):
        mae = next(errors)
        found = evaluate(counter, data, split=split)
        return dataclasses.replace(found, metrics=dataclasses.replace(found.metrics, mae=mae))

    def killed(run, learner, *, extra):
        if len((run.folder / LOG).read_text().splitlines()) == 2:
            raise KeyboardInterrupt
        save(run, learner, extra=extra)

    monkeypatch.setattr("crowdcount.workflows.train.evaluate", scripted)
    save = RunFolder.save_state
    config = settings(validate_every=1, keep_best=keep_best, checkpoint_every_steps=None)
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "save_state", killed)
        with pytest.raises(KeyboardInterrupt):
            train(config, [data], out=Path("run"), device="cpu")
    assert epoch_of(Path("run/best")) == 2
    result = resume(RunFolder.open(Path("run")))
    run = RunFolder.open(result.run)
    assert run.record.best.mae == result.best.mae == 5.0
    assert epoch_of(run.checkpoint) == summary(run).best_epoch == 1
    top = sorted(epoch_of(path) for path in run.folder.glob("top/*"))
    assert top == ([1, 2] if keep_best == 2 else [])


def epoch_of(checkpoint):
    return json.loads((checkpoint / "config.json").read_text())["card"]["provenance"]["epoch"]


def test_a_run_is_resumed_by_its_link(data, whole, workplace):
    run = stopped(data, after=4, out=Path("runs/run"))
    assert (run.folder.parent / "latest").is_symlink()
    result = resume(RunFolder.open(Path("runs/latest")))
    assert Path("runs/latest").resolve() == result.run == run.folder.resolve()
    assert what_is_left(run.folder) == whole
    again = train(settings(epochs=1), [data], out=Path("runs/latest"), device="cpu", force=True)
    assert Path("runs/latest").resolve() == again.run == result.run
    assert [path.name for path in Path("runs").iterdir() if path.is_symlink()] == ["latest"]


def test_without_a_state_it_begins_again(data, whole, run):
    (run.folder / STATE).unlink()
    watcher = Stopper(100)
    resume(run, watcher=watcher)
    assert watcher.done == 0
    assert what_is_left(run.folder) == whole


def test_a_finished_run_stays_as_it_is(data, workplace, caplog):
    result = train(settings(epochs=1), [data], out=Path("run"), device="cpu")
    before = {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")}
    caplog.set_level("INFO", logger="crowdcount")
    assert resume(RunFolder.open(Path("run"))) == result
    assert "run is finished" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")} == before


def test_a_run_that_was_finished_meanwhile_stays_as_it_is(data, run):
    other = RunFolder.open(run.folder)
    result, before = resume(run), what_is_left(run.folder)
    watcher = Stopper(100)
    assert resume(other, watcher=watcher) == result
    assert (watcher.left, what_is_left(run.folder)) == (100, before)


def test_other_settings_are_listed_and_refused(data, run):
    changed = settings(seed=1, epochs=4, workers=1, checkpoint_every_steps=1)
    with pytest.raises(UsageError) as caught:
        resume(run, changed)
    message = str(caught.value)
    assert "train.epochs: was 3, now 4; train.seed: was 42, now 1" in message
    assert "workers" not in message
    assert "checkpoint_every" not in message


def test_what_does_not_touch_the_weights_may_change(data, whole, run):
    resume(run, settings(workers=1, checkpoint_every_steps=None, checkpoint_every_minutes=5.0))
    assert what_is_left(run.folder) == whole


def test_other_data_is_refused_and_moved_data_is_not(data, whole, prepared, run, workplace):
    with pytest.raises(UsageError, match="started with other data"):
        resume(run, data=[prepared])
    record = json.loads((run.folder / RECORD).read_text())
    record["data"][0]["folder"] = str(workplace / "gone")
    (run.folder / RECORD).write_text(json.dumps(record))
    run = RunFolder.open(run.folder)
    with pytest.raises(InputMissingError, match="its data has moved or was deleted"):
        resume(run)
    resume(run, data=[data])
    assert what_is_left(run.folder) == whole


def test_bins_are_those_it_was_begun_with(data, whole, run, tmp_path):
    table = data.folder / "bins-r8.json"
    before = table.read_text()
    table.write_text("{}")
    try:
        resume(run)
    finally:
        table.write_text(before)
    assert what_is_left(run.folder) == whole


def test_another_number_of_threads_is_warned_of(data, run, caplog):
    record = json.loads((run.folder / RECORD).read_text())
    record["threads"] = 64
    (run.folder / RECORD).write_text(json.dumps(record))
    resume(RunFolder.open(run.folder))
    assert "not bit for bit as without the stop: threads 64 before" in caplog.text


def test_a_damaged_state_is_reported_as_damaged(data, run):
    (run.folder / STATE).write_bytes(b"<html>")
    with pytest.raises(BadInputError, match=r"state\.pt: not a training state"):
        resume(run)


def test_a_folder_that_is_no_run_is_refused(data, workplace):
    with pytest.raises(InputMissingError, match="no training run"):
        RunFolder.open(workplace)
    (workplace / RECORD).write_text('{"format": 99}')
    with pytest.raises(BadInputError, match="not the record of a run"):
        RunFolder.open(workplace)


def test_auto_is_the_latest_unfinished_run(data, workplace):
    with pytest.raises(InputMissingError, match="no run to resume"):
        find_run("auto")
    for number in (1, 2):
        config, out = settings(epochs=1), Path(f"runs/unfinished-{number}")
        stopped(data, after=1, config=config, out=out)
    train(settings(epochs=1), [data], out=Path("runs/done"), device="cpu")
    assert find_run("auto").folder == Path("runs/unfinished-2")
    for number in (2, 1):
        resume(find_run("auto"))
        assert RunFolder.open(Path(f"runs/unfinished-{number}")).record.finished
    assert find_run("auto").folder == Path("runs/done")
    assert find_run("done").folder == Path("runs/done")
    with pytest.raises(InputMissingError, match="elsewhere: no training run"):
        find_run("elsewhere")


def test_a_divergence_leaves_what_reproduces_it(data, workplace):
    config = settings(checkpoint_every_steps=1)
    run = stopped(data, after=4, config=config)
    (run.folder / CURVES).unlink()
    # Weights that overflow, as a learning rate far too high makes them.
    state = torch.load(run.folder / STATE, weights_only=True)
    weights = state["learner"]["model"]
    weights["head.0.weight"].fill_(torch.inf)
    torch.save(state, run.folder / STATE)

    with pytest.raises(DivergedError) as caught:
        resume(run)
    assert "step 5 (epoch 2): the prediction of the network is not finite" in str(caught.value)
    assert "run/diverged.pt reproduces the step" in str(caught.value)
    evidence = Evidence.load(run.folder / "diverged.pt")
    assert evidence.step == 5
    assert all(name in str(caught.value) for name in evidence.batch.names)
    assert torch.isinf(evidence.model["head.0.weight"]).all()
    # The first epoch was logged.
    assert (run.folder / CURVES).read_bytes().startswith(b"\x89PNG")
