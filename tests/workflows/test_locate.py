"""What a command means when it is not told, in the order that CLI.md gives."""

from pathlib import Path

import pytest

from crowdcount.errors import InputMissingError, UsageError
from crowdcount.workflows.locate import (
    find_checkpoint,
    find_prepared,
    mark_latest,
    new_run_folder,
    one_data_set,
)


def prepared(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
    return folder


def checkpoint(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


def test_data_given_beats_the_environment_beats_the_data_folder(tmp_path):
    given, named = prepared(tmp_path / "given"), prepared(tmp_path / "named")
    default = prepared(tmp_path / "data" / "sha")
    environment = {"CROWDCOUNT_DATA_DIR": str(named)}
    assert find_prepared([given], environment=environment, directory=tmp_path) == [given]
    assert find_prepared(environment=environment, directory=tmp_path) == [named]
    assert find_prepared(environment={}, directory=tmp_path) == [default]


def test_a_folder_of_data_sets_stands_for_all_of_them_in_order(tmp_path):
    second, first = prepared(tmp_path / "data/shb"), prepared(tmp_path / "data/sha")
    assert find_prepared(environment={}, directory=tmp_path) == [first, second]
    assert find_prepared([tmp_path / "data", first], environment={}) == [first, second]


def test_no_data_says_where_was_looked_and_what_to_do(tmp_path):
    with pytest.raises(InputMissingError) as caught:
        find_prepared(environment={}, directory=tmp_path)
    assert "manifest.json" in str(caught.value)
    assert "crowdcount preprocess" in str(caught.value)


def test_several_data_sets_are_used_together_only_when_chosen():
    several = [Path("data/sha"), Path("data/shb")]
    assert one_data_set(several, chosen=True) == several
    assert one_data_set(several[:1], chosen=False) == several[:1]
    with pytest.raises(UsageError, match=r"data/sha, data/shb"):
        one_data_set(several, chosen=False)


def test_checkpoint_given_beats_the_environment_beats_the_latest_run(tmp_path):
    given, named = checkpoint(tmp_path / "given"), checkpoint(tmp_path / "named")
    best = checkpoint(tmp_path / "runs/one/best")
    mark_latest(tmp_path / "runs/one")
    environment = {"CROWDCOUNT_CHECKPOINT": str(named)}
    assert find_checkpoint(given, environment=environment, directory=tmp_path) == given
    assert find_checkpoint(None, environment=environment, directory=tmp_path) == named
    assert find_checkpoint(None, environment={}, directory=tmp_path) == best.resolve()


def test_latest_moves_on_and_is_relative(tmp_path):
    checkpoint(tmp_path / "runs/one/best")
    two = checkpoint(tmp_path / "runs/two/best")
    mark_latest(tmp_path / "runs/one")
    mark_latest(tmp_path / "runs/two")
    assert find_checkpoint(None, environment={}, directory=tmp_path) == two.resolve()
    assert (tmp_path / "runs/latest").readlink() == Path("two")


def test_a_run_that_was_never_validated_stands_for_its_last_checkpoint(tmp_path):
    last = checkpoint(tmp_path / "run/last")
    assert find_checkpoint(tmp_path / "run", environment={}) == last
    best = checkpoint(tmp_path / "run/best")
    assert find_checkpoint(tmp_path / "run", environment={}) == best


def test_without_a_run_the_starter_is_meant(tmp_path, starter):
    assert find_checkpoint(None, environment={}, directory=tmp_path) == starter
    named = {"CROWDCOUNT_CHECKPOINT": "starter"}
    best = checkpoint(tmp_path / "runs/one/best")
    mark_latest(tmp_path / "runs/one")
    assert find_checkpoint(None, environment={}, directory=tmp_path) == best.resolve()
    assert find_checkpoint(None, environment=named, directory=tmp_path) == starter
    assert find_checkpoint("starter", environment={}, directory=tmp_path) == starter


def test_a_run_without_a_checkpoint_is_not_passed_over_for_the_starter(tmp_path, starter):
    (tmp_path / "runs/one").mkdir(parents=True)
    mark_latest(tmp_path / "runs/one")
    with pytest.raises(InputMissingError, match="no checkpoint"):
        find_checkpoint(None, environment={}, directory=tmp_path)


def test_no_checkpoint_exits_3_and_says_what_to_do(tmp_path, no_starter):
    with pytest.raises(InputMissingError) as caught:
        find_checkpoint(None, environment={}, directory=tmp_path)
    assert caught.value.exit_code == 3
    assert "crowdcount train" in str(caught.value)
    with pytest.raises(InputMissingError, match="no checkpoint"):
        find_checkpoint(tmp_path, environment={})


def test_a_new_run_never_takes_an_old_name(tmp_path):
    names = []
    for _ in range(3):
        folder = new_run_folder("sha-x", date="2026-01-31", runs=tmp_path)
        folder.mkdir()
        names.append(folder.name)
    assert names == ["2026-01-31-sha-x", "2026-01-31-sha-x-2", "2026-01-31-sha-x-3"]
