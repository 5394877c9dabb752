"""Points written for annotation tools, read back by the rules of each format."""

import csv
import io
import json
import shutil
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.errors import BadInputError, ConfigError, InputMissingError, UsageError
from crowdcount.workflows.convert import WRITERS, AnnotatedImage, convert
from crowdcount.workflows.preprocess import preprocess


def from_csv(files):
    points = {}
    for row in csv.DictReader(io.StringIO(files["points.csv"])):
        heads = points.setdefault(row["image"], [])
        if row["x"]:
            heads.append((float(row["x"]), float(row["y"])))
    return points


def from_coco(files):
    content = json.loads(files["annotations.json"])
    names = {image["id"]: image["file_name"] for image in content["images"]}
    points = {name: [] for name in names.values()}
    for head in content["annotations"]:
        x, y, visible = head["keypoints"]
        assert visible == 2
        points[names[head["image_id"]]].append((x, y))
    return points


def from_labelme(files):
    points = {}
    for name, text in files.items():
        content = json.loads(text)
        folder = name.rpartition("/")[0]
        image = f"{folder}/{content['imagePath']}".lstrip("/")
        points[image] = [tuple(shape["points"][0]) for shape in content["shapes"]]
        assert all(shape["shape_type"] == "point" for shape in content["shapes"])
    return points


def from_labelstudio(files):
    points = {}
    for task in json.loads(files["tasks.json"]):
        path = parse_qs(urlsplit(task["data"]["image"]).query)["d"][0]
        points[path.removeprefix("train/")] = [
            (
                head["value"]["x"] * head["original_width"] / 100,
                head["value"]["y"] * head["original_height"] / 100,
            )
            for head in task["annotations"][0]["result"]
        ]
    return points


def from_cvat(files):
    root = ElementTree.fromstring(files["annotations.xml"])
    return {
        image.get("name"): [
            tuple(map(float, head.get("points").split(","))) for head in image.iter("points")
        ]
        for image in root.iter("image")
    }


READ_BACK = {
    "csv": from_csv,
    "coco": from_coco,
    "labelme": from_labelme,
    "labelstudio": from_labelstudio,
    "cvat": from_cvat,
}

COORDINATES = st.floats(-50, 5000, allow_nan=False)


@pytest.mark.parametrize("to", WRITERS)
@given(
    heads=st.lists(
        st.lists(st.tuples(COORDINATES, COORDINATES), max_size=5), min_size=1, max_size=4
    )
)
def test_every_format_keeps_every_head_and_its_position(to, heads):
    files = [f'a b/plaza & <{number}>, "é" #1?.jpg' for number in range(len(heads))]
    images = [
        AnnotatedImage(
            split="train",
            file=file,
            width=641,
            height=479,
            heads=np.array(points, dtype=float).reshape(-1, 2),
        )
        for file, points in zip(files, heads, strict=True)
    ]
    read = READ_BACK[to](WRITERS[to](images))
    assert list(read) == files
    for file, points in zip(files, heads, strict=True):
        assert len(read[file]) == len(points)
        # Percentages are rounded.
        tolerance = 1e-12 if to == "labelstudio" else 0
        assert np.allclose(
            np.reshape(read[file], (-1, 2)),
            np.reshape(points, (-1, 2)),
            rtol=tolerance,
            atol=tolerance,
        )


@pytest.mark.parametrize("to", WRITERS)
def test_a_converted_set_is_prepared_again_with_the_same_points(prepared, tmp_path, to):
    heads = convert(prepared.folder, to=to, output=tmp_path / "tool")
    assert heads == sum(record.heads for record in prepared.manifest.images) > 0
    preprocess(tmp_path / "tool", out=tmp_path / "again")
    again = PreparedDataset.open(tmp_path / "again")
    records = {record.name: record for record in again.manifest.images}
    assert set(records) == {record.name for record in prepared.manifest.images}
    for record in prepared.manifest.images:
        points, expected = again.points(records[record.name]), prepared.points(record)
        # Percentages are rounded, and COCO's numbers are no doubles in every tool.
        assert np.allclose(points, expected, rtol=0, atol=1e-9 if to == "labelstudio" else 0)


@pytest.mark.parametrize("frame", ["upright", "stored"])
def test_points_of_a_source_are_in_the_upright_frame(tmp_path, frame):
    exif = Image.Exif()
    exif[0x0112] = 6
    source = tmp_path / "photos"
    source.mkdir()
    Image.new("RGB", (640, 480)).save(source / "a.jpg", exif=exif)
    # Stored (x, y) is shown at (480 - y, x).
    (source / "points.csv").write_text(
        "image,x,y\na.jpg,400.5,100.5\n" if frame == "upright" else "image,x,y\na.jpg,100.5,79.5\n"
    )
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        'title = "Mine"\nhomepage = "-"\nlicence = "-"\ncitation = "-"\n'
        f'[points]\nreader = "csv"\nframe = "{frame}"\n'
        "[resize]\nshort_side_min = 32\nmultiple_of = 32\n"
        '[splits.train]\nimages = "*.jpg"\npoints = "points.csv"\n'
    )
    convert(source, to="csv", output=tmp_path / "tool", dataset=recipe)
    table = (tmp_path / "tool/train/points.csv").read_text()
    x, y = map(float, table.splitlines()[1].split(",")[1:])
    assert (x, y) == pytest.approx((400.5, 100.5), abs=0.51)
    assert (tmp_path / "tool/train/a.jpg").read_bytes() == (source / "a.jpg").read_bytes()


def test_images_without_annotation_are_refused_or_left_out(tmp_path):
    source = tmp_path / "photos"
    source.mkdir()
    for name in ("a.jpg", "b.jpg"):
        Image.new("RGB", (64, 48)).save(source / name)
    (source / "points.csv").write_text("image,x,y\na.jpg,3,4\n")
    with pytest.raises(InputMissingError, match=r"b\.jpg") as raised:
        convert(source, to="csv", output=tmp_path / "tool")
    assert "--skip-unpaired" in raised.value.next_step
    assert convert(source, to="csv", output=tmp_path / "tool", skip_unpaired=True) == 1


def test_what_cannot_be_written_is_refused_and_nothing_changes(prepared, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(prepared.folder, data)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match="--to: expected coco, labelme"):
        convert(data, to="coc", output=tmp_path / "tool")
    for output in (data, data / "tool", tmp_path):
        with pytest.raises(UsageError, match="lies in"):
            convert(data, to="coco", output=output, force=True)
    assert sorted(tmp_path.rglob("*")) == before
    (tmp_path / "tool").mkdir()
    with pytest.raises(UsageError, match="already exists"):
        convert(data, to="coco", output=tmp_path / "tool")
    assert convert(data, to="coco", output=tmp_path / "tool", force=True) > 0


@pytest.mark.parametrize(
    ("names", "to", "problem"),
    [
        (("a.jpg", "a.png"), "labelme", "extension alone"),
        (("a\x01.jpg",), "cvat", "control characters"),
    ],
)
def test_names_that_a_format_cannot_hold_are_refused(tmp_path, names, to, problem):
    source = tmp_path / "photos"
    source.mkdir()
    for name in names:
        Image.new("RGB", (64, 48)).save(source / name)
    rows = "".join(f"{name},3,4\n" for name in names)
    (source / "points.csv").write_text(f"image,x,y\n{rows}")
    with pytest.raises(BadInputError, match=problem):
        convert(source, to=to, output=tmp_path / "tool")
    assert not (tmp_path / "tool").exists()
