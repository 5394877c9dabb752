"""What all commands share: help, streams, progress, the choice of a checkpoint."""

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pyte
import pytest
import torch
from typer.main import get_command

import crowdcount
from crowdcount.cli import app, main
from crowdcount.core.precision import PRECISIONS

ROOT = Path(__file__).parents[2]


def commands(group, prefix=""):
    """Every command by what a user types, those of groups too."""
    found = {}
    for name, each in group.commands.items():
        found[prefix + name] = each
        if hasattr(each, "commands"):
            found |= commands(each, f"{prefix}{name} ")
    return found


COMMANDS = commands(get_command(app))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_an_example(run, command):
    code, out, _ = run(*command.split(), "-h")
    assert code == 0
    assert f"Example: crowdcount {command}" in out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_its_place_in_the_readme(command):
    name, _, part = command.partition(" ")
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    # A group has one row, which names its commands.
    assert any(
        f"`crowdcount {name}" in line and (not part or f"`{part}`" in line) for line in lines
    )


def test_every_option_of_every_command_says_what_it_does():
    for name, command in COMMANDS.items():
        for parameter in command.params:
            assert getattr(parameter, "help", None), (name, parameter.name)


def test_every_command_takes_the_common_options():
    for name, command in COMMANDS.items():
        flags = {flag for parameter in command.params for flag in parameter.opts}
        assert (
            hasattr(command, "commands") or {"-q", "-v", "--log-file", "--no-progress"} <= flags
        ), name


def test_version(run):
    assert run("--version") == (0, f"crowdcount {crowdcount.__version__}\n", "")


def test_unknown_option_exits_2(run):
    assert run("predict", "--sclae", "1", "x.jpg")[0] == 2


def test_the_environment_names_a_checkpoint(run, photos, checkpoint, monkeypatch):
    monkeypatch.setenv("CROWDCOUNT_CHECKPOINT", str(checkpoint))
    assert run("predict", "a.png")[0] == 0


def test_without_a_run_the_starter_counts_and_stderr_says_so(run, photos, data, starter):
    code, out, err = run("predict", "a.png")
    assert (code, err) == (0, "model starter (ships with crowdcount)\n")
    assert run("predict", "-q", "a.png") == (0, out, "")
    assert run("predict", "a.png", "--checkpoint", "starter") == (0, out, err)
    code, _, err = run("eval")
    assert code == 0
    assert err.startswith("model starter (ships with crowdcount), split val of square\n")
    assert run("eval", "--checkpoint", "starter")[2] == err


def test_the_starter_by_name_counts_where_there_is_a_run(run, data, starter, trained):
    image = data.image_path(data.records("val")[0])
    assert "ships with" not in run("predict", image)[2]
    assert "ships with" in run("predict", image, "--checkpoint", "starter")[2]


def test_a_folder_called_starter_is_written_with_its_directory(run, photos, no_starter, checkpoint):
    shutil.copytree(checkpoint, "starter")
    code, out, err = run("predict", "a.png", "--checkpoint", "starter")
    assert (code, out) == (3, "")
    assert "./starter" in err
    code, _, err = run("predict", "a.png", "--checkpoint", "./starter")
    assert (code, err) == (0, "model starter\n")


def test_quiet_says_nothing_but_errors(run, photos, checkpoint):
    assert run("predict", "-q", "a.png", "--checkpoint", checkpoint)[2] == ""
    assert "broken.jpg" in run("predict", "-q", "broken.jpg", "--checkpoint", checkpoint)[2]


def test_the_log_file_holds_what_stderr_said(run, photos, checkpoint):
    run("predict", "-q", "--log-file", "logs/run.log", "a.png", "--checkpoint", checkpoint)
    assert "model" in Path("logs/run.log").read_text()


def test_an_unknown_device_is_a_usage_error(run, photos, checkpoint):
    code, _, err = run("predict", "a.png", "--device", "warp", "--checkpoint", checkpoint)
    assert code == 2
    assert "device" in err


@pytest.mark.parametrize("precision", PRECISIONS)
def test_precision_is_what_the_network_computes_with(run, data, photos, checkpoint, precision):
    files = {path: path.read_bytes() for path in checkpoint.iterdir()}
    commands = (
        ("predict", "--json", "a.png", "--checkpoint", checkpoint),
        ("eval", "--json", "--checkpoint", checkpoint),
    )
    for command in commands:
        used = {}  # the last of each convolution: loading folds its weights in float32
        hook = torch.nn.modules.module.register_module_forward_hook(
            lambda module, given, result, used=used: (
                used.update({module: result.dtype}) if isinstance(module, torch.nn.Conv2d) else None
            )
        )
        try:
            code, out, err = run(*command, "--precision", precision)
        finally:
            hook.remove()
        assert (code, set(used.values())) == (0, {PRECISIONS[precision]})
        _, exact_out, exact_err = run(*command)
        told, exact = json.loads(out), json.loads(exact_out)
        assert err == exact_err
        if command[0] == "predict":
            (told,), (exact,) = told, exact
        measured = "count" if command[0] == "predict" else "mae"
        assert told[measured] == pytest.approx(exact[measured], rel=0.02)
        assert {key: type(value) for key, value in told.items()} == {
            key: type(value) for key, value in exact.items()
        }
    assert {path: path.read_bytes() for path in checkpoint.iterdir()} == files


@pytest.mark.parametrize("command", [("predict", "a.png"), ("eval",)])
def test_an_unknown_precision_is_a_usage_error(run, data, photos, checkpoint, command):
    code, out, err = run(*command, "--precision", "fp8", "--checkpoint", checkpoint)
    assert (code, out) == (2, "")
    assert "precision: expected fp32, bf16 or fp16, got 'fp8'" in err


@pytest.fixture
def on_a_terminal(monkeypatch):
    """Run a command whose stderr is a terminal, or ``both`` streams; returns what it writes."""

    def run_command(*arguments, term, both=False):
        ours, theirs = pty.openpty()
        written = []

        def read():
            with contextlib.suppress(OSError):  # Linux raises it when the other side is closed
                while piece := os.read(ours, 65536):
                    written.append(piece)

        reader = threading.Thread(target=read)
        reader.start()
        with monkeypatch.context() as patch, open(theirs, "w") as terminal:  # noqa: PTH123
            for stream in ("stderr", "stdout") if both else ("stderr",):
                patch.setattr(sys, stream, terminal)
            patch.setattr(sys, "argv", ["crowdcount", *arguments])
            patch.setenv("TERM", term)
            with contextlib.suppress(SystemExit):
                main()
        reader.join()
        os.close(ours)
        return b"".join(written).decode()

    return run_command


def test_bars_are_drawn_on_a_terminal_unless_forbidden(data, on_a_terminal):
    assert "counting windows" in on_a_terminal("bins", "--dry-run", term="xterm")
    for arguments, term in ((("--dry-run",), "dumb"), (("--dry-run", "--no-progress"), "xterm")):
        out = on_a_terminal("bins", *arguments, term=term)
        assert "counting windows" not in out
        assert "stands for" in out


def screen(written):
    """The lines that stay on a terminal of 100 columns."""
    lines = pyte.Screen(100, 30)
    pyte.Stream(lines).feed(written.replace("\t", "  "))
    return [line.rstrip() for line in lines.display if line.strip()]


def test_counts_stay_alone_on_the_screen(photos, checkpoint, on_a_terminal):
    """A bar is gone before a count is printed, and one image has none."""
    arguments = ("predict", "--checkpoint", str(checkpoint), "a.png")
    written = on_a_terminal(*arguments, term="xterm", both=True)
    assert "counting" not in written
    model, count = screen(written)
    assert model.startswith("model ")
    assert re.fullmatch(r"a\.png +\d+\.\d", count)
    written = on_a_terminal(*arguments, "tiny.png", "a.png", term="xterm", both=True)
    assert "counting" in written
    _, *counts = screen(written)
    assert [line.split()[0] for line in counts] == ["a.png", "tiny.png", "a.png"]
    assert all(re.fullmatch(r"\S+ +\d+\.\d", line) for line in counts)


def test_forced_colours_draw_no_bars_in_a_pipe(run, data, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    _, _, err = run("bins", "--dry-run")
    assert "counting windows" not in err
    assert "\x1b[33mwarning" in err
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[33m" not in run("bins", "--dry-run")[2]


def shell(command):
    """Run a command line in bash, with ``crowdcount`` as this version."""
    line = f'crowdcount() {{ {sys.executable} -m crowdcount "$@"; }}; set -o pipefail; {command}'
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True)


def test_a_closed_pipe_ends_quietly():
    # The first two write when they end; the third writes more than is kept back until then.
    commands = "crowdcount datasets list; crowdcount datasets list --json; crowdcount docs training"
    result = shell(f"({commands}) | true")
    assert (result.returncode, result.stderr) == (0, "")


def test_a_full_disk_under_stdout_is_one_error():
    result = shell("crowdcount datasets list --json > /dev/full")
    assert result.returncode == 1
    assert result.stderr == (
        "error: output: no space left on device\n"
        "  next step   make room on that disk, and run the command again\n"
    )


WRITING = {
    "predict -o": ("predict", "a.png", "-o", "file/counts.txt"),
    "predict --heatmap": ("predict", "a.png", "--heatmap-dir", "file/heatmaps"),
    "eval --csv": ("eval", "--split", "test", "--csv", "file/images.csv"),
    "train": ("train", "--out", "file/run"),
    "bins": ("bins", "-o", "file/bins.json"),
    "bins --png": ("bins", "--png", "file/bins.png"),
    "preprocess": ("preprocess", "scenes", "--out", "file/prepared"),
    "datasets show": ("datasets", "show", "data/square", "-o", "file/show.png"),
    "datasets correction": ("datasets", "correction", "data/square", "--png", "file/c.png"),
    "models pack": ("models", "pack", "tiny", "-o", "file/packed"),
    "demo": ("demo", "--out", "file/demo"),
    "log file": ("models", "list", "--log-file", "file/log.txt"),
}
"""Every command that writes, told to write below a file."""


@pytest.mark.parametrize("name", WRITING)
def test_a_place_that_cannot_be_written_to_is_one_error(
    run, data, photos, scenes, checkpoint, name
):
    Path("file").touch()
    Path("scenes").symlink_to(scenes)
    shutil.copytree(checkpoint, "tiny")
    command = WRITING[name]
    if command[0] in ("predict", "eval"):
        command += ("--checkpoint", "tiny")
    code, out, err = run(*command)
    assert (code, "Traceback" in err) == (1, False), err
    *_, problem, advice = err.splitlines()
    assert re.match(r"error: (.*/)?file[/:]", problem)
    assert "is a file" in advice or "file is where" in advice
    assert out.startswith("mae\t") if name == "eval --csv" else out == ""


def test_a_log_file_on_a_full_disk_is_one_error(run, photos, checkpoint):
    code, _, err = run("predict", "a.png", "--checkpoint", checkpoint, "--log-file", "/dev/full")
    assert (code, "Traceback" in err) == (1, False)
    assert "error: /dev/full: no space left on device\n" in err


def test_a_name_cannot_fake_a_line_of_stderr(run, photos, checkpoint):
    shutil.copy("a.png", "x\nerror: fake.png")
    shutil.copy("broken.jpg", "y\nerror: fake.png")
    code, _, err = run(
        "predict",
        "--heatmap",
        "x\nerror: fake.png",
        "y\nerror: fake.png",
        "--checkpoint",
        checkpoint,
    )
    assert code == 4, err
    assert "\nerror: fake.png" not in err
    assert "heatmaps/x\\nerror: fake.png.png" in err


SIGNAL_WHILE_IMPORTING = """
import os, signal, sys
import crowdcount.__main__

class Finder:
    def find_spec(self, name, path, target=None):
        if name == "typer":
            os.kill(os.getpid(), getattr(signal, sys.argv[1]))

sys.meta_path.insert(0, Finder())
crowdcount.__main__.main()
"""


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_while_the_program_loads_ends_it_quietly(name, code):
    result = subprocess.run(
        [sys.executable, "-c", SIGNAL_WHILE_IMPORTING, name], capture_output=True, text=True
    )
    assert (result.returncode, result.stdout, result.stderr) == (code, "", "")


@pytest.mark.parametrize("raised", [KeyboardInterrupt, ImportError])
def test_a_signal_stops_every_command(run, monkeypatch, raised):
    from crowdcount.workflows import models

    def receives_a_signal(*_, **__):
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            # A library may turn it into an error of its own.
            raise raised from None

    monkeypatch.setattr(models, "list_backbones", receives_a_signal)
    code, out, err = run("models", "list")
    assert (code, out, err) == (143, "", "error: SIGTERM: stopped\n")
