import contextlib
import io
import json

import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from crowdcount.data.sources.annotations import READERS, TABLES, PointsFormat
from crowdcount.errors import ConfigError

NESTED = "image_info[0][0][0][0][0]"

finite = st.floats(-1e6, 1e6)
heads = arrays(np.float64, st.tuples(st.integers(0, 40), st.just(2)), elements=finite)


def mat(**variables):
    content = io.BytesIO()
    scipy.io.savemat(content, variables)
    return content.getvalue()


def nested_mat(points):
    """As ShanghaiTech stores them: a cell that holds a structure."""
    cell = np.empty((1, 1), dtype=object)
    cell[0, 0] = {"location": points, "number": len(points)}
    return mat(image_info=cell)


def npy(points):
    content = io.BytesIO()
    np.save(content, points)
    return content.getvalue()


def mat_frames(*frames):
    """As Mall stores them: a cell for each frame that holds a structure."""
    cells = np.empty((1, len(frames)), dtype=object)
    for place, points in enumerate(frames):
        cells[0, place] = {"loc": points}
    return mat(frame=cells)


TWO_HEADS = np.array([[1.5, 2.0], [30.25, 4.0]])
JSON = b'{"a.jpg": [[1.5, 2], [30.25, 4]]}'
CCLABELER = b'{"img_id": "a.jpg", "human_num": 2, "points": [[1.5, 2], {"x": 30.25, "y": 4}]}'
SAMPLES = {
    "mat": (nested_mat(TWO_HEADS), NESTED),
    "txt": (b"1.5 2 12 14 1 0\n30.25 4 9 9 2 0\n", ""),
    "csv": (b"image,x,y\na.jpg,1.5,2\na.jpg,30.25,4\n", ""),
    "json": (JSON, ""),
    "jsonl": (JSON, ""),
    "table": (JSON, ""),
    "mat-frames": (mat_frames(TWO_HEADS), "frame"),
    "yolo": (b"0 1.5e-1 0.2 0.1 0.1\n1 0.325 0.4 0 1\n", ""),
    "file": (npy(TWO_HEADS), ""),
    "nwpu-json": (CCLABELER, ""),
    "tool": (CCLABELER, ""),
}
PARTS = np.array([[0.15, 0.2], [0.325, 0.4]])
"""What YOLO's sample holds: parts of the width and height."""


@pytest.mark.parametrize("reader", [*READERS, *TABLES])
def test_every_reader_reads_its_sample_in_both_orders(reader):
    content, key = SAMPLES[reader]
    heads = PARTS if reader == "yolo" else TWO_HEADS
    for order, expected in (("xy", heads), ("yx", heads[:, ::-1])):
        points = PointsFormat(reader=reader, key=key, order=order)
        if points.is_table:
            (read,) = points.read_table(content).values()
        else:
            read = points.read(content)
        np.testing.assert_array_equal(read, expected)
        assert read.dtype == np.float64


@pytest.mark.parametrize("reader", TABLES)
def test_every_table_is_recognised_and_no_other(reader):
    # "table" is CSV, JSON or a tool's file; "jsonl" is an earlier name of JSON.
    json_names = {"json", "jsonl", "table"}
    for other in TABLES:
        same = reader == other or {reader, other} <= json_names
        same = same or (reader == "table" and other in ("csv", "tool"))
        key = SAMPLES[reader][1]
        points = PointsFormat(reader=reader, key=key)
        assert points.is_table_of_points(SAMPLES[other][0]) == same, other


@pytest.mark.parametrize("reader", [*READERS, *TABLES])
@given(content=st.binary(max_size=300))
def test_every_reader_refuses_or_reads_any_bytes(reader, content):
    points = PointsFormat(reader=reader, key=SAMPLES[reader][1])
    with contextlib.suppress(ValueError):
        points.read_table(content) if points.is_table else points.read(content)


@pytest.mark.parametrize("reader", [*READERS, *TABLES])
@given(data=st.data())
def test_every_reader_refuses_or_reads_its_damaged_sample(reader, data):
    content, key = SAMPLES[reader]
    cut = data.draw(st.integers(0, len(content)))
    damaged = bytearray(content[:cut])
    for at in data.draw(st.lists(st.integers(0, max(cut - 1, 0)), max_size=3)):
        if damaged:
            damaged[at] ^= data.draw(st.integers(1, 255))
    points = PointsFormat(reader=reader, key=key)
    with contextlib.suppress(ValueError):
        points.read_table(bytes(damaged)) if points.is_table else points.read(bytes(damaged))


@given(heads)
def test_a_table_gives_back_what_was_written(points):
    rows = "".join(f"street/a b.jpg,{x!r},{y!r}\n" for x, y in points.tolist())
    table = PointsFormat(reader="csv").read_table(f"image,x,y\n{rows}empty.jpg,,\n".encode())
    np.testing.assert_array_equal(table.get("street/a b.jpg", np.zeros((0, 2))), points)
    assert table["empty.jpg"].shape == (0, 2)


@pytest.mark.parametrize("shape", [(0, 2), (0, 0), (0,), (0, 3)])
def test_empty_arrays_of_any_shape_are_no_heads(shape):
    read = PointsFormat(reader="mat", key="annPoints").read(mat(annPoints=np.zeros(shape)))
    assert read.shape == (0, 2)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((3, 4)), "one row"),
        (np.zeros((2, 2, 2)), "one row"),
        (np.array([["a", "b"]]), "numbers"),
        (np.array([[1 + 2j, 3.0]]), "numbers"),
    ],
)
def test_a_value_that_is_no_list_of_points_is_refused(value, message):
    with pytest.raises(ValueError, match=message):
        PointsFormat(reader="mat", key="annPoints").read(mat(annPoints=value))


def test_integers_are_points_too():
    read = PointsFormat(reader="mat", key="loc").read(mat(loc=np.array([[3, 4]], dtype=np.uint8)))
    assert read.tolist() == [[3.0, 4.0]]


@pytest.mark.parametrize(
    ("key", "message"),
    [("annPoints", "no variable 'annPoints'"), ("image_info[0][5]", "nothing at image_info")],
)
def test_points_that_are_elsewhere_in_the_file_are_named(key, message):
    with pytest.raises(ValueError, match=message):
        PointsFormat(reader="mat", key=key).read(nested_mat(TWO_HEADS))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "first line"),
        (b"name,x,y\na.jpg,1,2\n", "first line is 'name,x,y'"),
        (b"image,x,y\na.jpg,1\n", "line 2"),
        (b"image,x,y\na.jpg,1,2\na.jpg,1,\n", "line 3"),
        (b"image,x,y\n,1,2\n", "line 2"),
        (b"image,x,y\na.jpg,one,2\n", "line 2.*numbers"),
        (b"image,x,y\na.jpg,1,2\na.jpg,,\n", "line 3: a.jpg is said to be empty"),
        (b"image,x,y\na.jpg,,\na.jpg,1,2\n", "line 3: a.jpg is said to be empty"),
        (b"image,x,y\n\xff.jpg,1,2\n", "UTF-8"),
    ],
)
def test_a_wrong_table_says_which_line(content, message):
    with pytest.raises(ValueError, match=message):
        PointsFormat(reader="csv").read_table(content)


def test_tables_of_spreadsheets_are_read():
    # A byte-order mark, capitals, Windows line ends, an empty last row.
    content = b"\xef\xbb\xbfImage, X, Y\r\n./a.jpg, 1, 2\r\n\r\n"
    assert PointsFormat(reader="csv").is_table_of_points(content)
    table = PointsFormat(reader="csv").read_table(content)
    assert {name: points.tolist() for name, points in table.items()} == {"a.jpg": [[1.0, 2.0]]}


def test_unknown_reader_names_the_known():
    with pytest.raises(
        ConfigError, match=r"points.reader: expected csv, file, json, jsonl, mat, .*got 'xml'"
    ):
        PointsFormat(reader="xml")


@pytest.mark.parametrize("reader", ["mat", "mat-frames"])
@pytest.mark.parametrize("key", ["", "info[x]", "info.", "0info", "info[0"])
def test_matlab_readers_need_a_key(reader, key):
    with pytest.raises(ConfigError, match=r"points\.key"):
        PointsFormat(reader=reader, key=key)


# ---- text for each image


@given(heads, st.sampled_from([" ", "\t", ",", ", "]), st.sampled_from(["", "7", "12 9 2 0"]))
def test_a_text_gives_back_what_was_written(points, separator, more):
    rest = [separator + separator.join(more.split())] if more else [""]
    lines = [f"{x!r}{separator}{y!r}{rest[0]}" for x, y in points.tolist()]
    content = "\r\n".join(["", *lines, ""]).encode("utf-8-sig")
    np.testing.assert_array_equal(PointsFormat(reader="txt").read(content), points)


@pytest.mark.parametrize("content", [b"", b"\n", b" \t\r\n\n", b"\xef\xbb\xbf"])
def test_a_blank_text_is_an_empty_scene(content):
    assert PointsFormat(reader="txt").read(content).shape == (0, 2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"1 2\n\n3\n", "line 3: expected x and y, found '3'"),
        (b"x y\n1 2\n", "line 1"),
        (b"1,5 2,5\n", "line 1"),  # commas as decimal points must not become columns
        (b"1;2\n", "line 1"),
        (b"1 2\n3 four 5\n", "line 2.*'3 four 5'"),
        (b"\xff\xfe1 2", "UTF-8"),
    ],
)
def test_a_wrong_text_says_which_line(content, message):
    with pytest.raises(ValueError, match=message):
        PointsFormat(reader="txt").read(content)


# ---- JSON


def as_list(table):
    images = [{"image": image, "points": points} for image, points in table.items()]
    return json.dumps({"made_by": "us", "images": images})


def as_lines(table):
    entries = ({"image": image, "points": points} for image, points in table.items())
    return "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)


names = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=8).filter(
    lambda text: text.strip() == text and "/" not in text
)


@given(st.dictionaries(names.map(lambda name: f"{name}.jpg"), heads, min_size=1, max_size=5))
def test_json_gives_back_what_was_written(table):
    content = json.dumps({image: points.tolist() for image, points in table.items()})
    read = PointsFormat(reader="table").read_table(content.encode())
    assert list(read) == list(table)
    for image, points in table.items():
        np.testing.assert_array_equal(read[image], points)


def test_indented_json_with_a_mark_is_read():
    content = json.dumps({"./a.jpg": [], "b.jpg": [[1, 2]]}, indent=2).encode("utf-8-sig")
    read = PointsFormat(reader="table").read_table(content)
    assert {image: points.tolist() for image, points in read.items()} == {
        "a.jpg": [],
        "b.jpg": [[1.0, 2.0]],
    }


@pytest.mark.parametrize("reader", ["json", "jsonl", "table"])
@pytest.mark.parametrize("form", [as_list, as_lines])
@pytest.mark.parametrize("heads", [0, 500])
def test_earlier_forms_of_json_say_what_to_write(reader, form, heads):
    content = form({"a.jpg": [[1, 2]] * heads, "b.jpg": []}).encode()
    points = PointsFormat(reader=reader)
    assert points.is_table_of_points(content)
    with pytest.raises(ValueError, match=r'write one object .*\{"a.jpg": \[\[120.5, 80\], .*\]\}'):
        points.read_table(content)


@pytest.mark.parametrize(
    "content",
    [
        b'{"type": "FeatureCollection", "features": []}',
        b'{"name": "photos", "version": 2, "files": ["a.jpg"]}',
        b'[{"image": "a.jpg"}]',
        b"null",
        b"",
    ],
)
def test_other_json_is_no_table_of_points(content):
    assert not PointsFormat(reader="table").is_table_of_points(content)
    with pytest.raises(ValueError, match="not a table of points"):
        PointsFormat(reader="table").read_table(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a.jpg": [[1, 2]', "line 1: not JSON"),
        ('{\n"a.jpg": [[1 2]]}', "line 2: not JSON.* column"),
        ("[]", "expected an object"),
        ("3", "expected an object, found '3.0'"),
        ('{"a.jpg": [], " ": []}', "expected the path of an image, found ' '"),
        ('{"a.jpg": null}', "'a.jpg': expected a list of points"),
        ('{"a.jpg": {"x": 1}}', "'a.jpg': expected a list of points"),
        ('{"a.jpg": [[1, 2], [3]]}', r"'a.jpg': point 2: expected \[x, y\], found '\[3.0\]'"),
        ('{"a.jpg": [[1, 2, 3]]}', "point 1"),
        ('{"a.jpg": [1, 2]}', "point 1"),
        ('{"a.jpg": [{"x": 1, "z": 2}]}', "point 1"),
        ('{"a.jpg": [[1, true]]}', r"point 1: expected \[x, y\], found '\[1.0, true\]'"),
        ('{"a.jpg": [["1", "2"]]}', "point 1"),
        ('{"a.jpg": [[1, null]]}', "point 1"),
        ('{"a.jpg": [], "a.jpg": [[1, 2]]}', "'a.jpg' occurs twice"),
        ('{"a.jpg": [], "./a.jpg": [[1, 2]]}', "a.jpg occurs twice"),
        ("[" * 200_000, "nested too deeply"),
        ('{"a.jpg": ' + "[" * 200_000, "nested too deeply"),
        ('{"a":' * 200_000, "nested too deeply"),
        ("\ud800", "not a text in UTF-8"),
    ],
)
def test_wrong_json_says_what_and_where(content, message):
    with pytest.raises(ValueError, match=message):
        PointsFormat(reader="json").read_table(content.encode("utf-8", "surrogatepass"))


def test_numbers_without_a_place_are_read_as_such():
    # JSON itself knows neither NaN nor infinity; Python's own writer writes them all the same.
    digits = "9" * 5000
    content = f'{{"a.jpg": [[NaN, 1], [1, Infinity], [-1e999, 2], [{digits}, 3], [1e300, 4]]}}'
    read = PointsFormat(reader="json").read_table(content.encode())["a.jpg"]
    assert np.isfinite(read).all(axis=1).tolist() == [False, False, False, False, True]
    for reader, text in (
        ("csv", "image,x,y\na.jpg,nan,1\na.jpg,1,inf\na.jpg,1e999,2\n"),
        ("txt", "nan 1\n1 inf\n1e999 2\n"),
    ):
        points = PointsFormat(reader=reader)
        text = text.encode()
        rows = points.read_table(text)["a.jpg"] if points.is_table else points.read(text)
        assert not np.isfinite(rows).all(axis=1).any()
        assert len(rows) == 3
