"""The public data sets, small and made up, from their archives' layouts to an evaluation."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.data.prepared.manifest import PreprocessConfig
from crowdcount.data.sources import recipe
from crowdcount.data.sources.recipe import load_recipe, recipe_names, recipes_folder
from crowdcount.errors import (
    BadInputError,
    ConfigError,
    InputMissingError,
    UsageError,
    ValidationError,
)
from crowdcount.workflows.bins import make_bins
from crowdcount.workflows.counter import load
from crowdcount.workflows.evaluate import evaluate
from crowdcount.workflows.preprocess import preprocess
from tests.made_up_sets import (
    HEADS,
    SIZE,
    WRITERS,
    made_up_points,
    write_image,
    write_mat,
    write_set,
)

PUBLIC = [name for name in recipe_names() if not load_recipe(name).recognise.any_folder]


def prepared(name, tmp_path, **options):
    (result,) = preprocess(write_set(name, tmp_path), out=tmp_path / "out", **options)
    return result, PreparedDataset.open(result.folder)


def prepared_with_folds(source, out, folds, **options):
    (result,) = preprocess(source, out=out, config=PreprocessConfig(folds=folds), **options)
    return result


def test_every_public_recipe_has_a_made_up_instance():
    assert set(WRITERS) == set(PUBLIC) == set(HEADS)


@pytest.mark.parametrize("name", WRITERS)
def test_every_set_goes_from_its_archive_to_an_evaluation(name, tmp_path, checkpoint):
    result, data = prepared(name, tmp_path)
    labelled = {
        split: counts
        for split, counts in HEADS[name].items()
        if not load_recipe(name).splits[split].unlabelled
    }
    assert (result.manifest.name, data.name) == (name, name)
    assert {split: (t.images, t.heads) for split, t in result.manifest.totals.items()} == {
        split: (len(counts), sum(counts)) for split, counts in labelled.items()
    }
    heads = [each.heads for each in data.manifest.images]
    assert heads == [count for counts in labelled.values() for count in counts]
    table = make_bins([data], block=8)
    heads_in_windows = sum(count * number for count, number in enumerate(table.histogram))
    assert (heads_in_windows > 0) == (sum(labelled["train"]) > 0)
    split = "test" if "test" in labelled else "val"
    measured = evaluate(load(checkpoint, device="cpu"), [data], split=split)
    assert [each.heads for each in measured.results] == [each.heads for each in data.records(split)]


@pytest.mark.parametrize("name", WRITERS)
def test_every_set_has_the_points_of_its_annotation(name, tmp_path):
    # What the writers wrote for image k, moved with the image into its new size.
    _, data = prepared(name, tmp_path)
    seeds = {"nwpu": lambda record: int(Path(record.file).stem)}
    for k, record in enumerate(data.all_training(), start=1):
        seed = seeds.get(name, lambda _, k=k: k)(record)
        scale = np.array([record.width, record.height]) / SIZE
        expected = made_up_points(record.heads, seed=seed) * scale
        np.testing.assert_allclose(data.points(record), expected, atol=1e-9)


# The made-up instance of UCF_CC_50 has all of its 50 images.
@pytest.mark.parametrize("name", sorted(set(WRITERS) - {"ucf50"}))
def test_a_few_images_are_not_the_whole_set(name, tmp_path):
    result, _ = prepared(name, tmp_path)
    assert not result.manifest.complete
    train = len(HEADS[name]["train"])
    expected = load_recipe(name).splits["train"].expect_images
    assert f"train: {train} images, {expected} expected" in result.warnings


@pytest.mark.parametrize("name", WRITERS)
def test_preparing_a_set_again_does_nothing(name, tmp_path):
    result, data = prepared(name, tmp_path)
    (again,) = preprocess(tmp_path / data_folder(tmp_path), out=result.folder)
    assert again.written == 0
    assert PreparedDataset.open(result.folder).manifest == data.manifest


def data_folder(tmp_path):
    (only,) = (each.name for each in tmp_path.iterdir() if each.name != "out")
    return only


# ---- NWPU-Crowd: lists, parts, a test split without annotations


def test_the_test_split_of_nwpu_is_known_and_not_prepared(tmp_path, caplog):
    caplog.set_level("INFO")
    result, data = prepared("nwpu", tmp_path)
    assert result.manifest.unlabelled == ("test",)
    assert (
        "the annotations of test were not published; its 3 images are not prepared" in caplog.text
    )
    assert data.splits == ("train", "val")
    assert not any("test" in warning for warning in result.warnings)
    with pytest.raises(InputMissingError, match="annotations of test were not published"):
        data.records("test")
    assert len(result.manifest.held_out) == 0


def test_images_that_a_list_names_and_that_are_not_there_are_told(tmp_path):
    root = write_set("nwpu", tmp_path)
    shutil.rmtree(root / "images_part2")
    (result,) = preprocess(root, out=tmp_path / "out")
    assert "train: named by train.txt, not there: 0004" in result.warnings
    assert "val: named by val.txt, not there: 0005, 0006" not in result.warnings
    assert "val: not there, 500 images expected" in result.warnings


def test_an_image_in_two_lists_is_refused(tmp_path):
    root = write_set("nwpu", tmp_path)
    (root / "val.txt").write_text("0001\n0005\n")
    with pytest.raises(BadInputError, match=r"1 images of val are in another split"):
        preprocess(root, out=tmp_path / "out")


def test_jhu_keeps_val_for_validation(tmp_path):
    _, data = prepared("jhu", tmp_path)
    assert [each.name for each in data.records("val")] == ["val/0001.jpg"]
    assert len(data.records("train")) == len(HEADS["jhu"]["train"])


# ---- Mall: one table, ranges of ids, frames in a row


def test_each_frame_of_mall_has_its_own_points(tmp_path):
    _, data = prepared("mall", tmp_path)
    for record in data.records("test"):
        number = int(record.file[4:10])
        expected = made_up_points(record.heads, seed=number)
        assert number in (801, 802)
        assert len(data.points(record)) == len(expected) > 0


def test_frames_of_mall_that_the_table_knows_and_that_are_not_there_are_told(tmp_path):
    root = write_set("mall", tmp_path)
    (root / "frames/seq_000003.jpg").unlink()
    (result,) = preprocess(root, out=tmp_path / "out")
    assert any("named by mall_gt.mat, not there: 3," in each for each in result.warnings)


def test_neighbouring_frames_of_mall_are_held_out_together(tmp_path):
    root = tmp_path / "mall"
    root.mkdir()
    WRITERS["mall"](root, {"train": [k % 5 for k in range(1, 301)]})
    (result,) = preprocess(root, out=tmp_path / "out")
    held_out = PreparedDataset.open(result.folder).manifest.held_out
    assert {name[:8] for name in held_out} in (
        {"seq_0000"},
        {"seq_0001"},
        {"seq_0002"},
        {"seq_0003"},
    )


# ---- heads by release


@pytest.fixture
def fewer_images(tmp_path, monkeypatch):
    """The recipes of the package, which expect a fiftieth of the images, and as many heads."""
    folder = shutil.copytree(recipes_folder(), tmp_path / "recipes")
    for path in folder.iterdir():
        text = re.sub(
            r"(?<=expect_images = )\d+", lambda it: str(int(it[0]) // 50), path.read_text()
        )
        path.write_text(text)
    monkeypatch.setattr(recipe, "recipes_folder", lambda: folder)


@pytest.mark.parametrize("name", ["sha", "shb"])
@pytest.mark.parametrize("release", ["newer", "older"])
def test_both_releases_of_shanghaitech_are_distinguished(name, release, fewer_images, tmp_path):
    # Stand-ins with as many heads as the real sets; the first image holds most of them.
    known = load_recipe(name)
    root = tmp_path / "unpacked"
    heads = known.releases[release]
    for split, layout in known.splits.items():
        folder = root / f"{split}_data"
        first = folder / "images" / "IMG_1.jpg"
        write_image(first, seed=1, size=known.recognise.image_size or SIZE)
        rest = layout.expect_images - 1
        for k, count in ((1, heads[split] - rest), (2, 1)):
            cell = np.empty((1, 1), dtype=object)
            cell[0, 0] = {"location": np.full((count, 2), 3.5), "number": count}
            write_mat(folder / "ground-truth" / f"GT_IMG_{k}.mat", cell, key="image_info")
        for k in range(2, layout.expect_images + 1):
            (folder / "images" / f"IMG_{k}.jpg").hardlink_to(first)
            if k > 2:
                annotation = folder / "ground-truth" / f"GT_IMG_{k}.mat"
                annotation.hardlink_to(folder / "ground-truth" / "GT_IMG_2.mat")
    (result,) = preprocess(root, out=tmp_path / "out", dry_run=True, strict=True)
    assert (result.manifest.name, result.manifest.release, result.manifest.complete) == (
        name,
        release,
        True,
    )


TOTALS = """
title = "Square"
homepage = ""
licence = ""
citation = ""
[points]
reader = "txt"
[resize]
short_side_min = 32
[splits.train]
images = "train/{id}.jpg"
points = "train/{id}.txt"
expect_images = 2
[splits.test]
images = "test/{id}.jpg"
points = "test/{id}.txt"
expect_images = 1
[releases]
published = { total = 5 }
"""


def square(root, heads):
    for split, counts in heads.items():
        for k, count in enumerate(counts, start=1):
            write_image(root / split / f"{k}.jpg", seed=k)
            (root / split / f"{k}.txt").write_text("1 2\n" * count)
    return root


@pytest.fixture
def totals(tmp_path):
    path = tmp_path / "square.toml"
    path.write_text(TOTALS)
    return path


def test_a_total_of_all_splits_tells_the_release(tmp_path, totals):
    root = square(tmp_path / "a", {"train": [2, 1], "test": [2]})
    (result,) = preprocess(root, out=tmp_path / "out", dataset=totals, strict=True)
    assert (result.manifest.name, result.manifest.release) == ("square", "published")


def test_a_total_that_differs_is_reported(tmp_path, totals):
    root = square(tmp_path / "a", {"train": [2, 1], "test": [3]})
    (result,) = preprocess(root, out=tmp_path / "out", dataset=totals)
    assert (result.manifest.release, result.warnings) == (None, ("total: 6 heads, expected 5",))


def test_a_total_tells_nothing_while_a_split_is_not_there(tmp_path, totals):
    root = square(tmp_path / "a", {"train": [4, 1]})
    (result,) = preprocess(root, out=tmp_path / "out", dataset=totals)
    assert result.manifest.release is None
    assert result.warnings == ("test: not there, 1 images expected",)


# ---- folds


def test_ucf50_has_its_own_five_folds(tmp_path):
    result, data = prepared("ucf50", tmp_path)
    assert [len(fold) for fold in result.manifest.folds] == [10] * 5
    for k in range(1, 6):
        view = data.with_fold(k)
        validation = [int(Path(each.file).stem) for each in view.records("val")]
        assert validation == list(range(10 * k - 9, 10 * k + 1))
        assert len(view.records("train")) == 40
    with pytest.raises(UsageError, match="5 folds of its own, not 4"):
        prepared_with_folds(tmp_path / "UCF_CC_50", tmp_path / "four", 4)


def test_folds_are_stored_by_name_and_part_the_training_images(tmp_path):
    root = square(tmp_path / "a", {"train": list(range(11)), "test": [1]})
    path = tmp_path / "square.toml"
    path.write_text(TOTALS)
    result = prepared_with_folds(root, tmp_path / "out", 3, dataset=path)
    assert sorted(len(fold) for fold in result.manifest.folds) == [3, 4, 4]
    stored = json.loads((result.folder / "manifest.json").read_text())["folds"]
    assert sorted(name for fold in stored for name in fold) == sorted(
        f"{k}.jpg" for k in range(1, 12)
    )


def test_more_folds_than_images_are_refused_before_any_work(tmp_path, totals):
    root = square(tmp_path / "a", {"train": [1, 2], "test": [1]})
    with pytest.raises(UsageError, match="2 training images cannot be parted into 3 folds"):
        prepared_with_folds(root, tmp_path / "out", 3, dataset=totals)
    assert not (tmp_path / "out").exists()


def test_images_of_one_camera_stay_together(tmp_path):
    path = tmp_path / "square.toml"
    path.write_text(TOTALS + '[validation]\ngroup = "cam{group}_*.jpg"\n')
    root = tmp_path / "a"
    for k in range(12):
        write_image(root / "train" / f"cam{k % 4}_{k}.jpg", seed=k)
        (root / "train" / f"cam{k % 4}_{k}.txt").write_text("1 2\n" * k)
    result = prepared_with_folds(root, tmp_path / "out", 2, dataset=path)
    manifest = PreparedDataset.open(result.folder).manifest
    cameras = [{name[:4] for name in fold} for fold in manifest.folds]
    assert cameras[0].isdisjoint(cameras[1])
    assert len({name[:4] for name in manifest.held_out}) == 1
    assert len(manifest.held_out) == 3
    with pytest.raises(UsageError, match="4 groups of training images cannot be parted into 5"):
        prepared_with_folds(root, tmp_path / "five", 5, dataset=path)


def test_a_group_that_fits_no_image_is_an_error_of_the_recipe(tmp_path):
    path = tmp_path / "square.toml"
    path.write_text(TOTALS + '[validation]\ngroup = "camera{group}/*.jpg"\n')
    root = square(tmp_path / "a", {"train": [1, 2]})
    with pytest.raises(ConfigError, match=r"square\.toml: validation\.group: .*such as .*1\.jpg"):
        preprocess(root, out=tmp_path / "out", dataset=path)


def test_images_in_no_fold_are_an_error_of_the_recipe(tmp_path):
    path = tmp_path / "square.toml"
    path.write_text(TOTALS + "[validation]\nfolds = [[1, 1], [2, 2]]\n")
    root = square(tmp_path / "a", {"train": [1, 2, 3]})
    with pytest.raises(ConfigError, match=r"square\.toml: validation\.folds: .*3\.jpg"):
        preprocess(root, out=tmp_path / "out", dataset=path)


def test_strict_and_release_of_an_incomplete_ucf50(tmp_path):
    root = write_set("ucf50", tmp_path)
    heads = sum(HEADS["ucf50"]["train"])
    with pytest.raises(ValidationError, match=f"train: {heads} heads, expected 63974"):
        preprocess(root, out=tmp_path / "out", strict=True)


def test_recipes_are_data_alone():
    assert {path.suffix for path in recipes_folder().iterdir()} == {".toml"}
