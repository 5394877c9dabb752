import numpy as np
import pytest
import scipy.io

from crowdcount.data.sources.find import find_sets
from crowdcount.data.sources.pair import pair_splits
from crowdcount.errors import BadInputError, InputMissingError
from tests.data.sources.tool_files import HEADS, TOOL_FILES, tool_files
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


def test_two_tables_may_share_the_images_but_none_of_them(tmp_path):
    blank_image(tmp_path / "a.jpg")
    blank_image(tmp_path / "b.jpg")
    points_table(tmp_path, ["a.jpg,1,2"])
    points_table(tmp_path, ["b.jpg,3,4", "b.jpg,5,6"], name="more.csv")
    images = pair_splits(find_sets(tmp_path)[0])["train"].images
    assert [len(each.rows) for each in images] == [1, 2]
    points_table(tmp_path, ["a.jpg,1,2", "b.jpg,3,4"], name="more.csv")
    with pytest.raises(BadInputError, match=r"a\.jpg: has points in .*heads\.csv and in"):
        pair_splits(find_sets(tmp_path)[0])


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ("points.csv", ".\\Photos\\A.JPG"),
        ("points.csv", "a.jpg"),
        ("annotations/points.csv", "../photos/a.jpg"),
        ("annotations/points.csv", "photos/a.jpg"),
        ("annotations/points.csv", "a.jpg"),
    ],
)
def test_a_table_may_name_an_image_by_the_end_of_its_path(tmp_path, table, name):
    blank_image(tmp_path / "photos/a.jpg")
    points_table((tmp_path / table).parent, [f"{name},1,2"], name="points.csv")
    (image,) = pair_splits(find_sets(tmp_path)[0])["train"].images
    assert (image.file, image.rows.tolist()) == ("photos/a.jpg", [[1.0, 2.0]])


def test_a_name_that_fits_several_images_is_refused(tmp_path):
    blank_image(tmp_path / "day/a.jpg")
    blank_image(tmp_path / "night/a.jpg")
    points_table(tmp_path, ["a.jpg,1,2", "night/a.jpg,1,2"])
    with pytest.raises(BadInputError, match=r"a\.jpg may be any of .*day/a\.jpg, .*night/a\.jpg"):
        pair_splits(find_sets(tmp_path)[0])
    points_table(tmp_path, ["day/a.jpg,1,2", "night/a.jpg,1,2", "NIGHT/a.jpg,1,2"])
    with pytest.raises(BadInputError, match=r"names .*night/a\.jpg twice, once as NIGHT/a\.jpg"):
        pair_splits(find_sets(tmp_path)[0])


@pytest.mark.parametrize("tool", TOOL_FILES)
@pytest.mark.parametrize("split", [False, True])
def test_files_of_tools_beside_images_are_paired(tmp_path, tool, split):
    folder = tmp_path / "train" if split else tmp_path
    for name in HEADS:
        blank_image(folder / name, size=(640, 448))
    for name, content in tool_files(tool).items():
        (folder / name).write_bytes(content)
    (one,) = find_sets(tmp_path)
    paired = pair_splits(one)["train"]
    assert {image.file: len(image.rows) for image in paired.images} == {
        name: len(heads) for name, heads in HEADS.items()
    }
    assert paired.unpaired == ()


@pytest.mark.parametrize(
    ("images", "points"),
    [
        ("{}", "{}"),
        ("images/{}", "labels/{}"),
        ("train/{}", "train/{}"),
        ("train/images/{}", "train/labels/{}"),
        ("images/train/{}", "labels/train/{}"),
    ],
)
@pytest.mark.parametrize("reader", ["yolo", "txt", "npy"])
def test_files_for_each_image_are_paired(tmp_path, images, points, reader):
    heads = np.array([[0.25, 0.5], [0.75, 0.125]])
    for name, number in (("a", 2), ("b", 0)):
        blank_image(tmp_path / images.format(f"{name}.jpg"), size=(640, 448))
        path = tmp_path / points.format(f"{name}.{'npy' if reader == 'npy' else 'txt'}")
        path.parent.mkdir(parents=True, exist_ok=True)
        if reader == "npy":
            np.save(path, heads[:number] * (640, 448))
        elif reader == "txt":
            path.write_text("".join(f"{640 * x} {448 * y}\n" for x, y in heads[:number]))
        else:
            path.write_text("".join(f"0 {x} {y} 0.1 0.1\n" for x, y in heads[:number]))
    (one,) = find_sets(tmp_path)
    first, second = pair_splits(one)["train"].images
    found = one.recipe.points
    read = [found.read(each.annotation.read_bytes()) for each in (first, second)]
    in_pixels = [found.in_pixels(each, size=(640, 448)).tolist() for each in read]
    assert in_pixels == [[[160.0, 224.0], [480.0, 56.0]], []]


def listed(tmp_path, listing="{}"):
    """NWPU's layout: lists say whose images are whose."""
    for number in range(1, 6):
        blank_image(tmp_path / f"images_part1/{number:04d}.jpg")
        mat = tmp_path / f"mats/{number:04d}.mat"
        mat.parent.mkdir(exist_ok=True)
        scipy.io.savemat(mat, {"annPoints": np.ones((number, 2))})
    for split, numbers in (("train", (1, 2, 3)), ("val", (4, 5))):
        lines = (listing.format(f"{number:04d}") for number in numbers)
        (tmp_path / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.mark.parametrize(
    "listing", ["{}", "{} 0 1", "{}.jpg", "images_part1/{}.jpg 0 1", "images_part1\\{}.JPG"]
)
def test_lists_may_name_images_with_folder_and_ending(tmp_path, listing):
    (one,) = find_sets(listed(tmp_path, listing), dataset="nwpu")
    splits = pair_splits(one)
    assert {name: len(split.images) for name, split in splits.items()} == {"train": 3, "val": 2}
    assert all(split.absent == split.unpaired == () for split in splits.values())


def test_a_missing_list_is_an_error_that_names_it(tmp_path):
    root = listed(tmp_path)
    (root / "val.txt").unlink()
    with pytest.raises(InputMissingError, match=r"val\.txt is missing") as caught:
        pair_splits(find_sets(root, dataset="nwpu")[0])
    assert caught.value.looked_for == str(root / "val.txt")


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
