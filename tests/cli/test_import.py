"""`crowdcount import` in a shell: flags, the folder it writes, exit codes."""

import functools
from pathlib import Path

import pytest

from crowdcount.models.checkpoints.format import load_checkpoint
from tests.models.published_names import write_published_vgg
from tests.models.small_backbones import shrunken


@pytest.fixture
def run(run, workplace):
    """Run ``crowdcount import`` beside a small published file, ``best.pth``."""
    with shrunken():
        write_published_vgg(Path("best.pth"))
        yield functools.partial(run, "import")


def test_flags_act(run):
    code, out, err = run("best.pth", "--bins", "sha", "-o", "imported", "--dry-run")
    assert (code, out) == (0, "")
    assert "to be written to imported" in err
    assert not Path("imported").exists()
    code, _, err = run("best.pth", "--bins", "sha", "-o", "imported", "--backbone", "vgg13")
    assert code == 4
    assert "best.pth: its tensors are those of vgg11, but vgg13 was asked for" in err
    assert "--backbone vgg11" in err
    windows = ("--window", "64", "--block", "8", "--prompts", "digits", "--backbone", "vgg11")
    assert run("best.pth", "--bins", "sha", "-o", "imported", *windows)[0] == 0
    config = load_checkpoint(Path("imported")).model.config
    assert (config.window, config.prompts) == (64, "digits")
    code, _, err = run("best.pth", "--bins", "shb", "-o", "imported")
    assert code == 2
    assert "already exists" in err
    assert run("best.pth", "--bins", "shb", "-o", "imported", "--force")[0] == 0
    assert load_checkpoint(Path("imported")).model.bins.values[-1] == 4.41009
