from pathlib import Path

import pytest

from crowdcount.data.prepared.find import find_prepared, one_data_set
from crowdcount.errors import InputMissingError, UsageError


def prepared(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text("{}")
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
