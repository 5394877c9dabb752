"""Values in MATLAB files: every version, seen alike."""

import io
import re
from typing import Any

import numpy as np

from crowdcount.data.sources.matlab_guard import unpacked_mat

_HDF5 = b"\x89HDF\r\n\x1a\n"

# MATLAB puts a text of its own before the HDF5 part of a version 7.3 file.
_USERBLOCK = 512


def begins_like_mat(content: bytes) -> bool:
    """Whether a file begins like one of MATLAB 5 or later."""
    return content.startswith(b"MATLAB ") or _is_hdf5(content)


def matlab_value(content: bytes, key: str) -> Any:
    """What lies at a variable and below it: ``annPoints``, ``image_info[0][0][0][0].location``.

    Numbers are arrays of two dimensions at least, cells arrays of objects and structures arrays
    with fields, as ``scipy.io.loadmat`` gives them, in files of version 7.3, too. Only that there
    fields that are counted (``[0]`` for ``.location``) come in the order of their names.

    Raises:
        ValueError: If it is no MATLAB file, or there is nothing at ``key``.
    """
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


def _is_hdf5(content: bytes) -> bool:
    start = content[: _USERBLOCK + len(_HDF5)]
    return start.startswith((_HDF5, b"MATLAB 7.3")) or start.find(_HDF5) == _USERBLOCK


def _from_older(content: bytes, name: str) -> Any:
    """A variable of a file up to version 7."""
    import scipy.io  # a third of a second, which reading a recipe need not pay

    stream: Any = io.BytesIO(unpacked_mat(content))  # scipy's annotations know of paths only
    try:
        found: Any = scipy.io.loadmat(stream, variable_names=[name])
    # scipy's parser raises whatever damaged content makes it run into.
    except Exception as error:
        raise ValueError(f"not a readable MATLAB file: {error}") from error
    if name not in found:
        raise ValueError(f"no variable {name!r} in the MATLAB file")
    return found[name]


def _from_hdf5(content: bytes, name: str) -> Any:
    """A variable of a file of version 7.3, which is HDF5."""
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
    # So does h5py.
    except Exception as error:
        raise ValueError(f"not a readable MATLAB 7.3 file: {error}") from error
    raise ValueError(f"no variable {name!r} in the MATLAB file")


def _hdf5_value(node: Any) -> Any:
    """What a group or data set of HDF5 means to MATLAB, which stores arrays transposed."""
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
    """A structure is a group of its fields; those of an array of structures hold references."""
    # By name: MATLAB's own order is in an attribute on which HDF5's library can hang or crash where
    # a file is damaged.
    values = {name: _hdf5_value(node) for name, node in sorted(group.items())}
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
