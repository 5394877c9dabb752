import base64
import builtins
import contextlib
import io

import h5py
import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from crowdcount.data.sources.annotations import PointsFormat
from crowdcount.data.sources.matlab import begins_like_mat, matlab_value, read_value

NESTED = "image_info[0][0][0][0][0]"
TWO_HEADS = np.array([[1.5, 2.0], [30.25, 4.0]])

heads = arrays(np.float64, st.tuples(st.integers(0, 40), st.just(2)), elements=st.floats(-1e6, 1e6))


class Mat73:
    """Writes a file as MATLAB lays out version 7.3.

    Arrays are transposed and carry their class; empty ones are their shape; cells, and fields of
    arrays of structures, are references to what lies under ``#refs#``.
    """

    def __init__(self):
        self._content = io.BytesIO()
        self._file = h5py.File(self._content, "w", userblock_size=512)
        self._refs = self._file.create_group("#refs#")

    def bytes(self):
        self._file.close()
        text = b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Thu Jan 01 00:00:00 1970"
        userblock = text.ljust(124) + b"\x00\x02IM"
        return userblock.ljust(512, b"\x00") + self._content.getvalue()[512:]

    def put(self, name, value, parent=None):
        parent = self._file if parent is None else parent
        if isinstance(value, dict):
            node = parent.create_group(name)
            for field, each in value.items():
                self.put(field, each, node)
            self._named(node, "struct")
        elif isinstance(value, list):  # a row of cells
            self._named(self._references(parent, name, value), "cell")
        elif isinstance(value, str):
            text = np.array([[ord(character)] for character in value], dtype=np.uint16)
            self._named(parent.create_dataset(name, data=text), "char")
        else:
            array = np.asarray(value)
            if array.size:
                node = parent.create_dataset(name, data=array.T)
            else:
                node = parent.create_dataset(name, data=np.array(array.shape, dtype=np.uint64))
                node.attrs["MATLAB_empty"] = np.uint8(1)
            self._named(node, "double" if array.dtype == np.float64 else str(array.dtype))

    def put_structures(self, name, rows):
        """A row of structures: unlike a single one, a group of references."""
        node = self._file.create_group(name)
        for field in rows[0]:
            self._references(node, field, [row[field] for row in rows])
        self._named(node, "struct")

    def _references(self, parent, name, values):
        stored = np.empty((len(values), 1), dtype=object)
        for place, value in enumerate(values):
            target = f"{len(self._refs)}"
            self.put(target, value, self._refs)
            stored[place, 0] = self._refs[target].ref
        return parent.create_dataset(name, data=stored, dtype=h5py.ref_dtype)

    @staticmethod
    def _named(node, kind):
        node.attrs["MATLAB_class"] = np.bytes_(kind)


def mat73(**variables):
    writer = Mat73()
    for name, value in variables.items():
        writer.put(name, value)
    return writer.bytes()


def mat5(**variables):
    content = io.BytesIO()
    scipy.io.savemat(content, variables)
    return content.getvalue()


def cells(*values):
    row = np.empty((1, len(values)), dtype=object)
    for place, value in enumerate(values):
        row[0, place] = value
    return row


VERSIONS = {
    "5": lambda **variables: mat5(
        **{k: cells(*v) if isinstance(v, list) else v for k, v in variables.items()}
    ),
    "7.3": mat73,
}


def read(content, key):
    return PointsFormat(reader="mat", key=key).read(content)


@pytest.mark.parametrize("version", VERSIONS)
@given(points=heads)
def test_points_come_back_from_every_version(version, points):
    content = VERSIONS[version](annPoints=points, noise=np.ones((3, 3)))
    np.testing.assert_array_equal(read(content, "annPoints"), points)


@pytest.mark.parametrize("version", VERSIONS)
@given(points=heads)
def test_points_in_cells_and_structures_come_back_from_every_version(version, points):
    # As ShanghaiTech stores them: a cell that holds a structure.
    content = VERSIONS[version](image_info=[{"location": points, "number": len(points) * 1.0}])
    np.testing.assert_array_equal(read(content, NESTED), points)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_field_can_be_named_instead_of_counted(version):
    content = VERSIONS[version](info=[{"number": np.array([[2.0]]), "location": TWO_HEADS}])
    np.testing.assert_array_equal(read(content, "info[0][0][0][0].location"), TWO_HEADS)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("shape", [(0, 2), (0, 0), (0,), (1, 0), (2, 0)])
@pytest.mark.parametrize("nested", [False, True])
def test_empty_arrays_of_any_shape_are_no_heads(version, shape, nested):
    empty = np.zeros(shape)
    if nested:
        content, key = VERSIONS[version](image_info=[{"location": empty, "number": 0.0}]), NESTED
    else:
        content, key = VERSIONS[version](annPoints=empty), "annPoints"
    assert read(content, key).shape == (0, 2)


@pytest.mark.parametrize("version", VERSIONS)
def test_integers_are_points_too(version):
    content = VERSIONS[version](loc=np.array([[3, 4], [5, 6], [7, 8]], dtype=np.uint16))
    assert read(content, "loc").tolist() == [[3.0, 4.0], [5.0, 6.0], [7.0, 8.0]]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("annPoints", "no variable 'annPoints'"),
        ("image_info[0][5]", r"nothing at image_info\[0\]\[5\]"),
        ("image_info[0][0][0][0][2]", "nothing at image_info"),
        ("image_info[0][0][0][0].place", "nothing at image_info"),
        ("image_info[0][0][0][0][0][0][0][0]", "nothing at image_info"),
        ("image_info", "expected numbers"),
        ("text", "expected numbers"),
        ("square", "one row"),
    ],
)
def test_missing_variables_and_other_values_are_reported(version, key, message):
    content = VERSIONS[version](
        image_info=[{"location": TWO_HEADS, "number": 2.0}], text="ab", square=np.ones((3, 3))
    )
    with pytest.raises(ValueError, match=message):
        read(content, key)


@pytest.mark.parametrize("version", VERSIONS)
@given(frames=st.lists(heads, min_size=1, max_size=4))
def test_frames_of_a_video_are_called_by_their_place(version, frames):
    content = VERSIONS[version](frame=[{"loc": points, "extra": 1.0} for points in frames])
    table = PointsFormat(reader="mat-frames", key="frame").read_table(content)
    assert list(table) == [str(number) for number in range(1, len(frames) + 1)]
    for points, found in zip(frames, table.values(), strict=True):
        np.testing.assert_array_equal(found, points)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_frame_without_points_is_named(version):
    content = VERSIONS[version](frame=[{"loc": TWO_HEADS}, {"place": TWO_HEADS}])
    with pytest.raises(ValueError, match="frame 2 of frame: no points at loc"):
        PointsFormat(reader="mat-frames", key="frame").read_table(content)
    with pytest.raises(ValueError, match="frame 1 of count"):
        PointsFormat(reader="mat-frames", key="count").read_table(VERSIONS[version](count=[3.0]))


def test_an_array_of_structures_is_read():
    writer = Mat73()
    writer.put_structures("scene", [{"loc": np.zeros((0, 2))}, {"loc": TWO_HEADS}])
    np.testing.assert_array_equal(read(writer.bytes(), "scene[0][1][0]"), TWO_HEADS)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_file_is_known_by_its_beginning(version):
    content = VERSIONS[version](annPoints=TWO_HEADS)
    assert begins_like_mat(content)
    assert not begins_like_mat(b"image,x,y\n")
    for end in (10, len(content) // 2, len(content) - 20):
        with pytest.raises(ValueError, match="MATLAB"):
            matlab_value(content[:end], "annPoints")


def test_hdf5_without_the_text_of_matlab_is_read():
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        file["annPoints"] = TWO_HEADS.T
    assert read(content.getvalue(), "annPoints").tolist() == TWO_HEADS.tolist()


def test_cells_that_hold_themselves_are_refused():
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        node = file.create_dataset("loop", (1, 1), dtype=h5py.ref_dtype)
        node[0, 0] = node.ref
    with pytest.raises(ValueError, match=r"not a readable MATLAB 7\.3 file"):
        matlab_value(content.getvalue(), "loop")


@given(data=st.data())
def test_damaged_files_of_version_73_are_read_or_refused(data):
    content = bytearray(mat73(image_info=[{"location": TWO_HEADS, "number": 2.0}]))
    for at in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(ValueError):
        read(bytes(content), NESTED)


def test_without_h5py_the_message_says_what_to_install(monkeypatch):
    content = mat73(annPoints=TWO_HEADS)
    imported = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "h5py":
            raise ImportError(name)
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"pip install 'crowdcount-ebc\[mat73\]'"):
        read_value(content, "annPoints")


CRASHES_SCIPY = base64.b64decode(
    "TUFUTEFCIDUuMCBNQVQtZmlsZSBQbGF0Zm9ybTogcG9zaXgsIENyZWF0ZWQgb246IFR1ZSBEZWMgIDEgMDA6Mzk6"
    "MjMgMjAyNgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABSU0PAAAA"
    "QQAAAHic42NgYHgAxGxAzAGlQYAVyucCYiYgZgRiTiBOzMsLyM/MKymGqgNJLICxGVQdIDSHA1X4DiZQvgDFfABd"
    "RA32"
)
"""A damaged file whose claims are plausible, on which SciPy's parser ends its process."""


def test_a_file_that_crashes_the_reader_is_an_error_and_the_next_one_is_read():
    for _ in range(2):
        with pytest.raises(ValueError, match="reading it crashes"):
            read(CRASHES_SCIPY, "annPoints")
        assert read(mat5(annPoints=TWO_HEADS), "annPoints").tolist() == TWO_HEADS.tolist()
