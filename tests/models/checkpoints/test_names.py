"""Names of checkpoints: the shipped one, folders, runs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import crowdcount
from crowdcount.errors import InputMissingError
from crowdcount.models.checkpoints.names import (
    called,
    checkpoint_folder,
    starter_folder,
    starter_ships,
)
from crowdcount.workflows.counter import load


def described(folder):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def test_the_name_alone_is_the_shipped_one_and_a_path_never_is(starter, workplace):
    own = described(Path("starter"))
    assert checkpoint_folder("starter") == starter
    assert checkpoint_folder("./starter") == own
    assert checkpoint_folder(own) == own
    assert called(starter) == "starter (ships with crowdcount)"
    assert called(own) == "starter"


def test_a_run_stands_for_its_best_or_else_its_last(tmp_path):
    last = described(tmp_path / "run/last")
    assert checkpoint_folder(tmp_path / "run") == last
    best = described(tmp_path / "run/best")
    assert checkpoint_folder(str(tmp_path / "run")) == best
    assert checkpoint_folder(best) == best


def test_what_is_not_there_says_where_was_looked(tmp_path, no_starter):
    with pytest.raises(InputMissingError, match=r"no model ships .*\n.*written \./starter"):
        checkpoint_folder("starter")
    with pytest.raises(InputMissingError, match="no checkpoint"):
        checkpoint_folder(tmp_path)


def test_it_lies_inside_the_package():
    assert starter_folder() == Path(crowdcount.__file__).parent / "starter"


def test_the_api_takes_its_name(starter, workplace):
    Image.new("RGB", (64, 64)).save("a.png")
    found = crowdcount.load("starter", device="cpu").count("a.png")
    assert found.total == load(starter, device="cpu").count("a.png").total


@pytest.mark.skipif(not starter_ships(), reason="this version ships no starter")
def test_the_shipped_one_is_small_and_counts(prepared):
    assert sum(path.stat().st_size for path in starter_folder().iterdir()) <= 12 * 2**20
    counter = load("starter", device="cpu")
    assert counter.name == "starter"
    assert counter.count(np.zeros((448, 640, 3), dtype=np.uint8)).total < 3
    fullest = max(prepared.records("test"), key=lambda each: each.heads)
    assert counter.count(prepared.image_path(fullest)).total > 3
