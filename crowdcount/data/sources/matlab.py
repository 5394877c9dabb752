"""Read values from MATLAB files of every version."""

import io
import re
from typing import Any

import numpy as np

from crowdcount.data.sources.isolated import IsolatedFunction
from crowdcount.data.sources.matlab_guard import unpacked_mat

_HDF5 = b"\x89HDF\r\n\x1a\n"

# MATLAB writes a header before the HDF5 part of a version 7.3 file.
_USERBLOCK = 512

# One child for all threads and data sets: to start one takes as long as to read hundreds of files.
_in_child = IsolatedFunction(__name__, "read_value")


def begins_like_mat(content: bytes) -> bool:
    """Return whether a file begins like one of MATLAB 5 or later."""
    return content.startswith(b"MATLAB ") or _is_hdf5(content)


def matlab_value(content: bytes, key: str) -> Any:
    """Read the value at a key such as ``annPoints`` or ``image_info[0][0][0][0].location``.

    Numbers are arrays of at least two dimensions, cells arrays of objects and structures arrays
    with fields, as ``scipy.io.loadmat`` returns them. The same holds for files of version 7.3,
    except that numbered fields (``[0]`` for ``.location``) are in the order of their names.

    The C code of SciPy and HDF5 crashes on some damaged files, so it runs in a child process.

    Raises:
        ValueError: If it is not a MATLAB file, or has no value at ``key``.
    """
    return _in_child(content, key)


def read_value(content: bytes, key: str) -> Any:
    """Do in this process what :func:`matlab_value` does in a child."""
    name, *steps = re.findall(r"\w+", key)
    if not content:
        raise ValueError("the file is empty")
    value = (_from_hdf5 if _is_hdf5(content) else _from_older)(content, name)
    try:
        for step in steps:
            value = value[int(step) if step.isdecimal() else step]
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"nothing at {key} in the MATLAB file") from error
    return value


def stated_heads(content: bytes, key: str) -> int | None:
    """Return the number of heads that a MATLAB file states beside the points at ``key``, if any.

    ShanghaiTech's structures have a field ``number`` beside ``location``.
    """
    owner = re.sub(r"(\[\d+\]|\.\w+)$", "", key)
    if owner == key:
        return None
    try:
        return int(np.ravel(matlab_value(content, owner)["number"])[0])
    except (IndexError, KeyError, TypeError, ValueError):
        return None


def _is_hdf5(content: bytes) -> bool:
    start = content[: _USERBLOCK + len(_HDF5)]
    return start.startswith((_HDF5, b"MATLAB 7.3")) or start.find(_HDF5) == _USERBLOCK


def _from_older(content: bytes, name: str) -> Any:
    """Read a variable of a file up to version 7."""
    import scipy.io  # takes a third of a second, which reading a recipe must not cost

    stream: Any = io.BytesIO(unpacked_mat(content))  # SciPy's annotations know only paths
    try:
        variables: Any = scipy.io.loadmat(stream, variable_names=[name])
    # SciPy's parser raises errors of many types for damaged content.
    except Exception as error:
        raise ValueError(f"not a readable MATLAB file: {error}") from error
    if name not in variables:
        raise ValueError(f"no variable {name!r} in the MATLAB file")
    return variables[name]


def _from_hdf5(content: bytes, name: str) -> Any:
    """Read a variable of a file of version 7.3, which is HDF5."""
    try:
        import h5py
    except ImportError as error:
        raise ValueError(
            "a MATLAB 7.3 file, which needs h5py: pip install 'crowdcount-ebc[mat73]'"
        ) from error
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            if name in file:
                return _hdf5_value(file[name])
    # h5py raises errors of many types for damaged content.
    except Exception as error:
        raise ValueError(f"not a readable MATLAB 7.3 file: {error}") from error
    raise ValueError(f"no variable {name!r} in the MATLAB file")


def _hdf5_value(node: Any) -> Any:
    """Convert a group or data set of HDF5 to a MATLAB value; MATLAB stores arrays transposed."""
    if hasattr(node, "keys"):
        return _hdf5_structures(node)
    if node.attrs.get("MATLAB_empty"):
        return np.zeros((0, 0))  # the content is the shape, one side of which is 0
    if node.attrs.get("MATLAB_class") == b"char":
        return np.array("".join(map(chr, node[()].ravel())))
    stored = node[()].T
    if stored.dtype != object:
        return stored
    cells = np.empty(stored.shape, dtype=object)
    for place, reference in np.ndenumerate(stored):
        cells[place] = _hdf5_value(node.file[reference])
    return cells


def _hdf5_structures(group: Any) -> Any:
    """Convert a group of fields to an array of structures."""
    # By name: MATLAB's order is in an attribute on which the HDF5 library can hang or crash if the
    # file is damaged.
    values = {name: _hdf5_value(node) for name, node in sorted(group.items())}
    # In an array of several structures, each field holds references.
    several = bool(values) and all(
        value.dtype == object and "MATLAB_class" not in group[name].attrs
        for name, value in values.items()
    )
    shape = next(iter(values.values())).shape if several else (1, 1)
    structures = np.empty(shape, dtype=[(name, object) for name in values])
    for name, value in values.items():
        if several:
            structures[name] = value
        else:
            structures[name][0, 0] = value
    return structures
