"""Checkpoints on disk are those of the state that a run goes back to, whatever stopped it."""

import itertools
import json
import os
import shutil

import pytest

from crowdcount.core.image import WorkingSize
from crowdcount.core.metrics import CountMetrics
from crowdcount.models.checkpoints.card import Card, Provenance
from crowdcount.models.checkpoints.format import load_checkpoint
from crowdcount.runs.checkpoints import Checkpoints

SIZE = WorkingSize(short_side_min=64, long_side_max=512)


@pytest.fixture(scope="module")
def model(checkpoint):
    return load_checkpoint(checkpoint).model


class Killed(BaseException):
    """The process ends here: nothing after it is done."""


@pytest.fixture
def kill_after(monkeypatch):
    """Let all changes to the disk fail after a given number of them."""
    left = None

    def dying(call):
        def step(*arguments, **named):
            nonlocal left
            if left is not None:
                left -= 1
                if left < 0:
                    raise Killed
            return call(*arguments, **named)

        return step

    for module, name in ((os, "mkdir"), (os, "rename"), (os, "rmdir"), (shutil, "rmtree")):
        monkeypatch.setattr(module, name, dying(getattr(module, name)))

    def set_left(steps):
        nonlocal left
        left = steps

    return set_left


def add(keeper, model, epoch, mae):
    metrics = CountMetrics(mae=float(mae), rmse=float(mae), nae=None, images=1)
    return keeper.add(
        model,
        epoch=epoch,
        metrics=metrics,
        card=Card(working_size=SIZE, provenance=Provenance(epoch=epoch)),
    )


def epoch_of(folder):
    assert (folder / "model.safetensors").stat().st_size > 0
    return json.loads((folder / "config.json").read_text())["card"]["provenance"]["epoch"]


def on_disk(run):
    """The epochs of the best and of the best few."""
    best = run / "best"
    top = {path.name: epoch_of(path) for path in sorted(run.glob("top/*"))}
    return epoch_of(best) if best.exists() else None, top


def ranked(*epochs):
    return {f"epoch-{epoch:04d}": epoch for epoch in epochs}


def test_the_best_few_are_kept(model, tmp_path):
    keeper = Checkpoints(tmp_path, keep_best=2)
    better = [add(keeper, model, epoch, mae) for epoch, mae in enumerate([5, 7, 3, 3, 9], start=1)]
    assert better == [True, False, True, False, False]
    assert keeper.best.mae == 3
    assert [each.epoch for each in keeper.top] == [3, 4]
    assert epoch_of(tmp_path / "last") == 5
    keeper.finish()
    assert on_disk(tmp_path) == (3, ranked(3, 4))


@pytest.mark.parametrize("keep_best", [1, 2])
def test_a_kill_at_any_step_leaves_the_checkpoints_of_the_saved_state(
    model, tmp_path, kill_after, keep_best
):
    """Epochs 1 and 2 are in the state; 3 and 4 would replace them; then comes a kill."""
    keeper = Checkpoints(tmp_path / "begun", keep_best=keep_best)
    for epoch, mae in ((1, 8), (2, 7)):
        add(keeper, model, epoch, mae)
    state = keeper.to_state()
    for steps in itertools.count():
        run = tmp_path / str(steps)
        shutil.copytree(tmp_path / "begun", run)
        keeper = Checkpoints(run, keep_best=keep_best)
        keeper.rewind(state)
        kill_after(steps)
        try:
            add(keeper, model, 3, 6)
            add(keeper, model, 4, 5)
            ended = True
        except Killed:
            ended = False
        kill_after(None)
        resumed = Checkpoints(run, keep_best=keep_best)
        resumed.rewind(state)
        assert on_disk(run) == (2, ranked(2, 1) if keep_best == 2 else {})
        assert resumed.to_state() == state
        if ended:
            break
    assert steps > 10
    add(resumed, model, 3, 9)
    resumed.finish()
    assert (on_disk(run)[0], epoch_of(run / "last")) == (2, 3)


def test_without_a_state_no_earlier_best_survives(model, tmp_path):
    add(Checkpoints(tmp_path, keep_best=2), model, 1, 5)
    keeper = Checkpoints(tmp_path, keep_best=2)
    keeper.rewind(None)
    assert (on_disk(tmp_path), keeper.best, keeper.top) == ((None, {}), None, ())


def test_what_a_kill_of_an_earlier_version_left_is_recovered(model, tmp_path):
    """Its two renames left the checkpoint under a temporary name, beside a half-written one."""
    keeper = Checkpoints(tmp_path, keep_best=1)
    add(keeper, model, 1, 5)
    state = keeper.to_state()
    shutil.copytree(tmp_path / "best", tmp_path / ".00000000.best")
    (tmp_path / ".00000000.best" / "model.safetensors").write_bytes(b"half")
    (tmp_path / "best").rename(tmp_path / ".12345678.best")
    Checkpoints(tmp_path, keep_best=1).rewind(state)
    assert on_disk(tmp_path) == (1, {})


def test_a_best_of_which_nothing_is_left_is_no_best(model, tmp_path, caplog):
    keeper = Checkpoints(tmp_path, keep_best=1)
    add(keeper, model, 1, 5)
    state = keeper.to_state()
    add(keeper, model, 2, 4)  # the state was never marked as saved, as in earlier versions
    resumed = Checkpoints(tmp_path, keep_best=1)
    resumed.rewind(state)
    assert "the checkpoint of epoch 1, the best so far, is lost" in caplog.text
    assert (on_disk(tmp_path), resumed.best) == ((None, {}), None)
    assert add(resumed, model, 2, 6)
    assert on_disk(tmp_path) == (2, {})
