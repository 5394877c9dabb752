import hashlib
import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from crowdcount.core.progress import untracked
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.data.prepared.manifest import JOURNAL, MANIFEST, PreprocessConfig
from crowdcount.data.sources.images import image_size
from crowdcount.data.sources.recipe import load_recipe
from crowdcount.errors import (
    BadInputError,
    InputMissingError,
    UsageError,
    ValidationError,
)
from crowdcount.workflows.preprocess import preprocess

TRAIN = [0, 3, 1, 8, 2, 5, 4, 13, 7, 6, 9, 30]
"""Heads of the training images."""

TEST = [2, 0, 11]


def write_image(path, *, size, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    # Coarse, because noise of single pixels makes large files.
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize(size).save(path)


def write_family(root, *, train=tuple(TRAIN), test=tuple(TEST), truth="ground-truth"):
    """Photographs in the layout of ShanghaiTech; every other one needs no resize."""
    for split, counts in (("train", train), ("test", test)):
        for k, heads in enumerate(counts, start=1):
            size = (512, 448) if k % 2 else (300, 200)
            folder = root / f"{split}_data"
            write_image(folder / "images" / f"IMG_{k}.jpg", size=size, seed=k)
            points = np.random.default_rng(k).uniform(0, size, (heads, 2))
            cell = np.empty((1, 1), dtype=object)
            cell[0, 0] = {"location": points, "number": heads}
            annotation = folder / truth / f"GT_IMG_{k}.mat"
            annotation.parent.mkdir(parents=True, exist_ok=True)
            scipy.io.savemat(annotation, {"image_info": cell})
    return root


def write_table(root, rows, images):
    for k, name in enumerate(images):
        write_image(root / name, size=(512, 448), seed=k)
    lines = ["image,x,y", *rows]
    (root / "heads.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def street(tmp_path):
    return write_family(tmp_path / "street")


def files(records):
    return [each.file for each in records]


@pytest.fixture
def run(tmp_path):
    def prepare(source, **options):
        (result,) = preprocess(source, **{"out": tmp_path / "out", **options})
        return result

    return prepare


def tree(folder):
    """Hash of every file, by its path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_heads_are_the_annotated_ones(street, run):
    result = run(street)
    data = PreparedDataset.open(result.folder)
    assert result.manifest.name == "street"
    assert {name: (t.images, t.heads) for name, t in result.manifest.totals.items()} == {
        "train": (12, sum(TRAIN)),
        "test": (3, sum(TEST)),
    }
    heads = {each.name: len(data.points(each)) for each in data.all_training()}
    assert heads == {f"train/IMG_{k}.jpg": n for k, n in enumerate(TRAIN, start=1)}
    assert result.manifest.complete
    assert (result.written, result.unchanged) == (15, 0)


def test_images_that_need_no_resize_are_copies(street, run):
    data = PreparedDataset.open(run(street).folder)
    for record in data.all_training():
        original = (street / record.source).read_bytes()
        same = (record.source_width, record.source_height) == (record.width, record.height)
        assert (data.image_path(record).read_bytes() == original) == same
    assert {(each.width, each.height) for each in data.all_training()} == {(512, 448), (672, 448)}


def test_a_tenth_is_held_out_by_name_and_stays_in_its_folder(street, run):
    data = PreparedDataset.open(run(street).folder)
    (held_out,) = data.records("val")
    assert held_out.split == "train"
    assert len(data.records("train")) == 11
    assert data.image_path(held_out).parent == data.folder / "train" / "images"


def test_nothing_is_held_out_where_there_is_a_validation_split(tmp_path, run):
    for split in ("train", "val"):
        write_table(tmp_path / "own" / split, ["a.jpg,1,2", "b.jpg,,"], ["a.jpg", "b.jpg"])
    result = run(tmp_path / "own")
    assert len(result.manifest.held_out) == 0
    assert PreparedDataset.open(result.folder).splits == ("train", "val")


def test_a_part_for_calibration_is_neither_trained_on_nor_selected_on(street, run):
    without = PreparedDataset.open(run(street).folder)
    result = run(street, config=PreprocessConfig(calibration_fraction=0.25), force=True)
    data = PreparedDataset.open(result.folder)
    parts = {split: set(files(data.records(split))) for split in ("train", "val", "calibration")}
    assert {split: len(names) for split, names in parts.items()} == {
        "train": 8,
        "val": 1,
        "calibration": 3,
    }
    assert len(result.manifest.calibration) == 3
    assert set.union(*parts.values()) == set(files(data.all_training()))
    assert data.splits == ("train", "val", "test", "calibration")
    # What is held out for validation does not change.
    assert data.records("val") == without.records("val")
    assert without.splits == ("train", "val", "test")


def test_a_part_for_calibration_is_of_sparse_scenes_and_dense_ones(street, run):
    data = PreparedDataset.open(
        run(street, config=PreprocessConfig(val_fraction=0.0, calibration_fraction=0.5)).folder
    )
    ranked = sorted(data.all_training(), key=lambda each: (each.heads, each.file))
    chosen = set(files(data.records("calibration")))
    # Twelve images, six wanted: one of each two neighbours.
    assert [
        len({a.file, b.file} & chosen) for a, b in zip(ranked[::2], ranked[1::2], strict=True)
    ] == [1] * 6


def test_folds_leave_out_what_is_for_calibration(street, run):
    config = PreprocessConfig(folds=3, calibration_fraction=0.25)
    data = PreparedDataset.open(run(street, config=config).folder)
    calibration = set(files(data.records("calibration")))
    folds = [file for fold in data.manifest.folds for file in fold]
    assert sorted([*folds, *calibration]) == sorted(files(data.all_training()))
    second = data.with_fold(2)
    assert sorted(files(second.records("val"))) == list(data.manifest.folds[1])
    assert calibration.isdisjoint(files(second.records("train")))


def test_the_default_folder_is_named_after_the_set(street, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (result,) = preprocess(street)
    assert result.folder == Path("data/street")
    assert (tmp_path / "data/street" / MANIFEST).is_file()


def test_several_sets_get_a_folder_each(tmp_path):
    for part in ("part_A", "part_B"):
        write_family(tmp_path / "ShanghaiTech" / part, train=[3, 4], test=[1])
    results = preprocess(tmp_path / "ShanghaiTech", out=tmp_path / "out")
    assert [each.folder for each in results] == [tmp_path / "out" / n for n in ("sha", "shb")]


def test_fewer_images_than_promised_are_warned_of_and_marked(tmp_path, run, caplog):
    result = run(write_family(tmp_path / "part_A"))
    assert not result.manifest.complete
    assert result.warnings == ("train: 12 images, 300 expected", "test: 3 images, 182 expected")
    warned = [each.message for each in caplog.records if each.levelno == logging.WARNING]
    assert warned == [f"sha: {warning}" for warning in result.warnings]
    manifest = PreparedDataset.open(result.folder).manifest
    assert not manifest.complete
    assert manifest.reasons == result.warnings


def test_a_missing_split_is_said(tmp_path, run):
    result = run(write_family(tmp_path / "part_A", test=[]))
    assert result.warnings == (
        "train: 12 images, 300 expected",
        "test: not there, 182 images expected",
    )
    assert list(result.manifest.totals) == ["train"]


def test_strict_refuses_an_incomplete_set_before_writing(tmp_path, run):
    source = write_family(tmp_path / "part_A")
    with pytest.raises(ValidationError, match="train: 12 images, 300 expected") as caught:
        run(source, strict=True)
    assert caught.value.exit_code == 6
    assert not (tmp_path / "out").exists()


def test_strict_has_nothing_against_an_unknown_set(street, run):
    assert run(street, strict=True).manifest.complete


RECIPE = """
title = "Lantern Square"
homepage = ""
licence = ""
citation = ""
[points]
reader = "mat"
key = "image_info[0][0][0][0][0]"
[resize]
short_side_min = 448
[splits.train]
images = "train_data/images/{id}.jpg"
points = "train_data/ground-truth/GT_{id}.mat"
expect_images = 12
[splits.test]
images = "test_data/images/{id}.jpg"
points = "test_data/ground-truth/GT_{id}.mat"
expect_images = 3
[releases]
first = { train = 99, test = 13 }
second = { train = 88, test = 13 }
"""


def recipe_file(tmp_path, text=RECIPE):
    path = tmp_path / "lantern.toml"
    path.write_text(text)
    return str(path)


def test_the_release_is_recognised_by_its_heads(street, run, tmp_path):
    result = run(street, dataset=recipe_file(tmp_path), strict=True)
    manifest = result.manifest
    assert (manifest.name, manifest.release, manifest.complete) == ("lantern", "second", True)


def test_complete_splits_tell_the_release_where_others_are_not(street, run, tmp_path):
    (street / "test_data/images/IMG_1.jpg").unlink()
    result = run(street, dataset=recipe_file(tmp_path))
    assert (result.manifest.release, result.manifest.complete) == ("second", False)


def test_heads_of_no_release_are_marked(street, run, tmp_path):
    recipe = recipe_file(tmp_path, RECIPE.replace("88", "87"))
    result = run(street, dataset=recipe)
    assert (result.manifest.release, result.manifest.complete) == (None, False)
    assert "train: 88 heads, expected 99 or 87" in result.warnings
    with pytest.raises(ValidationError, match="88 heads"):
        run(street, dataset=recipe, strict=True, out=tmp_path / "other")


def test_images_without_annotation_stop_the_work(street, run, tmp_path):
    for k in (4, 9, 10):
        (street / f"train_data/ground-truth/GT_IMG_{k}.mat").unlink()
    with pytest.raises(InputMissingError) as caught:
        run(street)
    missing = street / "train_data/ground-truth/GT_IMG_4.mat"
    assert str(caught.value).splitlines() == [
        "street/train: 3 images have no annotation: IMG_4.jpg, IMG_9.jpg, IMG_10.jpg",
        f"  looked for  {missing} (and ground_truth)",
        "  next step   add them, or pass --skip-unpaired to leave these images out",
    ]
    assert not (tmp_path / "out").exists()


def test_images_without_annotation_can_be_left_out(street, run):
    (street / "train_data/ground-truth/GT_IMG_4.mat").unlink()
    result = run(street, skip_unpaired=True)
    assert result.manifest.totals["train"].images == 11
    assert result.warnings == ("train: left out without annotation: IMG_4.jpg",)
    assert PreparedDataset.open(result.folder).manifest.unpaired == {"train": ("IMG_4.jpg",)}


def test_own_images_with_empty_scenes(tmp_path, run):
    rows = ["a.jpg,1.5,2.5", "deep/b.jpg,,", "a.jpg,1.5,2.5"]
    result = run(write_table(tmp_path / "own", rows, ["a.jpg", "deep/b.jpg"]))
    data = PreparedDataset.open(result.folder)
    points = {each.file: data.points(each).tolist() for each in data.all_training()}
    assert points == {"a.jpg": [[1.5, 2.5], [1.5, 2.5]], "deep/b.jpg": []}
    assert result.manifest.totals["train"].duplicates == 1


def test_doubtful_points_are_reported_and_recorded(tmp_path, run, caplog):
    rows = ["a.jpg,1,2", "a.jpg,1,2", "a.jpg,nan,3", "a.jpg,512,3", "b.jpg,-5,1", "c.jpg,,"]
    own = write_table(tmp_path / "own", rows, ["a.jpg", "b.jpg", "c.jpg"])
    caplog.set_level(logging.INFO)
    result = run(own)
    told = (
        "2 heads outside, moved to the edge, in 2 images: train/a.jpg (1), train/b.jpg (1)",
        "1 head without a finite place, left out, in 1 image: train/a.jpg (1)",
    )
    assert result.warnings == told
    assert result.manifest.complete
    remarked = (
        "1 head at the place of another, kept, in 1 image: train/a.jpg (1)",
        "nobody in 1 image: train/c.jpg",
    )
    for line, level in (*((each, "WARNING") for each in told), *((r, "INFO") for r in remarked)):
        assert ("crowdcount", getattr(logging, level), f"own: {line}") in caplog.record_tuples
    assert run(own).warnings == told  # though nothing is left to do
    (total,) = result.manifest.totals.values()
    facts = (total.images, total.heads, total.outside, total.duplicates, total.dropped)
    assert facts == (3, 4, 2, 1, 1)
    records = PreparedDataset.open(result.folder).all_training()
    assert {each.file: (each.outside, each.dropped) for each in records} == {
        "a.jpg": (1, 1),
        "b.jpg": (1, 0),
        "c.jpg": (0, 0),
    }


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.jpg,512,1", "1 head outside"),
        ("a.jpg,-1,1", "1 head outside"),
        ("a.jpg,nan,1", "1 head without a finite place"),
        ("a.jpg,1,inf", "1 head without a finite place"),
        ("a.jpg,1,500\na.jpg,2,490", "x and y seem to have changed places"),
    ],
)
def test_strict_refuses_points_that_look_wrong_before_writing(tmp_path, run, row, message):
    own = write_table(tmp_path / "own", [row], ["a.jpg"])
    with pytest.raises(ValidationError, match=message) as caught:
        run(own, strict=True)
    assert caught.value.exit_code == 6
    assert not (tmp_path / "out").exists()
    assert run(own).manifest.complete


def test_strict_has_nothing_against_duplicates_and_empty_scenes(tmp_path, run):
    rows = ["a.jpg,1,2", "a.jpg,1,2", "b.jpg,,"]
    assert run(
        write_table(tmp_path / "own", rows, ["a.jpg", "b.jpg"]), strict=True
    ).manifest.complete


def test_swapped_axes_are_said_and_exchanged_when_asked(tmp_path, run):
    own = write_table(tmp_path / "own", ["a.jpg,10,500", "a.jpg,20,470", "b.jpg,,"], ["a.jpg"])
    write_image(own / "b.jpg", size=(512, 448), seed=9)
    first, second = run(own).warnings
    assert "train/a.jpg; if so, pass --order yx" in first
    assert second.startswith("2 heads outside")
    with pytest.raises(UsageError, match="was prepared with another points"):
        run(own, order="yx")
    result = run(own, order="yx", force=True, strict=True)
    data = PreparedDataset.open(result.folder)
    assert [data.points(each).tolist() for each in data.all_training()] == [
        [[500.0, 10.0], [470.0, 20.0]],
        [],
    ]
    assert data.manifest.points.order == "yx"
    assert result.warnings == ()


def test_another_place_with_the_same_names_replaces_nothing(tmp_path, run):
    first = write_table(tmp_path / "a/photos", ["1.jpg,1,2", "2.jpg,3,4"], ["1.jpg", "2.jpg"])
    second = tmp_path / "d/photos"
    shutil.copytree(first, second)
    for k in (1, 2):
        write_image(second / f"{k}.jpg", size=(512, 448), seed=50 + k)
    manifest = run(first).manifest
    with pytest.raises(UsageError, match="other images of these names") as caught:
        run(second)
    assert "--out" in caught.value.next_step
    assert run(first).unchanged == 2
    # One that is still the same: the others were corrected.
    shutil.copy(first / "1.jpg", second / "1.jpg")
    assert run(second).written == 1
    assert run(second, force=True).manifest != manifest


def test_annotations_without_an_image_are_said(street, run, caplog):
    (street / "train_data/images/IMG_4.jpg").unlink()
    assert run(street).written == len(TRAIN) + len(TEST) - 1
    assert "1 annotation without an image, left out: train_data/ground-truth/GT_IMG_4.mat" in (
        caplog.text
    )


def test_a_number_that_differs_from_the_points_is_said(street, run, caplog):
    cell = np.empty((1, 1), dtype=object)
    cell[0, 0] = {"location": np.ones((2, 2)), "number": 3}
    scipy.io.savemat(street / "train_data/ground-truth/GT_IMG_1.mat", {"image_info": cell})
    run(street)
    said = [line for line in caplog.messages if "holds" in line]
    (line,) = dict.fromkeys(said)
    assert line.endswith("GT_IMG_1.mat: says 3 heads and holds 2 points, which count")


@pytest.fixture
def turned(tmp_path):
    """Photographs that EXIF turns on their side, with heads annotated on their stored pixels."""
    exif = Image.Exif()
    exif[0x0112] = 6
    rows = []
    for name in ("a.png", "b.png"):
        pixels = np.zeros((448, 512, 3), dtype=np.uint8)
        for x, y in ((500, 10), (480, 440), (20, 30)):
            pixels[y, x] = 255
            rows.append(f"{name},{x},{y}")
        (tmp_path / "own").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / "own" / name, exif=exif)
    (tmp_path / "own/heads.csv").write_text("\n".join(["image,x,y", *rows]) + "\n")
    return tmp_path / "own"


def on_their_dot(result):
    data = PreparedDataset.open(result.folder)
    heads = lit = 0
    for record in data.all_training():
        with Image.open(data.image_path(record)) as picture:
            pixels = np.asarray(picture)
        for x, y in data.points(record):
            heads += 1
            lit += pixels[int(y), int(x), 0] > 0
    return lit, heads


def test_points_of_stored_photographs_are_turned_with_them(turned, run, caplog):
    result = run(turned, strict=True)
    assert on_their_dot(result) == (6, 6)
    assert result.manifest.points.frame == "stored"
    assert "are turned with them" in caplog.text
    assert "if not, pass --frame upright" in caplog.text
    assert run(turned).written == 0


def test_the_frame_that_is_given_is_taken_and_its_advice_is_right(turned, run):
    result = run(turned, frame="upright")
    assert on_their_dot(result)[0] < 6
    advice, *_ = result.warnings
    assert advice.endswith("if so, pass --frame stored")
    result = run(turned, frame="stored", force=True)
    assert on_their_dot(result) == (6, 6)
    assert result.warnings == ()


def test_points_of_another_size_are_refused_before_writing_and_scaled_when_asked(tmp_path, run):
    rows = [f"a.jpg,{x},{y}" for x, y in ((900, 80), (1000, 800), (20, 30))]
    own = write_table(tmp_path / "own", rows, ["a.jpg"])
    with pytest.raises(ValidationError, match="2 of 3 heads lie outside") as caught:
        run(own)
    assert "--points-scale 0.511" in caught.value.next_step
    assert not (tmp_path / "out").exists()
    result = run(own, points_scale=0.5)
    data = PreparedDataset.open(result.folder)
    assert data.points(data.all_training()[0]).tolist() == [[450, 40], [500, 400], [10, 15]]
    assert result.warnings == ()
    kept = run(own, points_scale=1.0, force=True)
    assert kept.manifest.totals["train"].outside == 2


def test_parts_of_width_and_height_are_refused_and_scaled_when_asked(tmp_path, run):
    own = write_table(tmp_path / "own", ["a.jpg,0.5,0.25", "a.jpg,0.1,0.75"], ["a.jpg"])
    with pytest.raises(ValidationError, match="parts of width and height") as caught:
        run(own)
    assert "--points-scale image" in caught.value.next_step
    data = PreparedDataset.open(run(own, points_scale="image").folder)
    np.testing.assert_allclose(
        data.points(data.all_training()[0]), [[256, 112], [51.2, 336]], atol=1e-9
    )


def test_order_overrides_the_recipe_of_files_for_each_image_too(street, run):
    as_given, exchanged = run(street), run(street, order="yx", force=True)
    assert as_given.warnings == ()
    assert "x and y seem to have changed places" in exchanged.warnings[0]
    heads = {name: total.heads for name, total in exchanged.manifest.totals.items()}
    assert heads == {name: total.heads for name, total in as_given.manifest.totals.items()}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a.jpg": [[1, true]]}', r"heads\.json: 'a\.jpg': point 1: expected \[x, y\]"),
        ('{"images": [{"image": "a.jpg", "points": []}]}', r"heads\.json: .*write one object"),
    ],
)
def test_a_wrong_table_is_named(tmp_path, run, content, message):
    write_image(tmp_path / "own" / "a.jpg", size=(512, 448), seed=1)
    (tmp_path / "own" / "heads.json").write_text(content)
    with pytest.raises(BadInputError, match=message):
        run(tmp_path / "own")


def test_a_table_in_json_lines_says_what_to_write(tmp_path, run):
    write_image(tmp_path / "own" / "a.jpg", size=(512, 448), seed=1)
    (tmp_path / "own" / "heads.jsonl").write_text('{"image": "a.jpg", "points": [[1, 2]]}\n')
    with pytest.raises(BadInputError, match=r"heads\.jsonl: .*write one object"):
        run(tmp_path / "own")


def test_a_file_of_a_tool_beside_a_table_is_left_out_and_said(tmp_path, run, caplog):
    own = write_table(tmp_path / "own", ["a.jpg,1,2"], ["a.jpg"])
    (own / "coco.json").write_text('{"images": [{"file_name": "a.jpg"}], "annotations": []}')
    assert run(own).manifest.totals["train"].heads == 1
    assert "heads.csv: a table holds the points; left out: coco.json" in caplog.text


def test_splits_may_have_tables_of_different_forms(tmp_path, run):
    write_table(tmp_path / "own" / "train", ["a.jpg,1,2"], ["a.jpg"])
    write_image(tmp_path / "own" / "test" / "b.jpg", size=(512, 448), seed=1)
    (tmp_path / "own" / "test" / "heads.json").write_text('{"b.jpg": [[1, 2], [3, 4]]}')
    assert {name: total.heads for name, total in run(tmp_path / "own").manifest.totals.items()} == {
        "train": 1,
        "test": 2,
    }


def test_a_row_in_a_table_touches_its_image_only(tmp_path, run):
    own = write_table(tmp_path / "own", ["a.jpg,1,2", "b.jpg,3,4"], ["a.jpg", "b.jpg"])
    run(own)
    write_table(own, ["a.jpg,1,2", "b.jpg,3,5"], ["a.jpg", "b.jpg"])
    result = run(own)
    assert (result.written, result.unchanged) == (1, 1)


def test_a_second_run_does_nothing_and_says_so(street, run, caplog):
    folder = run(street).folder
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    caplog.set_level(logging.INFO)
    result = run(street)
    assert (result.written, result.unchanged) == (0, 15)
    assert "nothing to do, all 15 images are up to date" in caplog.text
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_a_second_run_mends_what_was_damaged(street, run):
    folder = run(street).folder
    whole = tree(folder)
    (folder / "train/points/IMG_3.jpg.npy").write_bytes(b"damaged")
    (folder / "test/images/IMG_2.jpg").unlink()
    result = run(street)
    assert (result.written, result.unchanged) == (2, 13)
    assert tree(folder) == whole


def test_a_second_run_follows_the_source(street, run, tmp_path):
    run(street)
    write_image(street / "train_data/images/IMG_2.jpg", size=(300, 200), seed=77)
    result = run(street)
    assert result.written == 1
    assert tree(result.folder) == tree(run(street, out=tmp_path / "fresh").folder)


def test_other_settings_are_refused_unless_forced(street, run):
    folder = run(street).folder
    before = tree(folder)
    with pytest.raises(UsageError, match=r"prepared with another settings: block 8, not 16\n"):
        run(street, config=PreprocessConfig(block=16))
    assert tree(folder) == before
    result = run(street, config=PreprocessConfig(block=16), force=True)
    assert result.written == 15
    assert PreparedDataset.open(folder).manifest.settings.block == 16


def test_a_count_that_is_given_decides_what_is_cut(street, run, tmp_path):
    spread = run(street)
    cut = run(street, config=PreprocessConfig(block=64, max_count=1), out=tmp_path / "one")
    manifest = PreparedDataset.open(cut.folder).manifest
    counts = [np.load(path) for path in sorted(cut.folder.glob("*/blocks/*.npz"))]
    raw = np.concatenate([each["raw"].ravel() for each in counts])
    assert manifest.max_count == max(each["corrected"].max() for each in counts) == 1
    totals = manifest.totals.values()
    assert sum(each.heads_cut for each in totals) == (raw - 1).clip(min=0).sum() > 0
    assert sum(each.heads for each in totals) == raw.sum()
    with pytest.raises(UsageError, match=r"another settings: max_count None, not 3\n"):
        run(street, config=PreprocessConfig(max_count=3), out=spread.folder)


def test_another_set_is_not_prepared_into_the_same_folder(street, run, tmp_path):
    run(street)
    with pytest.raises(UsageError, match="prepared with another name: street, not square"):
        run(write_family(tmp_path / "square"))


def test_images_that_left_the_source_are_kept_unless_forced(street, run, tmp_path):
    folder = run(street).folder
    (street / "test_data/images/IMG_3.jpg").unlink()
    with pytest.raises(UsageError, match=r"no longer in .*: test/IMG_3\.jpg"):
        run(street)
    assert (folder / "test/images/IMG_3.jpg").exists()
    run(street, force=True)
    assert tree(folder) == tree(run(street, out=tmp_path / "fresh").folder)


def test_a_folder_of_other_files_is_left_alone(street, run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("x")
    for force in (False, True):
        with pytest.raises(UsageError, match="not a prepared data set"):
            run(street, force=force)
    assert list(tree(tmp_path / "out")) == ["thesis.tex"]


def test_bins_and_notes_beside_the_manifest_stay(street, run):
    folder = run(street).folder
    (folder / "bins-r8.json").write_text("{}")
    run(street, force=True)
    assert (folder / "bins-r8.json").is_file()


@pytest.mark.parametrize("out", ["street", "street/out", "."])
def test_a_source_that_is_the_output_is_refused(street, tmp_path, out):
    with pytest.raises(UsageError, match="lie in each other"):
        preprocess(street, out=tmp_path / out)


def test_a_prepared_folder_is_no_source(street, run):
    folder = run(street).folder
    with pytest.raises(UsageError, match="is prepared already, as street"):
        preprocess(folder)


def test_a_dry_run_writes_nothing_and_counts_everything(street, run, tmp_path):
    dry = run(street, dry_run=True)
    assert not (tmp_path / "out").exists()
    wet = run(street)
    assert dry.written == wet.written
    assert dry.manifest.totals == wet.manifest.totals
    assert dry.manifest.held_out == wet.manifest.held_out
    again = run(street, dry_run=True)
    assert (again.written, again.unchanged) == (0, 15)


@pytest.mark.parametrize("jobs", [2, 5])
def test_jobs_change_nothing_but_the_speed(street, run, tmp_path, jobs):
    one = run(street, out=tmp_path / "one")
    many = run(street, out=tmp_path / "many", jobs=jobs)
    assert tree(many.folder) == tree(one.folder)


def test_the_manifest_depends_on_content_alone(street, run, tmp_path):
    # A copy: files of MATLAB hold the time at which they were written.
    elsewhere = shutil.copytree(street, tmp_path / "deep" / "street")
    a, b = run(street, out=tmp_path / "a"), run(elsewhere, out=tmp_path / "b")
    assert tree(a.folder) == tree(b.folder)
    assert str(tmp_path) not in (a.folder / MANIFEST).read_text()


def test_one_bad_image_is_named_and_the_rest_is_prepared(street, run):
    bad = street / "train_data/images/IMG_5.jpg"
    good = bad.read_bytes()
    bad.write_bytes(good[:200])
    with pytest.raises(BadInputError, match=r"IMG_5\.jpg: the image is damaged"):
        run(street)
    bad.write_bytes(good)
    result = run(street)
    assert (result.written, result.unchanged) == (1, 14)


def test_several_bad_inputs_are_one_message(street, run, tmp_path):
    (street / "train_data/images/IMG_5.jpg").write_bytes(b"<html>404</html>")
    (street / "test_data/ground-truth/GT_IMG_1.mat").write_bytes(b"x")
    with pytest.raises(BadInputError, match="2 images cannot be used") as caught:
        run(street)
    assert "web page" in caught.value.message
    assert "GT_IMG_1.mat" in caught.value.message
    with pytest.raises(InputMissingError, match="not finished"):
        PreparedDataset.open(tmp_path / "out")


def test_a_full_disk_ends_it_and_the_same_call_finishes_it(street, run, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("crowdcount.data.sources.convert.write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            run(street)
    assert run(street).written == 15


def interrupted_after(images):
    def track(items, *, label, total=None):
        for n, item in enumerate(items):
            if n == images:
                raise KeyboardInterrupt
            yield item

    return track


@pytest.mark.parametrize("jobs", [1, 3])
def test_an_interrupted_run_is_finished(street, run, tmp_path, jobs):
    with pytest.raises(KeyboardInterrupt):
        run(street, track=interrupted_after(6), jobs=jobs)
    with pytest.raises(InputMissingError, match="not finished"):
        PreparedDataset.open(tmp_path / "out")
    result = run(street)
    assert result.unchanged >= 6
    assert tree(result.folder) == tree(run(street, out=tmp_path / "whole").folder)
    assert not (result.folder / JOURNAL).exists()


def test_an_interrupted_run_with_other_settings_is_not_mixed_in(street, run):
    with pytest.raises(KeyboardInterrupt):
        run(street, track=interrupted_after(6))
    with pytest.raises(UsageError, match="another settings"):
        run(street, config=PreprocessConfig(seed=1))


def test_a_journal_cut_in_the_middle_of_a_line_is_read(street, run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(street, track=interrupted_after(6))
    journal = tmp_path / "out" / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-40])
    assert run(street).unchanged == 5


def test_a_damaged_journal_asks_for_force(street, run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / JOURNAL).write_text("not json\n")
    with pytest.raises(BadInputError, match="damaged") as caught:
        run(street)
    assert "--force" in caught.value.next_step
    run(street, force=True)


def test_leftovers_of_a_crash_and_unlisted_files_are_removed(street, run, caplog):
    folder = run(street).folder
    whole = tree(folder)
    # What a run leaves that is killed while it writes, and what somebody may have put there.
    for stray in (
        "train/images/.0a1b2c3d.IMG_1.jpg",
        ".0a1b2c3d.manifest.json",
        "val/images/a.jpg",
    ):
        (folder / stray).parent.mkdir(parents=True, exist_ok=True)
        (folder / stray).write_bytes(b"half")
    caplog.set_level(logging.INFO)
    result = run(street)
    assert (result.written, result.unchanged) == (0, 15)
    assert "nothing to do" not in caplog.text
    assert tree(folder) == whole
    assert not (folder / "val").exists()


def with_software(monkeypatch, versions):
    monkeypatch.setattr("crowdcount.workflows.preprocess.versions_now", lambda: versions)


def test_versions_are_those_that_wrote_the_files(street, run, monkeypatch):
    with_software(monkeypatch, {"pillow": ("1",)})
    folder = run(street).folder
    with_software(monkeypatch, {"pillow": ("2",), "zlib": ("3",)})
    run(street)  # writes no file, so nothing is said of the newer version
    assert PreparedDataset.open(folder).manifest.versions == {"pillow": ("1",)}
    (folder / "test/images/IMG_2.jpg").unlink()
    run(street)
    mixed = {"pillow": ("1", "2"), "zlib": ("3",)}
    assert PreparedDataset.open(folder).manifest.versions == mixed
    run(street, force=True)
    new = {"pillow": ("2",), "zlib": ("3",)}
    assert PreparedDataset.open(folder).manifest.versions == new


def test_versions_of_an_interrupted_run_are_not_forgotten(street, run, monkeypatch):
    with_software(monkeypatch, {"pillow": ("1",)})
    with pytest.raises(KeyboardInterrupt):
        run(street, track=interrupted_after(6))
    with_software(monkeypatch, {"pillow": ("2",)})
    result = run(street)
    assert PreparedDataset.open(result.folder).manifest.versions == {"pillow": ("1", "2")}


def test_progress_is_reported(street, run, tmp_path):
    seen = []

    def track(items, *, label, total=None):
        seen.append((label, total))
        return untracked(items, label=label)

    run(street, track=track)
    assert seen == [("preprocess street", 15)]
    (tmp_path / "out/test/images/IMG_2.jpg").unlink()
    run(street, track=track)
    assert seen[1:] == [("compare street", 15), ("preprocess street", 1)]


def test_no_job_is_refused(street, run):
    with pytest.raises(UsageError, match="jobs"):
        run(street, jobs=0)


def test_the_manifest_is_plain_json_with_all_that_is_known_of_an_image(street, run):
    manifest = json.loads((run(street).folder / MANIFEST).read_text())
    assert manifest["images"][1] == {
        **manifest["images"][1],
        "split": "train",
        "file": "IMG_2.jpg",
        "source": "train_data/images/IMG_2.jpg",
        "width": 672,
        "height": 448,
        "source_width": 300,
        "source_height": 200,
        "orientation": 1,
        "heads": 3,
    }


DATA = os.environ.get("CROWDCOUNT_TEST_DATA", "")
needs_data = pytest.mark.skipif(not DATA, reason="CROWDCOUNT_TEST_DATA names no data")


@needs_data
@pytest.mark.parametrize(
    ("part", "name", "heads", "resized"),
    [("part_A", "sha", 162_413, 246), ("part_B", "shb", 49_151, 0)],
)
def test_real_training_sets_are_those_of_the_newer_release(tmp_path, part, name, heads, resized):
    source = Path(DATA) / "ShanghaiTech" / part
    (result,) = preprocess(source, out=tmp_path / "out", dry_run=True)
    assert (result.manifest.name, result.manifest.totals["train"].heads) == (name, heads)
    assert result.manifest.release == "newer"
    assert result.warnings[0].startswith("test: 20 images")
    rule = load_recipe(name).resize
    sizes = [image_size(path) for path in (source / "train_data" / "images").iterdir()]
    assert sum(rule.size(width=w, height=h) != (w, h) for w, h in sizes) == resized


@needs_data
def test_real_parts_are_told_by_their_numbers(tmp_path):
    for part, name in (("part_A", "sha"), ("part_B", "shb")):
        folder = tmp_path / f"unpacked{part[-1]}"
        folder.mkdir()
        (folder / "train_data").symlink_to(Path(DATA) / "ShanghaiTech" / part / "train_data")
        (result,) = preprocess(folder, dry_run=True)
        assert result.manifest.name == name


@needs_data
def test_real_street_photographs(tmp_path):
    (result,) = preprocess(Path(DATA) / "street_sample", out=tmp_path / "out")
    heads = {name: (total.images, total.heads) for name, total in result.manifest.totals.items()}
    assert heads == {"train": (30, 487), "test": (8, 136)}
    assert sum(total.heads for total in result.manifest.totals.values()) == 623
    assert (result.manifest.name, result.manifest.complete) == ("street_sample", True)
