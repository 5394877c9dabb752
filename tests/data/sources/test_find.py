import re
from pathlib import Path

import pytest

from crowdcount.data.sources.find import find_sets
from crowdcount.data.sources.pair import pair_splits
from crowdcount.errors import InputMissingError, UsageError
from tests.made_up_sets import (
    WRITERS,
    blank_image,
    empty_file,
    points_table,
    shanghaitech_like,
    write_set,
)


def found(source, **options):
    return {each.name: each.root for each in find_sets(source, **options)}


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("part_A", "sha"),
        ("part_A_final", "sha"),
        ("Part A", "sha"),
        ("sha", "sha"),
        ("ShanghaiTech_A", "sha"),
        ("PART-B", "shb"),
        ("part_B_final", "shb"),
        ("shanghaitech_part_b", "shb"),
    ],
)
def test_the_folder_tells_the_part(tmp_path, folder, name):
    root = shanghaitech_like(tmp_path / folder)
    assert found(root) == {name: root}


@pytest.mark.parametrize("below", ["", "ShanghaiTech", "archive/ShanghaiTech"])
def test_both_parts_are_found_below_other_folders(tmp_path, below):
    a, b = (shanghaitech_like(tmp_path / "sha" / below / part) for part in ("part_A", "part_B"))
    assert found(tmp_path / "sha" / Path(below).parent) == {"sha": a, "shb": b}


def test_the_folder_around_tells_where_the_own_name_does_not(tmp_path):
    root = shanghaitech_like(tmp_path / "sha" / "unpacked")
    assert found(tmp_path / "sha") == {"sha": root}


def test_a_known_set_beside_an_unknown_one(tmp_path):
    street = shanghaitech_like(tmp_path / "street")
    a = shanghaitech_like(tmp_path / "deeper" / "part_A")
    assert found(tmp_path) == {"street": street, "sha": a}


@pytest.mark.parametrize(
    ("train", "test", "size", "name"),
    [
        (400, 316, (1024, 768), "shb"),
        (400, 0, (1024, 768), "shb"),
        (0, 316, (1024, 768), "shb"),
        (400, 316, (40, 30), "photos"),
        (399, 316, (1024, 768), "photos"),
        (300, 182, (40, 30), "sha"),
        (300, 0, (40, 30), "sha"),
        (0, 182, (40, 30), "sha"),
        (300, 20, (40, 30), "photos"),
        (30, 8, (1024, 768), "photos"),
    ],
)
def test_numbers_and_sizes_tell_where_no_name_does(tmp_path, train, test, size, name):
    root = tmp_path / "photos"
    for split, count in (("train", train), ("test", test)):
        folder = root / f"{split}_data" / "images"
        folder.mkdir(parents=True)
        for k in range(1, count + 1):
            if k == 1:
                blank_image(folder / "IMG_1.jpg", size)
            else:
                (folder / f"IMG_{k}.jpg").hardlink_to(folder / "IMG_1.jpg")
        if count:
            empty_file(root / f"{split}_data" / "ground-truth" / "GT_IMG_1.mat")
    assert list(found(root)) == [name]


def test_one_image_of_another_size_is_not_part_b(tmp_path):
    folder = tmp_path / "photos" / "train_data" / "images"
    blank_image(folder / "IMG_1.jpg", (1024, 768))
    for k in range(2, 400):
        (folder / f"IMG_{k}.jpg").hardlink_to(folder / "IMG_1.jpg")
    blank_image(folder / "IMG_400.jpg", (768, 1024))
    assert list(found(tmp_path / "photos")) == ["photos"]


def test_the_user_decides(tmp_path):
    root = shanghaitech_like(tmp_path / "part_A")
    assert found(root, dataset="shb") == {"shb": root}
    assert found(root, dataset="shanghaitech-like") == {"part_a": root}


def test_the_named_one_of_several(tmp_path):
    a = shanghaitech_like(tmp_path / "part_A")
    shanghaitech_like(tmp_path / "part_B")
    assert found(tmp_path, dataset="sha") == {"sha": a}


def test_two_folders_of_one_name_are_told(tmp_path):
    shanghaitech_like(tmp_path / "part_A")
    shanghaitech_like(tmp_path / "part_A_final")
    with pytest.raises(UsageError, match="more than one folder is sha"):
        find_sets(tmp_path)


def test_nothing_recognised_says_what_is_there_and_what_was_looked_for(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputMissingError) as caught:
        find_sets(tmp_path)
    assert "found notes.txt" in caught.value.message
    assert "a table of points" in caught.value.looked_for
    assert "image,x,y" in caught.value.next_step
    assert "crowdcount docs datasets" in caught.value.next_step


@pytest.mark.parametrize(
    ("name", "removed", "lacks"),
    [
        ("sha", "**/*.jpg", r"sha: train_data/images/{id}.jpg, beside \d+ annotations?"),
        ("nwpu", "*.txt", "nwpu: train.txt and val.txt, beside its images"),
        ("jhu", "**/image_labels.txt", "jhu: train/image_labels.txt and .*, beside its images"),
    ],
)
def test_the_nearest_layout_is_named_with_what_it_lacks(tmp_path, name, removed, lacks):
    root = write_set(name, tmp_path, folder="x")
    for path in root.glob(removed):
        path.unlink()
    with pytest.raises(InputMissingError) as caught:
        find_sets(root)
    assert re.search(lacks.replace("{id}", re.escape("{id}")), caught.value.looked_for)


def test_an_unknown_table_is_read_by_its_columns(tmp_path):
    blank_image(tmp_path / "a.jpg")
    (tmp_path / "heads.csv").write_text("photo,col,row\na.jpg,1,2\n")
    with pytest.raises(InputMissingError) as caught:
        find_sets(tmp_path)
    assert "own: a table of points in *.csv or *.json, beside 1 image" in caught.value.looked_for
    assert "--columns" in caught.value.next_step
    (one,) = find_sets(tmp_path, points={"columns": ("photo", "col", "row")})
    assert one.recipe.name == "own"


def test_no_folder_and_a_file(tmp_path):
    with pytest.raises(InputMissingError, match="no such folder"):
        find_sets(tmp_path / "gone")
    (tmp_path / "a.zip").write_bytes(b"x")
    with pytest.raises(InputMissingError, match="is a file"):
        find_sets(tmp_path / "a.zip")


def test_a_link_tells_by_its_own_name(tmp_path):
    shanghaitech_like(tmp_path / "8f3a")
    (tmp_path / "part_A").symlink_to(tmp_path / "8f3a")
    assert list(found(tmp_path / "part_A")) == ["sha"]


# ---- what people really have


@pytest.mark.parametrize("name", WRITERS)
def test_a_set_is_recognised_by_the_name_of_its_archive(tmp_path, name):
    root = write_set(name, tmp_path)
    assert found(tmp_path) == {name: root}


@pytest.mark.parametrize("name", ["qnrf", "nwpu", "jhu", "mall", "brt", "ucf50"])
def test_a_set_in_a_folder_of_another_name_one_level_deeper(tmp_path, name):
    # ucf50 is plain, and told by its fifty images.
    root = write_set(name, tmp_path / "download" / "unzipped (1)", folder="x")
    assert found(tmp_path / "download") == {name: root}


@pytest.mark.parametrize("name", ["qnrf", "nwpu", "jhu", "mall", "brt"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_one_split_alone_is_recognised(tmp_path, name, split):
    if (name, split) == ("nwpu", "test"):
        split = "val"  # nobody has the annotations of its test split
    root = tmp_path / "x"
    root.mkdir()
    WRITERS[name](root, {"train": []} | {split: [1, 2]} if name == "mall" else {split: [1, 2]})
    (one,) = find_sets(root)
    assert one.recipe.name == name
    assert list(pair_splits(one)) == [split]


# ---- nothing is recognised by accident


def test_a_split_of_qnrf_is_not_ucf50(tmp_path):
    root = write_set("qnrf", tmp_path, folder="x")
    with pytest.raises(InputMissingError, match="no data set recognised"):
        find_sets(root / "Train")


def test_a_few_numbered_images_are_not_ucf50_unless_said(tmp_path):
    root = tmp_path / "x"
    root.mkdir()
    WRITERS["ucf50"](root, {"train": [1, 2, 3]})
    with pytest.raises(UsageError, match="is laid out like ucf50") as caught:
        find_sets(root)
    assert "--dataset" in caught.value.next_step
    assert found(root, dataset="ucf50") == {"ucf50": root}


def test_numbered_photographs_are_no_data_set(tmp_path):
    for k in range(1, 51):
        blank_image(tmp_path / f"{k}.jpg")
    with pytest.raises(InputMissingError, match="no data set recognised"):
        find_sets(tmp_path)


@pytest.mark.parametrize("name", WRITERS)
def test_no_other_recipe_takes_a_set_for_its_own(tmp_path, name):
    root = write_set(name, tmp_path)
    # Parts, and annotations in two formats, share their layout.
    alike = ({"sha", "shb"}, {"nwpu", "nwpu-json"})
    others = set(WRITERS) - {name}.union(*(names for names in alike if name in names))
    # Numbered images are all that ucf50 asks for where the user says that it is this set.
    others -= {"ucf50"}
    for other in others:
        with pytest.raises(InputMissingError):
            find_sets(root, dataset=other)


def test_two_recipes_that_fit_ask_which(tmp_path):
    root = write_set("qnrf", tmp_path, folder="x")
    points_table(root, ["Train/img_0001.jpg,1,2"])
    with pytest.raises(UsageError, match="could be any of these sets: own, qnrf"):
        find_sets(root)


# ---- groups
