"""A small demo: it learns to count scenes it never saw, and keeps to its folder."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from crowdcount.cli.train import TrainingBar
from crowdcount.config import load_run_config
from crowdcount.errors import UsageError
from crowdcount.scenes.scene import SceneSettings
from crowdcount.workflows import demo
from crowdcount.workflows.demo import plan_demo, run_demo


@pytest.fixture
def smaller(monkeypatch):
    """A demo with a third of the scenes, each a quarter as large, and fewer pixels to train on."""
    monkeypatch.setattr(demo, "TRAINING_SCENES", 40)
    monkeypatch.setattr(demo, "UNSEEN_SCENES", 12)
    monkeypatch.setattr(demo, "SCENES", SceneSettings(width=288, height=224))

    def settings(*, preset):
        config = load_run_config(preset=preset)
        train = replace(config.train, epochs=4, crop=112, batch_size=2, workers=0)
        return replace(config, train=train)

    monkeypatch.setattr(demo, "load_run_config", settings)


def test_it_learns_and_keeps_to_its_folder(smaller, workplace):
    result = run_demo(Path("here"), device="cpu")
    assert result.evaluation.metrics.images == 12
    # With all scenes it is half the error of guessing.
    assert result.evaluation.metrics.mae <= 0.7 * result.evaluation.mean_guess.mae
    assert result.heatmap.is_file()
    assert Path("here") in result.heatmap.parents
    assert [path.name for path in Path().iterdir()] == ["here"]


def test_it_replaces_an_earlier_demo_and_nothing_else(workplace):
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("all of it")
    for refused in (plan_demo, run_demo):
        with pytest.raises(UsageError, match="not an earlier demo"):
            refused(Path("mine"))
    assert Path("mine/thesis.txt").read_text() == "all of it"
    Path("thesis.txt").write_text("the rest")
    with pytest.raises(UsageError, match="not an earlier demo"):
        run_demo(Path("thesis.txt"))
    assert "made anew" in plan_demo(Path("other"))
    assert not Path("other").exists()


def test_sigterm_ends_the_demo_in_the_middle_of_training(monkeypatch, run, smaller, workplace):
    monkeypatch.setattr(demo, "TRAINING_SCENES", 5)
    monkeypatch.setattr(demo, "UNSEEN_SCENES", 1)
    stepped = TrainingBar.stepped

    def stepped_and_told_to_end(bar, loss):
        stepped(bar, loss)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(TrainingBar, "stepped", stepped_and_told_to_end)
    code, out, err = run("demo", "--out", "here")
    assert (code, out) == (143, "")
    assert err.endswith("SIGTERM: stopped\n")
    assert run("demo", "--out", "here", "--dry-run")[0] == 0


def test_a_demo_that_another_process_runs_stays(monkeypatch, workplace):
    monkeypatch.setattr(demo, "is_locked", lambda run: run == Path("here/run"))
    Path("here").mkdir()
    with pytest.raises(UsageError, match="another process runs this demo"):
        run_demo(Path("here"))
    assert Path("here").exists()
