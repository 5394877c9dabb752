from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crowdcount.data.sources.layout import grouped, recognise, source_splits
from crowdcount.errors import BadInputError, InputMissingError, UsageError
from tests.layouts import WRITERS, write_set


def image(path, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(path)


def annotate(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")


def family(root, *, train=2, test=1, truth="ground-truth", size=(40, 30)):
    """A folder in the layout of ShanghaiTech. Annotations are found here, not read."""
    for split, count in (("train", train), ("test", test)):
        for k in range(1, count + 1):
            image(root / f"{split}_data" / "images" / f"IMG_{k}.jpg", size)
            annotate(root / f"{split}_data" / truth / f"GT_IMG_{k}.mat")
    return root


def table(folder, rows, name="heads.csv"):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("image,x,y\n" + "".join(f"{row}\n" for row in rows))


def found(source, **options):
    return {each.name: each.root for each in recognise(source, **options)}


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
    root = family(tmp_path / folder)
    assert found(root) == {name: root}


@pytest.mark.parametrize("below", ["", "ShanghaiTech", "archive/ShanghaiTech"])
def test_both_parts_are_found_below_other_folders(tmp_path, below):
    a, b = (family(tmp_path / "sha" / below / part) for part in ("part_A", "part_B"))
    assert found(tmp_path / "sha" / Path(below).parent) == {"sha": a, "shb": b}


def test_the_folder_around_tells_where_the_own_name_does_not(tmp_path):
    root = family(tmp_path / "sha" / "unpacked")
    assert found(tmp_path / "sha") == {"sha": root}


def test_a_known_set_beside_an_unknown_one(tmp_path):
    street, a = family(tmp_path / "street"), family(tmp_path / "deeper" / "part_A")
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
                image(folder / "IMG_1.jpg", size)
            else:
                (folder / f"IMG_{k}.jpg").hardlink_to(folder / "IMG_1.jpg")
        if count:
            annotate(root / f"{split}_data" / "ground-truth" / "GT_IMG_1.mat")
    assert list(found(root)) == [name]


def test_one_image_of_another_size_is_not_part_b(tmp_path):
    folder = tmp_path / "photos" / "train_data" / "images"
    image(folder / "IMG_1.jpg", (1024, 768))
    for k in range(2, 400):
        (folder / f"IMG_{k}.jpg").hardlink_to(folder / "IMG_1.jpg")
    image(folder / "IMG_400.jpg", (768, 1024))
    assert list(found(tmp_path / "photos")) == ["photos"]


def test_the_user_decides(tmp_path):
    root = family(tmp_path / "part_A")
    assert found(root, dataset="shb") == {"shb": root}
    assert found(root, dataset="shanghaitech-like") == {"part_a": root}


def test_the_named_one_of_several(tmp_path):
    a = family(tmp_path / "part_A")
    family(tmp_path / "part_B")
    assert found(tmp_path, dataset="sha") == {"sha": a}


def test_two_folders_of_one_name_are_told(tmp_path):
    family(tmp_path / "part_A")
    family(tmp_path / "part_A_final")
    with pytest.raises(UsageError, match="more than one folder is sha"):
        recognise(tmp_path)


@pytest.mark.parametrize("truth", ["ground-truth", "ground_truth"])
def test_either_spelling_of_ground_truth(tmp_path, truth):
    (one,) = recognise(family(tmp_path / "part_A", truth=truth))
    splits = source_splits(one)
    assert {name: len(split.images) for name, split in splits.items()} == {"train": 2, "test": 1}
    assert [each.annotation.parent.name for each in splits["train"].images] == [truth] * 2


def test_images_come_in_natural_order_each_with_its_annotation(tmp_path):
    (one,) = recognise(family(tmp_path / "part_A", train=11))
    images = source_splits(one)["train"].images
    assert [each.name for each in images] == [f"train/IMG_{k}.jpg" for k in range(1, 12)]
    assert all(each.annotation.name == f"GT_{each.path.stem}.mat" for each in images)


def test_unpaired_images_and_where_their_annotation_was_looked_for(tmp_path):
    root = family(tmp_path / "part_A", train=3)
    (root / "train_data/ground-truth/GT_IMG_2.mat").unlink()
    split = source_splits(recognise(root)[0])["train"]
    assert split.unpaired == ("IMG_2.jpg",)
    assert len(split.images) == 2
    wanted = root / "train_data/ground-truth/GT_IMG_2.mat"
    assert split.looked_for == f"{wanted} (and ground_truth)"


def test_litter_is_no_image(tmp_path):
    root = family(tmp_path / "street")
    images = root / "train_data" / "images"
    for name in ("._IMG_1.jpg", "Thumbs.db", ".DS_Store"):
        (images / name).write_bytes(b"x")
    image(tmp_path / "street" / "__MACOSX" / "train_data" / "images" / "IMG_9.jpg")
    assert len(source_splits(recognise(root)[0])["train"].images) == 2


def test_capital_endings_are_images(tmp_path):
    root = family(tmp_path / "part_A", train=1)
    (root / "train_data/images/IMG_1.jpg").rename(root / "train_data/images/IMG_1.JPG")
    (only,) = source_splits(recognise(root)[0])["train"].images
    assert only.file == "IMG_1.JPG"


def test_two_images_of_one_annotation_are_refused(tmp_path):
    root = family(tmp_path / "street", train=1)
    image(root / "train_data/images/IMG_1.png")
    with pytest.raises(BadInputError, match=r"IMG_1\.jpg and IMG_1\.png would share"):
        source_splits(recognise(root)[0])


def test_own_images_with_a_table(tmp_path):
    root = tmp_path / "Our Square"
    for name in ("a.jpg", "deep/er/a.png", "b.jpg"):
        image(root / name)
    table(root, ["a.jpg,1,2", "deep/er/a.png,3,4", "deep/er/a.png,5,6", "b.jpg,,"])
    (one,) = recognise(root)
    assert (one.name, one.recipe.name) == ("our_square", "own")
    (split,) = source_splits(one).values()
    rows = {each.name: each.rows.tolist() for each in split.images}
    assert rows == {
        "train/a.jpg": [[1, 2]],
        "train/b.jpg": [],
        "train/deep/er/a.png": [[3, 4], [5, 6]],
    }
    assert split.unpaired == ()


def test_own_images_in_splits(tmp_path):
    for split in ("train", "val", "test"):
        image(tmp_path / split / "images" / f"{split}.jpg")
        table(tmp_path / split, [f"images/{split}.jpg,1,2"])
    (one,) = recognise(tmp_path)
    assert {
        name: [each.file for each in split.images] for name, split in source_splits(one).items()
    } == {split: [f"images/{split}.jpg"] for split in ("train", "val", "test")}


def test_other_tables_do_no_harm(tmp_path):
    image(tmp_path / "a.jpg")
    table(tmp_path, ["a.jpg,1,2"])
    (tmp_path / "cameras.csv").write_text("camera,place\n1,square\n")
    assert len(source_splits(recognise(tmp_path)[0])["train"].images) == 1


def test_two_tables_of_points_are_one_too_many(tmp_path):
    image(tmp_path / "a.jpg")
    table(tmp_path, ["a.jpg,1,2"])
    table(tmp_path, ["a.jpg,1,2"], name="more.csv")
    with pytest.raises(BadInputError, match="2 tables of points, expected one"):
        source_splits(recognise(tmp_path)[0])


def test_a_table_that_names_missing_images(tmp_path):
    image(tmp_path / "a.jpg")
    table(tmp_path, ["a.jpg,1,2", "b.jpg,1,2", "c.jpg,,"])
    with pytest.raises(InputMissingError, match=r"2 images that are not there: b\.jpg, c\.jpg"):
        source_splits(recognise(tmp_path)[0])


def test_an_image_that_no_row_mentions_is_unpaired(tmp_path):
    image(tmp_path / "a.jpg")
    image(tmp_path / "b.jpg")
    table(tmp_path, ["a.jpg,1,2"])
    split = source_splits(recognise(tmp_path)[0])["train"]
    assert split.unpaired == ("b.jpg",)


def test_a_damaged_table_says_its_line(tmp_path):
    image(tmp_path / "a.jpg")
    table(tmp_path, ["a.jpg,1,2", "a.jpg,1"])
    with pytest.raises(BadInputError, match=r"heads\.csv: line 3"):
        source_splits(recognise(tmp_path)[0])


def test_nothing_recognised_says_what_is_there_and_what_was_looked_for(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputMissingError) as caught:
        recognise(tmp_path)
    assert "found notes.txt" in caught.value.message
    assert "train_data/images/{id}.jpg" in caught.value.looked_for
    assert "image,x,y" in caught.value.next_step


def test_no_folder_and_a_file(tmp_path):
    with pytest.raises(InputMissingError, match="no such folder"):
        recognise(tmp_path / "gone")
    (tmp_path / "a.zip").write_bytes(b"x")
    with pytest.raises(InputMissingError, match="is a file"):
        recognise(tmp_path / "a.zip")


def test_a_link_tells_by_its_own_name(tmp_path):
    family(tmp_path / "8f3a")
    (tmp_path / "part_A").symlink_to(tmp_path / "8f3a")
    assert list(found(tmp_path / "part_A")) == ["sha"]


# ---- what people really have


@pytest.mark.parametrize("name", WRITERS)
def test_a_set_is_told_by_the_name_of_its_archive(tmp_path, name):
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
    (one,) = recognise(root)
    assert one.recipe.name == name
    assert list(source_splits(one)) == [split]


@pytest.mark.parametrize("name", WRITERS)
def test_capital_endings_and_litter_change_nothing(tmp_path, name):
    root = write_set(name, tmp_path)
    before = pairs(root, dataset=name)
    for path in sorted(root.rglob("*.*")):
        if path.suffix in {".jpg", ".mat"}:
            path.rename(path.with_suffix(path.suffix.upper()))
    for folder in [root, *(path for path in sorted(root.rglob("*")) if path.is_dir())]:
        for litter in ("._1.jpg", "._img_0001.jpg", ".DS_Store", "Thumbs.db", "desktop.ini"):
            (folder / litter).write_bytes(b"litter")
    for path in sorted(root.rglob("*.JPG")):
        shadow = root / "__MACOSX" / path.relative_to(root).with_name(f"._{path.name}")
        shadow.parent.mkdir(parents=True, exist_ok=True)
        shadow.write_bytes(b"litter")
    assert list(found(tmp_path)) == [name]
    assert pairs(root, dataset=name) == before


def pairs(root, **options):
    """Image and annotation of every split, whatever the case of their endings."""
    (one,) = recognise(root, **options)
    return {
        split: [(image.name.lower(), image.annotation.name.lower()) for image in there.images]
        for split, there in source_splits(one).items()
    }


def test_folders_may_be_written_in_another_case(tmp_path):
    root = write_set("qnrf", tmp_path)
    (root / "Train").rename(root / "train")
    assert len(source_splits(recognise(root)[0])["train"].images) == 3


# ---- nothing is recognised by accident


def test_a_split_of_qnrf_is_not_ucf50(tmp_path):
    root = write_set("qnrf", tmp_path, folder="x")
    with pytest.raises(InputMissingError, match="no data set recognised"):
        recognise(root / "Train")


def test_a_few_numbered_images_are_not_ucf50_unless_said(tmp_path):
    root = tmp_path / "x"
    root.mkdir()
    WRITERS["ucf50"](root, {"train": [1, 2, 3]})
    with pytest.raises(UsageError, match="is laid out like ucf50") as caught:
        recognise(root)
    assert "--dataset" in caught.value.next_step
    assert found(root, dataset="ucf50") == {"ucf50": root}


def test_numbered_photographs_are_no_data_set(tmp_path):
    for k in range(1, 51):
        image(tmp_path / f"{k}.jpg")
    with pytest.raises(InputMissingError, match="no data set recognised"):
        recognise(tmp_path)


@pytest.mark.parametrize("name", WRITERS)
def test_no_other_recipe_takes_a_set_for_its_own(tmp_path, name):
    root = write_set(name, tmp_path)
    others = set(WRITERS) - {name} - ({"sha", "shb"} if name in {"sha", "shb"} else set())
    # Numbered images are all that ucf50 asks for where the user says that it is this set.
    others -= {"ucf50"}
    for other in others:
        with pytest.raises(InputMissingError):
            recognise(root, dataset=other)


def test_two_recipes_that_fit_ask_which(tmp_path):
    root = write_set("qnrf", tmp_path, folder="x")
    table(root, ["Train/img_0001.jpg,1,2"])
    with pytest.raises(UsageError, match="could be any of these sets: own, qnrf"):
        recognise(root)


# ---- groups


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 99)), unique=True))
def test_groups_are_what_the_placeholder_stands_for(images):
    files = {f"cam{camera}_{k}.JPG": str(camera) for camera, k in images}
    assert grouped([*files, "other.jpg"], "cam{group}_*.jpg") == files
