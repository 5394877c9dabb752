"""The examples of docs/datasets.md on annotations, as people would use them."""

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.data.sources.annotation_tools import JSON_TOOLS
from crowdcount.data.sources.annotations import READERS, TABLES, PointsFormat
from crowdcount.data.sources.point_frame import frame_of
from crowdcount.data.sources.recipe import load_recipe
from crowdcount.workflows.preprocess import preprocess

TEXT = (Path(__file__).parents[1] / "docs" / "datasets.md").read_text(encoding="utf-8")
SECTIONS = {
    part.splitlines()[0]: re.findall(r"^```(\w+)\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
    for part in re.split(r"^##+ ", TEXT, flags=re.MULTILINE)
}
HEADS = [[120.5, 80.0], [131.0, 92.25]]
TABLE_BLOCKS = [
    pytest.param(kind, code, id=f"{kind}{number}")
    for blocks in SECTIONS.values()
    for number, (kind, code) in enumerate(blocks)
    if kind in ("csv", "json")
]


def settings(section):
    return [tomllib.loads(code) for kind, code in SECTIONS[section] if kind == "toml"]


@pytest.mark.parametrize(("kind", "code"), TABLE_BLOCKS)
def test_a_table_is_prepared_as_it_says(kind, code, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    (own / f"heads.{kind}").write_text(code, encoding="utf-8")
    for name in ("plaza.jpg", "empty.jpg"):
        Image.new("RGB", (512, 448)).save(own / name)
    (result,) = preprocess(own, out=tmp_path / "out", strict=True)
    data = PreparedDataset.open(result.folder)
    assert {each.file: data.points(each).tolist() for each in data.all_training()} == {
        "plaza.jpg": HEADS,
        "empty.jpg": [],
    }


@pytest.mark.parametrize("example", range(2))
def test_matlab_files_are_read_as_they_are_written(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    points = PointsFormat(**settings("MATLAB")[example])
    exec([code for kind, code in SECTIONS["MATLAB"] if kind == "python"][example], {})
    assert points.read(Path("plaza.mat").read_bytes()).tolist() == HEADS
    assert points.read(Path("empty.mat").read_bytes()).shape == (0, 2)


def test_frames_are_read_as_they_are_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    section = "All frames of a video in one MATLAB file"
    (points,) = settings(section)
    (code,) = (code for kind, code in SECTIONS[section] if kind == "python")
    exec(code, {})
    table = PointsFormat(**points).read_table(Path("frames.mat").read_bytes())
    assert {frame: heads.tolist() for frame, heads in table.items()} == {"1": HEADS, "2": []}


def test_texts_are_read_as_they_are_shown():
    (points,) = settings("Text")
    plaza, empty = (code for kind, code in SECTIONS["Text"] if kind == "text")
    assert PointsFormat(**points).read(plaza.encode()).tolist() == HEADS
    assert PointsFormat(**points).read(empty.encode()).shape == (0, 2)


def test_files_for_each_image_are_read_as_they_are_shown(tmp_path):
    """The settings of each, with a file that fits its sentence."""
    files = {
        "file": b"120.5 80\n131 92.25\n",
        "yolo": b"0 0.235352 0.178571 0.1 0.1\n0 0.255859 0.205915 0.1 0.1\n",
        "nwpu-json": b'{"img_id": "plaza.jpg", "points": [[120.5, 80], [131, 92.25]]}',
    }
    shown = settings("A file for each image")
    assert {each["reader"] for each in shown} == set(files)
    for each in shown:
        points = PointsFormat(**each)
        read = points.in_pixels(points.read(files[each["reader"]]), size=(512, 448))
        np.testing.assert_allclose(read, HEADS, atol=1e-3)


def test_every_tool_is_named():
    (points,) = settings("Files of annotation tools")
    assert PointsFormat(**points).is_table
    text = TEXT.partition("### Files of annotation tools")[2].partition("\n### ")[0].lower()
    assert all(
        tool.replace("labelstudio", "label studio") in text for tool in (*JSON_TOOLS, "cvat")
    )


def test_the_defaults_are_those_shown():
    (shown,) = settings("Order, frame and scale")
    points = PointsFormat(reader=shown["reader"])
    # What is not set is told by the points, and is this.
    told = replace(points, frame=frame_of([]), scale=1.0)
    assert PointsFormat(**shown) == told
    heads = np.array([[1.5, 2.0]])
    assert (points.in_pixels(heads, size=(9, 9)) == told.in_pixels(heads, size=(9, 9))).all()


def test_the_recipe_shown_is_valid(tmp_path):
    (code,) = (code for kind, code in SECTIONS["Recipes"] if kind == "toml")
    file = tmp_path / "square.toml"
    file.write_text(code, encoding="utf-8")
    assert load_recipe(file).title == "Lantern Square"


def test_every_format_is_shown():
    # "table" is what the section of own images is about; "jsonl" is an earlier name of JSON.
    shown = {kind for blocks in SECTIONS.values() for kind, _ in blocks}
    shown |= {
        each["reader"] for section in SECTIONS for each in settings(section) if "reader" in each
    }
    assert {*READERS, *TABLES} - {"table", "jsonl"} <= shown
    assert len(TABLE_BLOCKS) == 2
