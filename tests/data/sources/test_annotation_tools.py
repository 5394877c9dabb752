"""Files of annotation tools, made after their documentation: every head is read, at its place."""

import json
import logging

import numpy as np
import pytest

from crowdcount.data.sources.annotations import PointsFormat
from tests.data.sources.tool_files import HEADS, TOOL_FILES, tool_files

TABLE = PointsFormat(reader="table")


def read(content, **settings):
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    points = PointsFormat(reader="table", **settings)
    assert points.is_table_of_points(content)
    return {image: heads.tolist() for image, heads in points.read_table(content).items()}


@pytest.mark.parametrize("tool", TOOL_FILES)
def test_every_tool_keeps_every_head_and_empty_scenes(tool):
    found = {}
    for content in tool_files(tool).values():
        for image, points in read(content).items():
            assert image not in found
            found[image] = points
    assert set(found) == set(HEADS)
    for image, points in HEADS.items():
        np.testing.assert_allclose(
            np.reshape(found[image], (-1, 2)), np.reshape(points, (-1, 2)), atol=1e-9
        )


BOX = {"x": 10.0, "y": 20.0, "width": 4.0, "height": 6.0}
BOXES = {
    "coco": {
        "images": [{"id": 7, "file_name": "a.jpg"}],
        "annotations": [{"image_id": 7, "category_id": 1, "bbox": [10, 20, 4, 6]}],
    },
    "labelme": {
        "imagePath": "a.jpg",
        "shapes": [{"label": "head", "shape_type": "rectangle", "points": [[10, 20], [14, 26]]}],
    },
    "labelstudio": [
        {
            "data": {"image": "/data/upload/1/0123abcd-a.jpg"},
            "annotations": [
                {
                    "result": [
                        {
                            "type": "rectanglelabels",
                            "original_width": 100,
                            "original_height": 100,
                            "value": BOX | {"rectanglelabels": ["head"]},
                        }
                    ]
                }
            ],
        }
    ],
    "via": {
        "a.jpg1": {
            "filename": "a.jpg",
            "regions": {"0": {"shape_attributes": {"name": "rect"} | BOX}},
        }
    },
    "cvat": b'<annotations><image name="a.jpg"><box label="head" xtl="10" ytl="20" xbr="14" '
    b'ybr="26"/></image></annotations>',
}


@pytest.mark.parametrize("tool", BOXES)
def test_a_box_counts_by_its_centre_and_that_is_said(tool, caplog):
    caplog.set_level(logging.INFO, logger="crowdcount")
    (heads,) = read(BOXES[tool]).values()
    assert heads == [[12.0, 23.0]]
    assert "boxes count by their centres: 1" in caplog.text


def coco(*labels, keypoints=("head",)):
    """An annotation for each label, the n-th at (n, n)."""
    names = sorted(set(labels))
    return {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
        "categories": [
            {"id": names.index(name), "name": name, "keypoints": list(keypoints)} for name in names
        ],
        "annotations": [
            {"image_id": 1, "category_id": names.index(name), "keypoints": [n, n, 2]}
            for n, name in enumerate(labels)
        ],
    }


def test_the_label_that_says_so_is_a_head_or_the_only_one_or_the_given():
    assert read(coco("car", "Person", "head")) == {"a.jpg": [[1, 1], [2, 2]], "b.jpg": []}
    assert read(coco("p", "p")) == {"a.jpg": [[0, 0], [1, 1]], "b.jpg": []}
    assert read(coco("car", "p"), label="p") == {"a.jpg": [[1, 1]], "b.jpg": []}
    with pytest.raises(ValueError, match=r"which label is a head\? Found car, p: .*--label"):
        read(coco("car", "p"))


def test_a_file_of_one_image_cannot_tell_which_label_is_a_head():
    """Another file of the set may hold heads beside the cars of this one."""
    shape = {"label": "car", "shape_type": "point", "points": [[1, 2]]}
    content = {"imagePath": "a.jpg", "shapes": [shape]}
    with pytest.raises(ValueError, match="which label is a head"):
        read(content)
    assert read(content, label="car") == {"a.jpg": [[1, 2]]}
    assert read(content, label="head") == {"a.jpg": []}


def test_the_keypoint_called_head_is_taken_of_several():
    content = coco("person", keypoints=("foot", "head"))
    content["annotations"][0]["keypoints"] = [1, 2, 2, 3, 4, 2]
    assert read(content)["a.jpg"] == [[3, 4]]
    # Not in the picture: the box tells.
    content["annotations"][0] |= {"keypoints": [1, 2, 2, 0, 0, 0], "bbox": [5, 5, 2, 2]}
    assert read(content)["a.jpg"] == [[6, 6]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (coco("head") | {"annotations": [{"image_id": 9}]}, "annotations.0: no image has the id 9"),
        (coco("head") | {"annotations": [{"image_id": 1}]}, "annotations.0: neither a keypoint"),
        (coco("head") | {"annotations": [{"image_id": 1, "bbox": [1, 2]}]}, "annotations.0.bbox"),
        (coco("head") | {"images": [{"id": 1, "file_name": "a"}] * 2}, "a occurs twice"),
        (
            {
                "imagePath": "a.jpg",
                "shapes": [{"label": "head", "shape_type": "polygon", "points": [[1, 2]] * 3}],
            },
            "shapes.0: expected a point, circle or rectangle, found 'polygon'",
        ),
        ([{"data": {"image": "a"}, "annotations": [{"result": []}] * 2}], "2 annotations"),
        ([{"data": {"n": 3}, "annotations": [{"result": []}]}], "task 1 names no image"),
        (
            [{"data": {"image": "a"}, "annotations": [{"result": [{"type": "choices"}]}]}],
            "expected key points, found 'choices'",
        ),
        (
            {"a": {"filename": "a", "regions": [{"shape_attributes": {"name": "polygon"}}]}},
            "expected a point or rectangle, found 'polygon'",
        ),
        ({"img_id": "a.jpg", "points": [{"x": 1}]}, "points.0"),
        (b"<annotations><image/></annotations>", "not CVAT's annotations of images"),
        (b'<annotations><image name="a"><polygon/></image></annotations>', "found 'polygon'"),
        (b'<annotations><image name="a"><points points="1"/></image></annotations>', "2 numbers"),
        (b'<!DOCTYPE a [<!ENTITY b "c">]><annotations/>', "document type"),
        (b"<annotations><image", "not XML"),
    ],
)
def test_what_is_no_head_is_refused_by_its_place(content, message):
    with pytest.raises(ValueError, match=message):
        read(content)


def test_a_number_that_differs_from_the_points_is_said(caplog):
    content = {"img_id": "a.jpg", "human_num": 3, "points": [[1, 2]]}
    assert read(content) == {"a.jpg": [[1, 2]]}
    assert "a.jpg: says 3 heads and holds 1 points, which count" in caplog.text


def test_a_task_that_nobody_annotated_is_no_empty_scene():
    tasks = [
        {"data": {"image": "a.jpg"}, "annotations": []},
        {"data": {"image": "b.jpg"}, "annotations": [{"result": [], "was_cancelled": True}]},
        {"data": {"image": "c.jpg"}, "annotations": [{"result": []}]},
    ]
    assert read(tasks) == {"c.jpg": []}


@pytest.mark.parametrize(
    ("content", "columns"),
    [
        (b"image;x;y\na.jpg;1,5;2\n", None),
        (b"filename\tcx\tcy\na.jpg\t1.5\t2\n", None),
        (b"label,y,x,image\nhead,2,1.5,a.jpg\n", None),
        ("Image,X,Y,score\n./a.jpg,1.5,2,0.9\n".encode("utf-16"), None),
        (b"photo,col,row\na.jpg,1.5,2\n", ("photo", "col", "row")),
        (b"photo,col,row\na.jpg,1.5,2\n", ("1", "2", "3")),
        (b"2,1.5,a.jpg\n", ("3", "2", "1")),
    ],
)
def test_tables_of_other_forms_are_read(content, columns):
    assert read(content, columns=columns) == {"a.jpg": [[1.5, 2.0]]}


def test_columns_that_are_not_there_are_no_table():
    points = PointsFormat(reader="table", columns=("photo", "col", "row"))
    assert not points.is_table_of_points(b"image,x,y\na.jpg,1,2\n")
    with pytest.raises(ValueError, match="first line is 'image,x,y'"):
        points.read_table(b"image,x,y\na.jpg,1,2\n")
    assert not TABLE.is_table_of_points(b"photo,col,row\na.jpg,1.5,2\n")
