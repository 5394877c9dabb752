import contextlib
import io

import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from crowdcount.data.points import READERS, TABLES, PointsFormat
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


def frames_mat(points):
    """As Mall stores them: a cell for each frame, which holds a structure."""
    frame = np.empty((1, 2), dtype=object)
    frame[0, 0], frame[0, 1] = {"loc": points}, {"loc": np.zeros((0, 2))}
    return mat(frame=frame)


TWO_HEADS = np.array([[1.5, 2.0], [30.25, 4.0]])
SAMPLES = {
    "mat": (nested_mat(TWO_HEADS), NESTED),
    "txt": (b"1.5 2 9 9 0 1\n30.25, 4\n", ""),
    "mat-frames": (frames_mat(TWO_HEADS), "frame"),
    "csv": (b"image,x,y\na.jpg,1.5,2\na.jpg,30.25,4\n", ""),
}


@pytest.mark.parametrize("reader", [*READERS, *TABLES])
def test_every_reader_reads_its_sample_in_both_orders(reader):
    content, key = SAMPLES[reader]
    for order, expected in (("xy", TWO_HEADS), ("yx", TWO_HEADS[:, ::-1])):
        points = PointsFormat(reader=reader, key=key, order=order)
        read = (
            next(iter(points.read_table(content).values()))
            if points.is_table
            else points.read(content)
        )
        np.testing.assert_array_equal(read, expected)
        assert read.dtype == np.float64


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
        (np.array([[1.0, np.nan], [2.0, 3.0]]), "1 of 2 points are not finite"),
        (np.array([[np.inf, 1.0]]), "not finite"),
    ],
)
def test_what_is_no_list_of_points_is_refused(value, message):
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
        (b"image,x,y\na.jpg,nan,2\n", "not finite"),
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
    with pytest.raises(ConfigError, match=r"points.reader: unknown reader 'xml'.*csv, mat"):
        PointsFormat(reader="xml")


def test_matlab_reader_needs_a_key():
    with pytest.raises(ConfigError, match=r"points\.key"):
        PointsFormat(reader="mat")
