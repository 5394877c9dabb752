import json
from dataclasses import asdict, replace

import pytest

from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.data.prepared.manifest import (
    FORMAT,
    JOURNAL,
    MANIFEST,
    PreprocessConfig,
    prepared_paths,
    totals,
)
from crowdcount.errors import BadInputError, ConfigError, InputMissingError
from tests.prepared_sets import manifest, record


def test_manifests_come_back_as_they_were_written(written, tmp_path):
    images = record("train", "a.jpg"), record("test", "deep/b.png")
    data = written(*images, held_out=("a.jpg",))
    assert data.manifest == manifest(*images, held_out=("a.jpg",))
    assert data.name == "street"


def test_a_folder_that_was_never_prepared_says_what_to_run(tmp_path):
    with pytest.raises(InputMissingError, match="not a prepared data set") as caught:
        PreparedDataset.open(tmp_path)
    assert "crowdcount preprocess" in caught.value.next_step


def test_an_unfinished_folder_says_so(tmp_path):
    (tmp_path / JOURNAL).write_text("")
    with pytest.raises(InputMissingError, match="not finished"):
        PreparedDataset.open(tmp_path)


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("images.0.width", {"width": 0}),
        ("images.0.height", {"height": 2**40}),
        ("images.0.orientation", {"orientation": 9}),
        ("images.0.heads", {"heads": -1}),
        ("images.0.heads_cut", {"heads_cut": "many"}),
        ("images.0.file", {"file": "1\0.jpg"}),
    ],
)
def test_an_impossible_value_is_named(written, tmp_path, key, changes):
    written(record("test", "1.jpg"))
    content = json.loads((tmp_path / MANIFEST).read_text())
    content["images"][0] |= changes
    (tmp_path / MANIFEST).write_text(json.dumps(content))
    with pytest.raises(BadInputError, match=key):
        PreparedDataset.open(tmp_path)


@pytest.mark.parametrize("largest", [0, 5, 10**30])
def test_an_m_that_does_not_follow_from_the_settings_is_refused(written, tmp_path, largest):
    written(record("test", "1.jpg"))
    content = json.loads((tmp_path / MANIFEST).read_text())
    (tmp_path / MANIFEST).write_text(json.dumps(content | {"max_count": largest}))
    with pytest.raises(BadInputError, match=f"max_count: {largest} does not follow"):
        PreparedDataset.open(tmp_path)


@pytest.mark.parametrize(
    "content", ["", "{}", "[1]", "7", '{"format": 1}', '{"format": 1, "name": 2}']
)
def test_a_damaged_manifest_is_refused(tmp_path, content):
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(BadInputError, match="not a manifest"):
        PreparedDataset.open(tmp_path)


def test_unknown_keys_of_a_manifest_are_refused(written, tmp_path):
    data = written(record("test", "1.jpg"))
    for content in (asdict(data.manifest) | {"heldout": []}, asdict(data.manifest)):
        if "heldout" not in content:
            content["images"][0]["head"] = 3
        (tmp_path / MANIFEST).write_text(json.dumps(content))
        with pytest.raises(BadInputError, match=r"(heldout|images\.0\.head): no such"):
            PreparedDataset.open(tmp_path)


def test_a_later_format_is_refused(written, tmp_path):
    data = written(record("test", "1.jpg"))
    text = json.dumps(asdict(data.manifest) | {"format": FORMAT + 1})
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(BadInputError, match="format 2; this version of crowdcount reads format 1"):
        PreparedDataset.open(tmp_path)


def test_images_that_differ_in_their_ending_have_files_of_their_own(tmp_path):
    one = prepared_paths(tmp_path, split="train", file="a.jpg")
    other = prepared_paths(tmp_path, split="train", file="a.png")
    assert not set(one) & set(other)


def test_totals_are_sums():
    images = (
        record("train", "a", heads=2),
        replace(record("train", "b", heads=5), heads_cut=3, dropped=4),
    )
    assert asdict(totals(images)) == {
        "images": 2,
        "heads": 7,
        "outside": 0,
        "duplicates": 2,
        "blocks_corrected": 0,
        "heads_cut": 3,
        "dropped": 4,
    }


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"block": 0}, "block"),
        ({"smallest_head": 0}, "smallest_head"),
        ({"block": 1025}, "block"),
        ({"max_count": 0}, "max_count"),
        ({"max_count": 65}, "max_count"),
        ({"val_fraction": 1.0}, "val_fraction"),
        ({"val_fraction": -0.1}, "val_fraction"),
        ({"val_fraction": float("nan")}, "val_fraction"),
        ({"calibration_fraction": 1.0}, "calibration_fraction"),
        ({"calibration_fraction": -0.1}, "calibration_fraction"),
        ({"calibration_fraction": float("nan")}, "calibration_fraction"),
        ({"val_fraction": 0.5, "calibration_fraction": 0.5}, "val_fraction and"),
        ({"seed": -1}, "seed"),
        ({"folds": 1}, "folds: expected at least 2"),
        ({"block": True}, "block"),
    ],
)
def test_nonsense_is_refused_by_name(wrong, key):
    with pytest.raises(ConfigError, match=rf"preprocess\.{key}"):
        PreprocessConfig(**wrong)


def test_the_largest_observable_count_is_that_of_the_paper():
    assert PreprocessConfig().largest_count == 4
    assert PreprocessConfig(block=16, smallest_head=4).largest_count == 16


def test_a_count_that_is_given_replaces_that_of_the_paper():
    assert PreprocessConfig(block=8, smallest_head=4, max_count=3).largest_count == 3


def test_a_manifest_from_before_there_was_a_max_count_still_opens(written, tmp_path):
    data = written(record("train", "a.jpg"))
    content = asdict(data.manifest)
    del content["settings"]["max_count"]
    (tmp_path / MANIFEST).write_text(json.dumps(content))
    assert PreparedDataset.open(tmp_path).manifest == data.manifest
