import io
import json
import tracemalloc
from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image

from crowdcount.core.image import Sample
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.data.prepared.manifest import (
    FORMAT,
    JOURNAL,
    MANIFEST,
    Hashes,
    ImageRecord,
    Manifest,
    PreprocessConfig,
    prepared_paths,
    totals,
)
from crowdcount.data.sources.annotations import PointsFormat
from crowdcount.data.sources.resize import ResizeRule
from crowdcount.errors import BadInputError, ConfigError, InputMissingError, UsageError


def record(split, file, heads=3):
    return ImageRecord(
        split=split,
        file=file,
        source=f"{split}_data/images/{file}",
        width=64,
        height=32,
        source_width=60,
        source_height=30,
        orientation=1,
        heads=heads,
        outside=0,
        duplicates=1,
        blocks_corrected=0,
        heads_cut=0,
        sha256=Hashes(source="a", annotation="b", image="c", points="d", blocks="e"),
    )


def manifest(*images, held_out=()):
    return Manifest(
        format=FORMAT,
        versions={"crowdcount": ("0",)},
        name="street",
        title="Street",
        recipe="csv",
        recipe_sha256="0",
        settings=PreprocessConfig(),
        max_count=4,
        resize=ResizeRule(short_side_min=448),
        points=PointsFormat(reader="csv"),
        complete=True,
        reasons=(),
        release=None,
        totals={},
        unpaired={},
        held_out=held_out,
        images=images,
    )


@pytest.fixture
def written(tmp_path):
    def write(*images, held_out=()):
        text = json.dumps(asdict(manifest(*images, held_out=held_out)))
        (tmp_path / MANIFEST).write_text(text)
        return PreparedDataset.open(tmp_path)

    return write


def files(records):
    return [each.file for each in records]


def test_a_fold_takes_the_place_of_the_validation_split(written, tmp_path):
    images = [record("train", f"{n}.jpg") for n in range(4)]
    data = written(*images, record("val", "official.jpg"))
    folds = (("0.jpg", "1.jpg"), ("2.jpg", "3.jpg"))
    data = replace(data, manifest=replace(data.manifest, folds=folds))
    view = data.with_fold(2)
    assert files(view.records("val")) == ["2.jpg", "3.jpg"]
    assert files(view.records("train")) == ["0.jpg", "1.jpg"]
    assert view.all_training() == data.all_training()
    assert (view.fold, data.fold) == (2, None)


def test_a_fold_that_is_not_there_says_what_is(written):
    data = written(record("train", "0.jpg"))
    with pytest.raises(UsageError, match="has no folds") as caught:
        data.with_fold(1)
    assert "--folds" in caught.value.next_step
    data = replace(data, manifest=replace(data.manifest, folds=(("0.jpg",), ())))
    for fold in (0, 3, -1):
        with pytest.raises(UsageError, match=f"no fold {fold}; it has folds 1 to 2"):
            data.with_fold(fold)
    with pytest.raises(UsageError, match="fold 2 holds no image"):
        data.with_fold(2)
    with pytest.raises(UsageError, match="fold 1 holds all images"):
        data.with_fold(1)


def test_manifests_come_back_as_they_were_written(written, tmp_path):
    images = record("train", "a.jpg"), record("test", "deep/b.png")
    data = written(*images, held_out=("a.jpg",))
    assert data.manifest == manifest(*images, held_out=("a.jpg",))
    assert data.name == "street"


def test_held_out_images_are_the_validation_split(written):
    images = [record("train", f"{n}.jpg") for n in range(4)]
    data = written(*images, record("test", "1.jpg"), held_out=("1.jpg",))
    assert data.splits == ("train", "val", "test")
    assert files(data.records("train")) == ["0.jpg", "2.jpg", "3.jpg"]
    assert [each.name for each in data.records("val")] == ["train/1.jpg"]
    assert [each.name for each in data.records("test")] == ["test/1.jpg"]
    assert data.all_training() == tuple(images)


def test_an_official_validation_split_is_used(written):
    data = written(record("train", "1.jpg"), record("val", "1.jpg"))
    assert [each.name for each in data.records("val")] == ["val/1.jpg"]
    assert [each.name for each in data.records("train")] == ["train/1.jpg"]


def test_an_absent_split_names_those_that_are_there(written):
    data = written(record("test", "1.jpg"))
    for split in ("train", "val"):
        with pytest.raises(InputMissingError, match=f"no split '{split}'") as caught:
            data.records(split)
        assert "test" in caught.value.looked_for
    with pytest.raises(InputMissingError, match="no training images"):
        data.all_training()


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
    ],
)
def test_an_impossible_number_is_named(written, tmp_path, key, changes):
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


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"format": 2}'])
def test_a_damaged_manifest_is_refused(tmp_path, content):
    (tmp_path / MANIFEST).write_text(content)
    with pytest.raises(BadInputError, match="not a manifest"):
        PreparedDataset.open(tmp_path)


def test_a_later_format_is_refused(written, tmp_path):
    data = written(record("test", "1.jpg"))
    text = json.dumps(asdict(data.manifest) | {"format": FORMAT + 1})
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(BadInputError, match="format"):
        PreparedDataset.open(tmp_path)


def test_a_sample_is_the_image_with_its_points(written, tmp_path):
    one = record("train", "deep/a.png", heads=1)
    data = written(one)
    image, points, _ = prepared_paths(tmp_path, split="train", file="deep/a.png")
    image.parent.mkdir(parents=True)
    points.parent.mkdir(parents=True)
    Image.new("RGB", (64, 32), (1, 2, 3)).save(image)
    np.save(points, np.array([[5.5, 6.5]]))
    sample = data.sample(one)
    assert isinstance(sample, Sample)
    assert sample.name == "train/deep/a.png"
    assert sample.image.shape == (32, 64, 3)
    assert sample.image[0, 0].tolist() == [1, 2, 3]
    assert sample.points.tolist() == [[5.5, 6.5]]
    assert data.image_path(one) == image


def test_missing_or_damaged_points_say_how_to_mend_them(written, tmp_path):
    one = record("train", "a.jpg")
    data = written(one)
    with pytest.raises(BadInputError, match="cannot be read"):
        data.points(one)
    path = prepared_paths(tmp_path, split="train", file="a.jpg")[1]
    path.parent.mkdir(parents=True)
    path.write_bytes(b"no array")
    with pytest.raises(BadInputError, match="cannot be read"):
        data.points(one)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 2), dtype=np.float32), "float32"),
        (np.zeros((2, 3)), r"\(2, 3\)"),
        (np.zeros(6), r"\(6,\)"),
        (np.zeros((2, 2)), "holds 2 heads, and the manifest says 3"),
        (np.array([[1, 1], [2, 2], [3, np.nan]]), "outside"),
        (np.array([[1, 1], [2, 2], [64, 3.0]]), "outside"),
    ],
)
def test_points_that_are_not_those_of_the_manifest_are_refused(written, tmp_path, array, message):
    one = record("train", "a.jpg")
    data = written(one)
    path = prepared_paths(tmp_path, split="train", file="a.jpg")[1]
    path.parent.mkdir(parents=True)
    np.save(path, array)
    with pytest.raises(BadInputError, match=message):
        data.points(one)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("heads", [0, 1, 3])
def test_points_come_back_however_their_array_lies(written, tmp_path, heads, order):
    one = record("train", "a.jpg", heads=heads)
    points = np.arange(2.0 * heads).reshape(heads, 2)
    data = written(one)
    path = prepared_paths(tmp_path, split="train", file="a.jpg")[1]
    path.parent.mkdir(parents=True)
    np.save(path, np.asarray(points, order=order))
    np.testing.assert_array_equal(data.points(one), points)


def npy_that_claims(*shape):
    content = io.BytesIO()
    header = {"descr": "<f8", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(content, header)
    return content.getvalue() + bytes(48)


@pytest.mark.parametrize("heads", [10**8, 10**12, 10**30, -1])
def test_a_claim_of_more_heads_than_the_file_holds_takes_no_memory(written, tmp_path, heads):
    one = record("train", "a.jpg")
    data = written(one)
    path = prepared_paths(tmp_path, split="train", file="a.jpg")[1]
    path.parent.mkdir(parents=True)
    path.write_bytes(npy_that_claims(heads, 2))
    tracemalloc.start()
    try:
        with pytest.raises(BadInputError, match="cannot be read"):
            data.points(one)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


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
