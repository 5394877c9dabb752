import io
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from crowdcount.core.image import Sample
from crowdcount.data.prepared.manifest import prepared_paths
from crowdcount.errors import BadInputError, InputMissingError, UsageError
from tests.prepared_sets import record


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


def test_held_out_images_are_the_validation_split(written):
    images = [record("train", f"{n}.jpg") for n in range(4)]
    data = written(*images, record("test", "1.jpg"), held_out=("1.jpg",))
    assert data.splits == ("train", "val", "test")
    assert files(data.records("train")) == ["0.jpg", "2.jpg", "3.jpg"]
    assert [each.name for each in data.records("val")] == ["train/1.jpg"]
    assert [each.name for each in data.records("test")] == ["test/1.jpg"]
    assert data.all_training() == tuple(images)


def test_a_split_without_images_is_none(written):
    images = (record("train", "1.jpg"), record("test", "1.jpg"))
    assert written(*images, held_out=("2.jpg",)).splits == ("train", "test")
    data = written(*images, held_out=("1.jpg",))
    assert data.splits == ("val", "test")
    with pytest.raises(InputMissingError, match="no split 'train'"):
        data.records("train")


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
