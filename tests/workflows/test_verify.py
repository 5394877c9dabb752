import logging
import shutil

import pytest

from crowdcount.data.prepared.manifest import JOURNAL, MANIFEST
from crowdcount.errors import InputMissingError, UsageError, ValidationError
from crowdcount.workflows.preprocess import preprocess
from crowdcount.workflows.verify import verify


@pytest.fixture
def folder(prepared, tmp_path):
    return shutil.copytree(prepared.folder, tmp_path / "square")


@pytest.mark.parametrize("jobs", [1, 3])
def test_what_was_prepared_is_right(prepared, jobs):
    assert verify(prepared.folder, jobs=jobs) == prepared.manifest


def test_a_few_problems_are_said_and_all_are_in_the_log(folder, caplog):
    images = sorted((folder / "train" / "images").iterdir())
    for path in images[:7]:
        path.unlink()
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ValidationError) as caught:
        verify(folder, jobs=2)
    message = caught.value.message
    assert message.startswith(f"{folder}: 7 things are not as the manifest says: train/images/")
    assert message.endswith(" and 2 more")
    assert message.count("No such file") == 5
    for path in images[:7]:
        assert f"{path.relative_to(folder)}: No such file" in caplog.text
    assert "same crowdcount preprocess again" in caught.value.next_step
    assert caught.value.exit_code == 6


def test_what_is_wrong_is_right_after_the_same_preprocess(scenes, folder):
    (folder / "train/points/scene_0001.jpg.npy").write_bytes(b"damaged")
    (folder / "test/images/scene_0002.jpg").unlink()
    (folder / "train/images/of_nobody.jpg").write_bytes(b"")
    with pytest.raises(ValidationError, match="3 things"):
        verify(folder)
    preprocess(scenes, out=folder)
    verify(folder)


def test_a_damaged_manifest_fails_the_check(folder):
    (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes()[:-100])
    with pytest.raises(ValidationError, match="not a manifest"):
        verify(folder)


def test_only_prepared_folders_can_be_verified(folder, scenes):
    with pytest.raises(InputMissingError, match="is not a prepared data set"):
        verify(scenes)
    (folder / MANIFEST).rename(folder / JOURNAL)
    with pytest.raises(InputMissingError, match="not finished"):
        verify(folder)


def test_no_job_is_refused(prepared):
    with pytest.raises(UsageError, match="jobs"):
        verify(prepared.folder, jobs=0)


def test_progress_is_reported(prepared):
    seen = []

    def track(items, *, label, total=None):
        seen.append((label, total))
        return items

    verify(prepared.folder, track=track)
    assert seen == [("verify square", 11)]
