"""Folders of runs: names, links, locks."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from crowdcount.core.bins import Bins
from crowdcount.errors import InputMissingError, UsageError
from crowdcount.runs.folder import (
    RECORD,
    SETTINGS,
    find_run,
    is_locked,
    locked,
    mark_latest,
    new_run_folder,
)

HOLD = """
import pathlib, sys
from crowdcount.runs.folder import locked

with locked(pathlib.Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def held(tmp_path):
    """A run folder that another process holds the lock of."""
    run = tmp_path / "runs" / "2026-01-31-one"
    run.mkdir(parents=True)
    command = [sys.executable, "-c", HOLD, run]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"locked\n"
        yield run, process
        process.kill()


def take(run):
    with locked(run):
        pass


def test_a_lock_holds_while_its_process_lives_even_if_the_folder_is_replaced(held):
    run, process = held
    for _ in range(2):
        assert is_locked(run)
        with pytest.raises(UsageError, match="another process trains this run"):
            take(run)
        run.rename(run.with_name("away"))
        # A run that is about to begin has no folder yet, and its name is taken all the same.
        name = new_run_folder("one", date="2026-01-31", runs=run.parent).name
        assert name == "2026-01-31-one-2"
        run.mkdir()
    (run.parent / "latest").symlink_to(run.name)
    assert is_locked(run.parent / "latest")
    process.kill()
    process.wait()
    assert not is_locked(run)
    take(run)
    assert not list(run.parent.glob(".*"))


def test_a_system_without_fcntl_locks_nothing(tmp_path):
    code = f"import sys; sys.modules['fcntl'] = None\n{HOLD}"
    command = [sys.executable, "-c", code, tmp_path / "run"]
    process = subprocess.run(command, input=b"", capture_output=True)
    assert process.stdout == b"locked\n", process.stderr
    assert not list(tmp_path.iterdir())


BINS = Bins(block=8, starts=(0, 1), values=(0.0, 1.5))
RUN = {
    **{"data": [], "fold": None, "bins": BINS.to_json()},
    **{"device": "cpu", "threads": 1, "torch": "2", "deterministic": False},
}


@pytest.mark.parametrize("name", [RECORD, SETTINGS])
def test_a_damaged_run_is_left_out_of_auto_and_named(tmp_path, caplog, name):
    for run in ("damaged", "newer", "older"):
        (tmp_path / run).mkdir()
        # By their starts, "older" is the latest.
        (tmp_path / run / RECORD).write_text(json.dumps(RUN | {"started": run}))
        (tmp_path / run / SETTINGS).touch()
    (tmp_path / "damaged" / name).write_text("<html>")
    assert find_run("auto", runs=tmp_path).name == "older"
    assert f"damaged run, {tmp_path / 'damaged'}: " in caplog.text
    for run in ("newer", "older"):
        (tmp_path / run / name).write_text("<html>")
    with pytest.raises(InputMissingError, match="no run to resume"):
        find_run("auto", runs=tmp_path)


@pytest.mark.parametrize("run", ["one", "latest"])
def test_a_folder_that_is_called_latest_stays_as_it_is(tmp_path, caplog, run):
    (tmp_path / "latest").mkdir()
    mark_latest(tmp_path / run)
    assert ("latest is not a link" in caplog.text) == (run == "one")
    assert [(path.name, path.is_symlink()) for path in tmp_path.iterdir()] == [("latest", False)]


def test_latest_moves_on_and_is_relative(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        mark_latest(tmp_path / name)
    assert (tmp_path / "latest").readlink() == Path("two")


def test_a_new_run_never_takes_an_old_name(tmp_path):
    names = []
    for _ in range(3):
        folder = new_run_folder("sha-x", date="2026-01-31", runs=tmp_path)
        folder.mkdir()
        names.append(folder.name)
    assert names == ["2026-01-31-sha-x", "2026-01-31-sha-x-2", "2026-01-31-sha-x-3"]
