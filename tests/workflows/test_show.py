"""Summaries by hand, images by name or by a spread choice, and a sheet of any of them."""

import io
import itertools
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.data.prepared.manifest import prepared_paths
from crowdcount.errors import BadInputError, InputMissingError, UsageError
from crowdcount.workflows.show import choose, draw_sheet, summaries, summary
from tests import prepared_sets


def record(file, heads=0, *, split="train", width=100, height=50):
    return prepared_sets.record(split, file, heads, width=width, height=height)


def with_images(data, *records):
    """The data set as if it had these images and held none out."""
    return replace(data, manifest=replace(data.manifest, images=records, held_out=()))


def names(records):
    return [each.name for each in records]


def test_summary_by_hand():
    found = summary(
        [
            record("a", 0),
            record("b", 7, width=200),
            record("c", 30),
            record("d", 13, width=100, height=100),
        ]
    )
    assert (found.images, found.empty, found.heads) == (4, 1, 50)
    assert (found.smallest, found.median, found.mean, found.largest) == (0, 10.0, 12.5, 30)
    # 5,000 + 10,000 + 5,000 + 10,000 pixels.
    assert found.heads_per_megapixel == pytest.approx(50 / 0.03)
    assert (found.sizes, found.least_size, found.most_size) == (3, (100, 50), (200, 50))
    assert found.histogram == ((0, 0, 1), (1, 9, 1), (10, 19, 1), (20, 49, 1))


@given(st.lists(st.integers(0, 200_000), min_size=1, max_size=40))
def test_every_image_is_in_one_range_of_the_histogram(heads):
    histogram = summary([record(str(n), count) for n, count in enumerate(heads)]).histogram
    for low, high, images in histogram:
        assert images == sum(low <= count <= high for count in heads)
    assert sum(images for _, _, images in histogram) == len(heads)
    assert histogram[0][2] > 0
    assert histogram[-1][2] > 0
    for (_, high, _), (low, _, _) in itertools.pairwise(histogram):
        assert low == high + 1


def test_every_split_is_summed_up_from_the_manifest_alone(prepared, tmp_path):
    # Nothing but the manifest is there.
    shutil.copy(prepared.folder / "manifest.json", tmp_path)
    found = summaries(PreparedDataset.open(tmp_path))
    assert list(found) == ["train", "val", "test"]
    assert sum(each.images for each in found.values()) == len(prepared.manifest.images)
    assert sum(each.heads for each in found.values()) == sum(
        each.heads for each in prepared.manifest.images
    )


def test_images_are_chosen_from_sparse_scenes_and_dense_ones(prepared):
    crowd = with_images(prepared, *(record(f"{n:03}.jpg", n) for n in range(100)))
    chosen = choose(crowd, number=10, seed=1)
    assert [each.heads // 10 for each in chosen] == list(range(10))
    assert choose(crowd, number=10, seed=1) == chosen
    assert choose(crowd, number=10, seed=2) != chosen
    assert names(choose(crowd, number=400)) == names(crowd.manifest.images)


def test_a_split_is_chosen_from_alone_and_the_first_without_a_word(prepared):
    assert {each.split for each in choose(prepared, split="test")} == {"test"}
    assert set(choose(prepared)) == set(prepared.records("train"))
    only_test = with_images(prepared, record("a.jpg", split="test"))
    assert names(choose(only_test)) == ["test/a.jpg"]
    with pytest.raises(InputMissingError, match="no split 'dev'"):
        choose(prepared, split="dev")


@pytest.mark.parametrize(
    "name", ["train/day/IMG_12.jpg", "day/IMG_12.jpg", "IMG_12.jpg", "IMG_12", "train/day/IMG_12"]
)
def test_an_image_is_found_by_any_end_of_its_name(prepared, name):
    data = with_images(prepared, record("day/IMG_12.jpg"), record("IMG_112.jpg"))
    assert names(choose(data, [name])) == ["train/day/IMG_12.jpg"]


def test_images_come_in_the_order_they_are_named_and_once(prepared):
    data = with_images(prepared, *(record(f"{n}.jpg") for n in range(5)))
    assert names(choose(data, ["3", "1.jpg", "3.jpg"])) == ["train/3.jpg", "train/1.jpg"]


def test_a_name_of_several_images_lists_them(prepared):
    data = with_images(prepared, record("1.jpg"), record("1.jpg", split="test"))
    with pytest.raises(UsageError, match="several") as caught:
        choose(data, ["1.jpg"])
    assert caught.value.looked_for == "train/1.jpg, test/1.jpg"
    assert names(choose(data, ["1.jpg"], split="test")) == ["test/1.jpg"]
    assert names(choose(data, ["train/1.jpg"])) == ["train/1.jpg"]


def test_a_whole_name_goes_before_the_end_of_another(prepared):
    data = with_images(prepared, record("a.jpg"), record("train/a.jpg", split="test"))
    assert names(choose(data, ["train/a.jpg"])) == ["train/a.jpg"]


def test_an_unknown_name_suggests_a_known_one(prepared):
    data = with_images(prepared, record("IMG_12.jpg"))
    with pytest.raises(InputMissingError, match=r"IMG_21\.jpg: .*did you mean 'IMG_12\.jpg'"):
        choose(data, ["IMG_21.jpg"])
    with pytest.raises(InputMissingError, match="zebra: no such image"):
        choose(data, ["zebra"])


@pytest.mark.parametrize("number", [0, 401])
def test_more_than_a_sheet_holds_is_refused(prepared, number):
    with pytest.raises(UsageError, match="1 to 400"):
        choose(prepared, number=number)


@pytest.mark.parametrize("size", [(1, 1), (5, 3), (1, 900), (900, 1), (3000, 2000)])
def test_an_image_of_any_size_is_drawn_and_an_empty_scene_too(prepared, tmp_path, size):
    full, empty = record("a.png", 2, width=size[0], height=size[1]), record("b.png")
    data = replace(with_images(prepared, full, empty), folder=tmp_path)
    for each, points in ((full, [[0.5, 0.5]] * 2), (empty, np.zeros((0, 2)))):
        image, heads, _ = prepared_paths(tmp_path, split=each.split, file=each.file)
        for path in (image, heads):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (each.width, each.height)).save(image)
        np.save(heads, np.array(points, dtype=np.float64))
    sheet = np.asarray(Image.open(io.BytesIO(draw_sheet(data, [full, empty]))))
    assert (sheet == (0, 255, 255)).all(axis=2).any()


def test_the_same_images_give_the_same_bytes(prepared):
    chosen = choose(prepared, number=3)
    assert draw_sheet(prepared, chosen) == draw_sheet(prepared, chosen)


def test_an_image_that_is_damaged_is_named(prepared, tmp_path):
    shutil.copytree(prepared.folder, tmp_path / "set")
    data = PreparedDataset.open(tmp_path / "set")
    (one,) = choose(data, number=1)
    data.image_path(one).write_bytes(b"no image")
    with pytest.raises(BadInputError, match=one.file):
        draw_sheet(data, [one])
