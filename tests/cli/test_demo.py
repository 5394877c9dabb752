"""`crowdcount demo` in a shell: what it would do, and what it refuses to replace."""

import os
import signal
from pathlib import Path

import pytest

from crowdcount.workflows import demo


def test_a_dry_run_describes_the_demo_and_writes_nothing(run, workplace):
    code, out, err = run("demo", "--dry-run")
    assert (code, out) == (0, "")
    assert "crowdcount-demo" in err
    assert not list(workplace.iterdir())


def test_a_folder_that_is_no_demo_is_refused(run, workplace):
    Path("mine").mkdir()
    Path("mine/thesis.txt").write_text("all of it")
    for more in ([], ["--dry-run"]):
        code, out, err = run("demo", "--out", "mine", *more)
        assert (code, out) == (2, "")
        assert err.startswith("error: mine: ")
    assert Path("mine/thesis.txt").read_text() == "all of it"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_demo_exits_with_the_code_of_its_signal(
    run, workplace, monkeypatch, number, code
):
    monkeypatch.setattr(demo, "run_demo", lambda *_, **__: os.kill(os.getpid(), number))
    assert run("demo")[0] == code
