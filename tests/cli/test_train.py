"""`crowdcount train` in a shell: paths, flags, resuming, exit codes, and its progress bar."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from rich.console import Console as RichConsole

from crowdcount.cli.console import Console
from crowdcount.cli.train import SETTING_FLAGS, TrainingBar
from crowdcount.config import RunConfig
from crowdcount.errors import DivergedError
from crowdcount.workflows import overfit
from crowdcount.workflows.train import train
from tests.tiny_run import TINY_RUN, tiny_config

ROOT = Path(__file__).parents[2]


def test_train_prints_its_best_checkpoint_and_becomes_the_latest(run, data):
    code, out, err = run("train", *TINY_RUN)
    assert code == 0
    best = Path(out.strip())
    assert best.name == "best"
    assert (Path("runs/latest/best").resolve()) == best.resolve()
    log = [json.loads(line) for line in (best.parent / "log.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in log] == [1]
    assert log[0]["val"]["images"] == 1
    assert "epoch 1/1" in err
    # Without a word about models, eval and predict now use this run.
    assert run("eval")[0] == 0
    assert run("predict", data.image_path(data.records("test")[0]))[0] == 0


def test_the_later_of_flag_and_set_wins(run, data):
    _, out, _ = run("train", "--dry-run", "--lr", "0.5", "--set", "optim.lr=0.25", *TINY_RUN)
    assert "lr = 0.25" in out
    _, out, _ = run("train", "--dry-run", "--set", "optim.lr=0.25", "--lr", "0.5", *TINY_RUN)
    assert "lr = 0.5" in out
    mixed = ("--lr", "0.5", "--set", "optim.lr=0.25", "--lr=0.125", "--tensorboard", "--set")
    _, out, _ = run("train", "--dry-run", *mixed, "train.tensorboard=false", *TINY_RUN)
    assert "lr = 0.125" in out
    assert "tensorboard = false" in out
    assert not Path("runs").exists()


def test_every_flag_that_sets_a_setting_names_one():
    for each in SETTING_FLAGS.values():
        section, _, key = (each.setting or "loss.count").partition(".")
        assert hasattr(getattr(RunConfig(), section), key), each.flag


def test_every_short_form_sets_its_setting(run, data):
    # Of a flag given twice the later wins; the default backbone takes long to describe.
    tiny = ("train", "--dry-run", "--backbone", "timm:test_resnet")
    together = {
        ("--backbone", "timm:test_vit"): 'backbone = "timm:test_vit"',
        ("--weights", "w.pth"): 'weights = "w.pth"',
        ("--block", "16"): "block = 16",
        ("--epochs", "7"): "epochs = 7",
        ("--batch-size", "3"): "batch_size = 3",
        ("--seed", "5"): "seed = 5",
        ("--cache", "disk"): 'cache = "disk"',
        ("--lr", "0.125"): "lr = 0.125",
    }
    apart = {("--bins", "sha-r8-t4"): 'bins = "sha-r8-t4"', ("--preset", "demo"): "crop = 224"}
    defaults = run(*tiny)[1]
    for flags in (together, apart):
        out = run(*tiny, *(part for flag in flags for part in flag))[1]
        for flag, setting in flags.items():
            assert setting not in defaults, flag
            assert setting in out, flag


def test_tensorboard_is_a_flag_that_may_be_given_to_a_run_that_goes_on(run, stopped):
    assert "tensorboard = true" in run("train", "--dry-run", "--tensorboard")[1]
    assert run("train", "--resume", stopped, "--tensorboard")[0] == 0
    assert len(list(stopped.glob("events.out.tfevents.*"))) == 1


def test_misspelt_setting_is_one_line_and_exit_2(run, data):
    assert run("train", "--set", "loss.cuont=mse") == (
        2,
        "",
        "error: loss.cuont: no such setting; did you mean 'count'?\n",
    )


def test_train_can_draw_its_first_batch_instead(run, data):
    code, out, _ = run("train", *TINY_RUN, "--show-batch", "batch.png")
    assert (code, out) == (0, "batch.png\n")
    assert Path("batch.png").read_bytes().startswith(b"\x89PNG")
    assert not Path("runs").exists()
    code, out, err = run("train", *TINY_RUN, "--show-batch", "batch.png")
    assert (code, out) == (2, "")
    assert "batch.png: already exists" in err
    assert run("train", *TINY_RUN, "--show-batch", "batch.png", "--force")[0] == 0


def test_train_dry_run_is_a_run_file_with_sizes_and_writes_nothing(run, data):
    before = set(data.folder.rglob("*"))
    code, out, _ = run("train", *TINY_RUN, "--dry-run", "--set", "train.ema_decay=0.9")
    assert code == 0
    assert set(data.folder.rglob("*")) == before
    assert not Path("runs").exists()
    assert tomllib.loads(out)["train"]["batch_size"] == 4
    sizes = "\n".join(re.findall("^# .*", out, re.MULTILINE))
    assert "7 training and 1 validation images, crops of 64 pixels" in sizes
    assert re.search(r"# ([\d,]+) parameters, \1 of them trained", sizes)
    assert "# 2 steps an epoch, 2 in all" in sizes
    assert re.search(r"# memory, estimated: \d+ MiB \(weights .*, activations \d+ MiB\)", sizes)


def test_overfit_says_whether_crops_were_learned(run, data, monkeypatch):
    start = ("train", *TINY_RUN, "--epochs", "2", "--overfit")
    code, out, err = run(*start, "1", "--lr", "1e-9")
    header, *rows = [line.split("\t") for line in out.splitlines()]
    assert code == 5
    assert header == ["", "before", "after", "at_most"]
    assert [row[0] for row in rows] == ["loss", "count_error"]
    assert "crops 1, heads " in err
    assert "error: these crops were not learned: the loss fell from" in err
    assert not Path("runs").exists()
    assert run(*start, "8")[0] == 2
    assert run(*start, "0")[0] == 2
    # That crops are learned takes two hundred passes, which the test of the workflow makes.
    learned = overfit.OverfitResult(
        crops=1,
        heads=3,
        steps=2,
        loss_before=8.0,
        loss_after=1.0,
        count_error_before=1.0,
        count_error_after=0.125,
    )
    monkeypatch.setattr(overfit, "overfit", lambda *arguments, **options: learned)
    code, out, err = run(*start, "1")
    assert (code, out) == (
        0,
        "\tbefore\tafter\tat_most\nloss\t8\t1\t2\ncount_error\t1\t0.125\t0.2\n",
    )
    assert err == "crops 1, heads 3, steps 2\n"


def test_several_sets_are_named_when_none_is_chosen_and_trained_on_when_chosen(run, data):
    shutil.copytree("data/square", "data/other")
    code, _, err = run("train", *TINY_RUN)
    assert code == 2
    assert "data/other, data/square" in err
    code, out, _ = run("train", *TINY_RUN, "--data", "data/other", "--data", "data/square")
    assert code == 0
    card = json.loads((Path(out.strip()) / "config.json").read_text())["card"]
    assert card["provenance"]["training_images"] == 14


def test_weights_that_cannot_be_downloaded_say_what_to_do_and_leave_no_run(run, data):
    code, out, err = run("train", "--backbone", "timm:resnet18", "--offline")
    assert (code, out) == (3, "")
    assert "--weights" in err
    assert "--no-pretrained" in err
    assert not Path("runs").exists()


def test_a_run_is_replaced_only_by_force_and_its_seed_decides_its_weights(run, data):
    weights, start = Path("here/last/model.safetensors"), ("train", *TINY_RUN, "--out", "here")
    assert run(*start)[0] == 0
    first = weights.read_bytes()
    assert run(*start, "--seed", "1")[0] == 2
    assert weights.read_bytes() == first
    assert run(*start, "--seed", "1", "--force")[0] == 0
    assert weights.read_bytes() != first
    assert run(*start, "--force")[0] == 0
    assert weights.read_bytes() == first


def test_an_interrupt_saves_the_last_checkpoint(data):
    # To the whole group, as terminals send it: workers must not hear it.
    endless = [*TINY_RUN, "--set", "train.workers=1", "--epochs", "100000", "--out", "run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "crowdcount", "train", *endless],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for line in process.stderr:
        if line.startswith("epoch 1/"):
            break
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert Path(out.strip(), "model.safetensors").is_file()
    assert_saved_and_told(err)


def assert_saved_and_told(err):
    assert Path("run/last/config.json").is_file()
    assert Path("run/state.pt").is_file()
    assert err.endswith("go on with: crowdcount train --resume run\n")


def test_sigterm_saves_the_last_checkpoint(run, data, monkeypatch):
    stepped = TrainingBar.stepped

    def stepped_and_told_to_end(bar, loss):
        stepped(bar, loss)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(TrainingBar, "stepped", stepped_and_told_to_end)
    code, out, err = run("train", *TINY_RUN, "--epochs", "100000", "--out", "run")
    assert code == 143, err
    assert Path(out.strip(), "model.safetensors").is_file()
    assert_saved_and_told(err)


@pytest.fixture
def stopped(data):
    """A run of two epochs that was stopped after its first step."""
    steps = []
    settings, out = tiny_config(train__epochs=2), Path("runs/begun")
    return train(settings, [data], out=out, device="cpu", should_stop=lambda: not steps).run


def test_resume_goes_on_and_a_finished_run_says_so(run, stopped):
    # A file of settings for new runs is none of a run that was begun.
    Path("crowdcount.toml").write_text("[train]\nepochs = 7\n")
    code, out, err = run("train", "--resume", "auto")
    assert (code, out) == (0, "runs/begun/best\n")
    assert "runs/begun continues at epoch 1, step 2" in err
    assert "epoch 2/2" in err
    code, out, err = run("train", "--resume", "runs/begun")
    assert (code, out) == (0, "runs/begun/best\n")
    assert err == "runs/begun is finished; there is nothing left to train\n"


def test_resume_refuses_other_settings_by_name(run, stopped, monkeypatch):
    code, out, err = run("train", "--resume", stopped, "--lr", "0.5", "--epochs", "2")
    assert (code, out) == (2, "")
    assert "optim.lr: was 0.0001, now 0.5\n" in err
    assert "epochs" not in err
    monkeypatch.setenv("CROWDCOUNT_TRAIN__SEED", "5")
    assert "train.seed: was 42, now 5\n" in run("train", "--resume", stopped)[2]


@pytest.mark.parametrize("flag", [("--out", "x"), ("--force",), ("--deterministic",)])
def test_resume_refuses_what_is_for_a_new_run(run, stopped, flag):
    code, _, err = run("train", "--resume", stopped, *flag)
    assert code == 2
    assert f"{flag[0]} is for a new run" in err


def test_resume_without_a_run_exits_3(run, data):
    assert run("train", "--resume", "auto")[0] == 3
    assert run("train", "--resume", "nowhere")[0] == 3


def test_resume_dry_run_shows_the_settings_of_the_run(run, stopped):
    before = {path: path.stat().st_mtime_ns for path in stopped.rglob("*")}
    code, out, _ = run("train", "--resume", stopped, "--dry-run")
    assert code == 0
    assert "epochs = 2" in out
    assert {path: path.stat().st_mtime_ns for path in stopped.rglob("*")} == before
    assert run("train", "--resume", stopped, "--dry-run", "--lr", "0.5")[0] == 2


def test_deterministic_is_kept_with_the_run(run, data):
    assert run("train", *TINY_RUN, "--out", "run", "--deterministic")[0] == 0
    assert json.loads(Path("run/run.json").read_text())["deterministic"]


def test_divergence_exits_7_and_leaves_what_reproduces_it(run, data):
    code, out, err = run("train", *TINY_RUN, "--lr", "1e30")
    assert (code, out) == (7, "")
    assert "training diverged at step 2 (epoch 1)" in err
    assert "/diverged.pt reproduces the step" in err
    assert Path("runs/latest/diverged.pt").is_file()
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    (written,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    with pytest.raises(DivergedError, match="the prediction of the network is not finite"):
        exec(compile(written, "docs/training.md", "exec"), {})


def test_a_divergence_that_shows_in_validation_exits_7(run, data):
    # One step an epoch; the first breaks the weights, after its loss was found finite.
    steep = ("--lr", "1e30", "--batch-size", "8", "--epochs", "2")
    code, out, err = run("train", *TINY_RUN, *steep)
    assert (code, out) == (7, "")
    assert "training diverged in epoch 1: " in err
    assert "gives nan heads" in err


def test_train_starts_from_a_checkpoint(run, data, starter):
    size = ("--set", "train.crop=64", "--set", "train.workers=0", "--epochs", "1")
    tuned = ("train", *size, "--batch-size", "4", "--init", "starter")
    code, out, _ = run(*tuned, "--dry-run")
    told = tomllib.loads(out)
    assert code == 0
    assert told["train"]["init"] == "starter"
    assert told["model"]["backbone"] == "timm:test_resnet"
    assert told["model"]["neck_width"] == 8
    assert run(*tuned, "--show-batch", "batch.png")[:2] == (0, "batch.png\n")
    code, out, _ = run(*tuned, "--overfit", "1")
    assert (code, len(out.splitlines())) == (5, 3)
    assert not list(data.folder.glob("bins-*"))
    code, out, _ = run(*tuned)
    assert code == 0
    card = json.loads((Path(out.strip()) / "config.json").read_text())["card"]
    assert card["provenance"]["init"]["name"] == "tiny"
    code, out, err = run(*tuned, "--backbone", "clip-rn50")
    assert (code, out) == (2, "")
    assert "model.backbone: 'clip-rn50', but train.init, 'starter', was made with 'timm:" in err
    assert run(*tuned, "--no-pretrained")[0] == 2
    code, _, err = run("train", "--weights", "resnet18.pth", "--no-pretrained")
    assert code == 2
    assert "--weights starts from weights, --no-pretrained from random ones" in err
    code, _, err = run("train", "--resume", "runs/latest", "--init", "./other")
    assert code == 2
    assert "train.init: was 'starter', now './other'" in err


class Screen:
    """A terminal with a clock of its own."""

    def __init__(self):
        self.now = 0.0
        console = RichConsole(
            file=io.StringIO(), force_terminal=True, width=200, get_time=lambda: self.now
        )
        self.bar = TrainingBar(Console(console, bars=True))

    def text(self):
        """What the bar says, with each run of spaces as one."""
        # Asked long enough after the last time to be drawn anew.
        self.now += 1
        shown = self.bar._progress.get_renderable()
        console = RichConsole(file=io.StringIO(), width=200, get_time=lambda: self.now)
        console.print(shown)
        return " ".join(console.file.getvalue().split())


@pytest.fixture
def screen():
    screen = Screen()
    with screen.bar:
        yield screen


def test_the_rate_is_that_of_steps_done_here_with_the_validations_between_them(screen):
    screen.bar.started(epochs=100, steps=10, done=500)
    assert "-:--:--" in screen.text()
    for step in range(100):
        # Two seconds a step, and twenty for a validation after every ten steps: four a step.
        screen.now += 2 + 20 * (step % 10 == 9)
        screen.bar.stepped(3.0)
    # The first of the hundred began before anything was measured.
    text = screen.text()
    assert "600/1000 4.0 s each 0:26:4" in text
    assert text.endswith("loss 3.00")


def test_steps_that_take_minutes_have_a_rate(screen):
    screen.bar.started(epochs=1, steps=10)
    for _ in range(3):
        screen.now += 120
        screen.bar.stepped(3.0)
    assert "3/10 120.0 s each 0:14:00" in screen.text()


def test_nothing_is_drawn_where_there_is_no_terminal():
    console = RichConsole(file=io.StringIO())
    with TrainingBar(Console(console, bars=False)) as bar:
        bar.started(epochs=1, steps=2)
        bar.stepped(1.0)
    assert console.file.getvalue() == ""
