import io
import subprocess
import sys
import zlib
from struct import pack
from textwrap import dedent

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from crowdcount.data.sources.annotations import PointsFormat
from crowdcount.data.sources.matlab_guard import MAX_UNPACKED, unpacked_mat

HEADER = b"MATLAB 5.0 MAT-file".ljust(116) + bytes(8) + pack("<H", 0x0100) + b"IM"
DOUBLES, CELL, STRUCT, CHAR = 6, 1, 2, 4


def element(kind, data):
    return pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def array(kind, size, *parts, name=b""):
    head = element(6, pack("<II", kind, 0)) + element(5, pack(f"<{len(size)}i", *size))
    body = head + element(1, name) + b"".join(parts)
    return pack("<II", 14, len(body)) + body


def points(*, name=b""):
    return array(DOUBLES, (1, 2), element(9, pack("<2d", 3, 4)), name=name)


def compressed(variable):
    packed = zlib.compress(variable)
    return pack("<II", 15, len(packed)) + packed


def mat(value, *, compress):
    content = io.BytesIO()
    scipy.io.savemat(content, {"x": value}, do_compression=compress)
    return content.getvalue()


VALUES = {
    "doubles": np.arange(6.0).reshape(3, 2),
    "nothing": np.zeros((0, 2)),
    "booleans": np.ones((2, 3), dtype=bool),
    "text": "heads",
    "no text": "",
    "texts": np.array(["a", "bcd"]),
    "a structure": {"location": np.ones((4, 2)), "number": 4},
    "structures": np.zeros(3, dtype=[("p", "O"), ("q", "O")]),
    "cells": np.array([[{"a": 1.0}, np.ones((2, 2))]], dtype=object),
    "sparse": scipy.sparse.eye(5000).tocsc(),
}


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_unpacking_changes_nothing_that_is_read(value, compress):
    plain = mat(value, compress=False)
    assert unpacked_mat(mat(value, compress=compress))[128:] == plain[128:]


@given(arrays(np.float64, st.tuples(st.integers(0, 50), st.just(2)), elements=st.floats(0, 1e4)))
def test_packed_and_plain_points_are_the_same(heads):
    for compress in (False, True):
        read = PointsFormat(reader="mat", key="x").read(mat(heads, compress=compress))
        np.testing.assert_array_equal(read, heads)


def test_the_hand_made_file_is_one():
    read = PointsFormat(reader="mat", key="x[0][0]").read(
        HEADER + array(CELL, (1, 1), points(), name=b"x")
    )
    assert read.tolist() == [[3.0, 4.0]]


FIELDS = element(5, pack("<i", 1)) + element(1, b"abcdefgh")
BOMBS = {
    "cells": array(CELL, (30_000, 20_000), points(), name=b"x"),
    "cells of a cell": array(CELL, (1, 1), array(CELL, (1 << 30, 1), points()), name=b"x"),
    "structures": array(STRUCT, (30_000, 20_000), FIELDS, points(), name=b"x"),
    "fields": array(STRUCT, (1, 2), FIELDS, points(), points(), name=b"x"),
    "characters": array(CHAR, (30_000, 20_000), element(4, b""), name=b"x"),
    "more than an integer holds": array(CELL, (1 << 30, 1 << 30, 16), points(), name=b"x"),
}


@pytest.mark.parametrize("pack_it", [bytes, compressed], ids=["plain", "compressed"])
@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_arrays_that_claim_more_than_they_hold_are_refused(bomb, pack_it):
    with pytest.raises(ValueError, match=r"claims \d+ elements and holds"):
        unpacked_mat(HEADER + pack_it(bomb))


def test_negative_sizes_are_refused():
    with pytest.raises(ValueError, match="negative size"):
        unpacked_mat(HEADER + array(CELL, (-30_000, -20_000), points(), name=b"x"))


def nested(levels):
    content = points(name=b"" if levels else b"x")
    for level in range(levels):
        content = array(CELL, (1, 1), content, name=b"x" if level == levels - 1 else b"")
    return HEADER + content


@pytest.mark.parametrize("levels", [70, 5_000])
def test_cells_nested_without_end_are_refused(levels):
    # SciPy's own parser ends the process with a segmentation fault at some thousands.
    with pytest.raises(ValueError, match="deep"):
        unpacked_mat(nested(levels))
    assert unpacked_mat(nested(20)) == nested(20)


def test_what_unpacks_to_too_much_is_refused():
    zeros = compressed(pack("<II", 14, MAX_UNPACKED) + bytes(MAX_UNPACKED))
    assert len(zeros) < 1_000_000
    with pytest.raises(ValueError, match="unpacks to more than"):
        unpacked_mat(HEADER + zeros)


@pytest.mark.parametrize("content", [b"", b"MATLAB", HEADER[:127], b"\0\0\0\0" + HEADER[4:]])
def test_other_files_come_back_as_they_are(content):
    assert unpacked_mat(content) == content


@pytest.mark.parametrize("compress", [False, True])
def test_truncated_files_are_refused(compress):
    content = mat(VALUES["a structure"], compress=compress)
    for cut in range(137, len(content) - 1, 7):
        with pytest.raises(ValueError, match="MATLAB"):
            unpacked_mat(content[:cut])


def test_bombs_take_no_memory():
    # In a process of its own, with less than any of these files would have SciPy take.
    program = dedent(
        """
        import resource, sys
        from crowdcount.data.sources.annotations import read_mat
        import scipy.io
        resource.setrlimit(resource.RLIMIT_AS, (1_500_000_000,) * 2)
        for bomb in sys.argv[1:]:
            try:
                read_mat(bytes.fromhex(bomb), "x")
            except ValueError as error:
                print(type(error.__cause__).__name__, "claims" in str(error))
        """
    )
    bombs = [(HEADER + each).hex() for each in BOMBS.values()]
    done = subprocess.run(
        [sys.executable, "-c", program, *bombs], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["NoneType True"] * len(BOMBS)
