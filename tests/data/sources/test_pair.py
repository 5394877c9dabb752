import pytest

from crowdcount.data.sources.find import find_sets
from crowdcount.data.sources.pair import pair_splits
from crowdcount.errors import BadInputError, InputMissingError
from tests.made_up_sets import WRITERS, blank_image, points_table, shanghaitech_like, write_set


@pytest.mark.parametrize("truth", ["ground-truth", "ground_truth"])
def test_either_spelling_of_ground_truth(tmp_path, truth):
    (one,) = find_sets(shanghaitech_like(tmp_path / "part_A", truth=truth))
    splits = pair_splits(one)
    assert {name: len(split.images) for name, split in splits.items()} == {"train": 2, "test": 1}
    assert [each.annotation.parent.name for each in splits["train"].images] == [truth] * 2


def test_images_come_in_natural_order_each_with_its_annotation(tmp_path):
    (one,) = find_sets(shanghaitech_like(tmp_path / "part_A", train=11))
    images = pair_splits(one)["train"].images
    assert [each.name for each in images] == [f"train/IMG_{k}.jpg" for k in range(1, 12)]
    assert all(each.annotation.name == f"GT_{each.path.stem}.mat" for each in images)


def test_unpaired_images_and_where_their_annotation_was_looked_for(tmp_path):
    root = shanghaitech_like(tmp_path / "part_A", train=3)
    (root / "train_data/ground-truth/GT_IMG_2.mat").unlink()
    split = pair_splits(find_sets(root)[0])["train"]
    assert split.unpaired == ("IMG_2.jpg",)
    assert len(split.images) == 2
    wanted = root / "train_data/ground-truth/GT_IMG_2.mat"
    assert split.looked_for == f"{wanted} (and ground_truth)"


def test_litter_is_no_image(tmp_path):
    root = shanghaitech_like(tmp_path / "street")
    images = root / "train_data" / "images"
    for name in ("._IMG_1.jpg", "Thumbs.db", ".DS_Store"):
        (images / name).write_bytes(b"x")
    blank_image(tmp_path / "street" / "__MACOSX" / "train_data" / "images" / "IMG_9.jpg")
    assert len(pair_splits(find_sets(root)[0])["train"].images) == 2


def test_capital_endings_are_images(tmp_path):
    root = shanghaitech_like(tmp_path / "part_A", train=1)
    (root / "train_data/images/IMG_1.jpg").rename(root / "train_data/images/IMG_1.JPG")
    (only,) = pair_splits(find_sets(root)[0])["train"].images
    assert only.file == "IMG_1.JPG"


def test_two_images_of_one_annotation_are_refused(tmp_path):
    root = shanghaitech_like(tmp_path / "street", train=1)
    blank_image(root / "train_data/images/IMG_1.png")
    with pytest.raises(BadInputError, match=r"IMG_1\.jpg and IMG_1\.png would share"):
        pair_splits(find_sets(root)[0])


def test_two_frames_of_one_number_are_refused(tmp_path):
    root = write_set("mall", tmp_path)
    blank_image(root / "frames" / "seq_2.jpg")
    with pytest.raises(BadInputError, match=r"seq_000002\.jpg and seq_2\.jpg would share"):
        pair_splits(find_sets(root)[0])


def test_own_images_with_a_table(tmp_path):
    root = tmp_path / "Our Square"
    for name in ("a.jpg", "deep/er/a.png", "b.jpg"):
        blank_image(root / name)
    points_table(root, ["a.jpg,1,2", "deep/er/a.png,3,4", "deep/er/a.png,5,6", "b.jpg,,"])
    (one,) = find_sets(root)
    assert (one.name, one.recipe.name) == ("our_square", "own")
    (split,) = pair_splits(one).values()
    rows = {each.name: each.rows.tolist() for each in split.images}
    assert rows == {
        "train/a.jpg": [[1, 2]],
        "train/b.jpg": [],
        "train/deep/er/a.png": [[3, 4], [5, 6]],
    }
    assert split.unpaired == ()


def test_own_images_in_splits(tmp_path):
    for split in ("train", "val", "test"):
        blank_image(tmp_path / split / "images" / f"{split}.jpg")
        points_table(tmp_path / split, [f"images/{split}.jpg,1,2"])
    (one,) = find_sets(tmp_path)
    assert {
        name: [each.file for each in split.images] for name, split in pair_splits(one).items()
    } == {split: [f"images/{split}.jpg"] for split in ("train", "val", "test")}


def test_other_tables_do_no_harm(tmp_path):
    blank_image(tmp_path / "a.jpg")
    points_table(tmp_path, ["a.jpg,1,2"])
    (tmp_path / "cameras.csv").write_text("camera,place\n1,square\n")
    assert len(pair_splits(find_sets(tmp_path)[0])["train"].images) == 1


def test_two_tables_of_points_are_one_too_many(tmp_path):
    blank_image(tmp_path / "a.jpg")
    points_table(tmp_path, ["a.jpg,1,2"])
    points_table(tmp_path, ["a.jpg,1,2"], name="more.csv")
    with pytest.raises(BadInputError, match="2 tables of points, expected one"):
        pair_splits(find_sets(tmp_path)[0])


def test_a_table_that_names_missing_images(tmp_path):
    blank_image(tmp_path / "a.jpg")
    points_table(tmp_path, ["a.jpg,1,2", "b.jpg,1,2", "c.jpg,,"])
    with pytest.raises(InputMissingError, match=r"2 images that do not exist: b\.jpg, c\.jpg"):
        pair_splits(find_sets(tmp_path)[0])


def test_an_image_that_no_row_mentions_is_unpaired(tmp_path):
    blank_image(tmp_path / "a.jpg")
    blank_image(tmp_path / "b.jpg")
    points_table(tmp_path, ["a.jpg,1,2"])
    split = pair_splits(find_sets(tmp_path)[0])["train"]
    assert split.unpaired == ("b.jpg",)


def test_a_damaged_table_says_its_line(tmp_path):
    blank_image(tmp_path / "a.jpg")
    points_table(tmp_path, ["a.jpg,1,2", "a.jpg,1"])
    with pytest.raises(BadInputError, match=r"heads\.csv: line 3"):
        pair_splits(find_sets(tmp_path)[0])


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
    assert [each.name for each in find_sets(tmp_path)] == [name]
    assert pairs(root, dataset=name) == before


def pairs(root, **options):
    """Image and annotation of every split, whatever the case of their endings."""
    (one,) = find_sets(root, **options)
    return {
        split: [(image.name.lower(), image.annotation.name.lower()) for image in there.images]
        for split, there in pair_splits(one).items()
    }


def test_folders_may_be_written_in_another_case(tmp_path):
    root = write_set("qnrf", tmp_path)
    (root / "Train").rename(root / "train")
    assert len(pair_splits(find_sets(root)[0])["train"].images) == 3
