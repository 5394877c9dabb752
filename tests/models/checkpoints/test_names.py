"""Names of checkpoints: the shipped one, folders, runs."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import crowdcount
from crowdcount.errors import InputMissingError
from crowdcount.files import point_link
from crowdcount.models.checkpoints.names import (
    resolve_checkpoint,
    starter_folder,
    starter_ships,
)
from crowdcount.workflows.counter import load


def described(folder):
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def found(given, **options):
    return resolve_checkpoint(given, **options).path


def test_the_name_alone_is_the_shipped_one_and_a_path_never_is(starter, workplace):
    own = described(Path("starter"))
    assert found("starter") == starter
    assert found("./starter") == own
    assert found(own) == own
    assert str(resolve_checkpoint("starter")) == "starter (ships with crowdcount)"
    assert str(resolve_checkpoint("./starter")) == "starter"


def test_a_run_stands_for_its_best_or_else_its_last(tmp_path):
    last = described(tmp_path / "run/last")
    assert found(tmp_path / "run") == last
    best = described(tmp_path / "run/best")
    assert found(str(tmp_path / "run")) == best
    assert found(best) == best


def test_a_missing_checkpoint_is_reported_with_the_places_searched(tmp_path, no_starter):
    with pytest.raises(InputMissingError, match=r"no model ships .*\n.*written \./starter"):
        found("starter")
    with pytest.raises(InputMissingError, match="no checkpoint"):
        found(tmp_path)


def test_checkpoint_given_beats_the_environment_beats_the_latest_run(tmp_path):
    given, named = described(tmp_path / "given"), described(tmp_path / "named")
    best = described(tmp_path / "runs/one/best")
    point_link(tmp_path / "runs/latest", tmp_path / "runs/one")
    environment = {"CROWDCOUNT_CHECKPOINT": str(named)}
    assert found(given, environment=environment, directory=tmp_path) == given
    assert found(None, environment=environment, directory=tmp_path) == named
    assert found(None, environment={}, directory=tmp_path) == best.resolve()


def test_without_a_run_the_starter_is_meant(tmp_path, starter):
    assert found(None, environment={}, directory=tmp_path) == starter
    named = {"CROWDCOUNT_CHECKPOINT": "starter"}
    best = described(tmp_path / "runs/one/best")
    point_link(tmp_path / "runs/latest", tmp_path / "runs/one")
    assert found(None, environment={}, directory=tmp_path) == best.resolve()
    assert found(None, environment=named, directory=tmp_path) == starter
    assert found("starter", environment={}, directory=tmp_path) == starter


def test_a_run_without_a_checkpoint_is_not_passed_over_for_the_starter(tmp_path, starter):
    (tmp_path / "runs/one").mkdir(parents=True)
    point_link(tmp_path / "runs/latest", tmp_path / "runs/one")
    with pytest.raises(InputMissingError, match="no checkpoint"):
        found(None, environment={}, directory=tmp_path)


def test_no_checkpoint_exits_3_and_says_what_to_do(tmp_path, no_starter):
    with pytest.raises(InputMissingError) as caught:
        found(None, environment={}, directory=tmp_path)
    assert caught.value.exit_code == 3
    assert "crowdcount train" in str(caught.value)
    with pytest.raises(InputMissingError, match="no checkpoint"):
        found(tmp_path, environment={})


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


def test_a_latest_run_without_a_checkpoint_gives_way_to_the_newest_that_has_one(
    tmp_path, starter, caplog
):
    for second, name in enumerate(("new", "old")):
        described(tmp_path / f"runs/{name}/best")
        os.utime(tmp_path / "runs" / name, (-second, -second))
    latest = tmp_path / "runs/latest"
    latest.symlink_to("moved")
    assert found(None, directory=tmp_path) == tmp_path / "runs/new/best"
    assert "runs/latest holds no checkpoint" in caplog.text
    latest.unlink()
    latest.mkdir()
    assert found(None, directory=tmp_path) == tmp_path / "runs/new/best"


def test_a_latest_run_that_is_gone_is_never_silently_the_starter(tmp_path, starter):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/latest").symlink_to("moved")
    with pytest.raises(InputMissingError, match="points at moved, which holds no checkpoint"):
        found(None, directory=tmp_path)
    assert found("starter", directory=tmp_path) == starter  # as the error advises
