"""Unpack MATLAB files (version 5 to 7) and check their claims before SciPy reads them.

A file of 200 bytes can claim cells that take gigabytes, and one of 200 kB can nest cells so deep
that SciPy's parser ends the process. Neither can be caught once SciPy has begun.
"""

import struct
import zlib
from math import prod

MAX_UNPACKED = 256 * 1024**2
"""Limit of the unpacked size in bytes, far above that of any annotation."""

_MAX_DEPTH = 64  # annotations nest five deep; SciPy's parser survives more than a thousand

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_CELL, _STRUCT, _OBJECT, _SPARSE, _LAST_WITH_SIZE = 1, 2, 3, 5, 15


def unpacked_mat(content: bytes) -> bytes:
    """Unpack the compressed variables of a file, and check its claims.

    Files of other versions are returned unchanged.

    Raises:
        ValueError: If a variable is damaged, unpacks to too much, or claims more than it holds.
    """
    # Version 4 has no header and cannot claim more than it holds; version 7.3 is HDF5.
    if len(content) < _HEADER or 0 in content[:4]:
        return content
    # SciPy, too, takes everything but IM for big-endian.
    order = "<" if content[126:128] == b"IM" else ">"
    if content[125 if content[126:127] == b"I" else 124] != 1:
        return content
    pieces = [content[:_HEADER]]
    left = MAX_UNPACKED
    at = _HEADER
    while at + 8 <= len(content):
        kind, size = struct.unpack_from(order + "II", content, at)
        piece = content[at : at + 8 + size]
        if len(piece) < 8 + size:
            raise ValueError("the MATLAB file is truncated")
        if kind == _COMPRESSED:
            piece = _inflated(piece[8:], order, limit=left)
            left -= len(piece)
        _check(memoryview(piece), order)
        pieces.append(piece)
        at += 8 + size
    return b"".join([*pieces, content[at:]])


def _inflated(packed: bytes, order: str, *, limit: int) -> bytes:
    """Decompress a variable."""
    stream = zlib.decompressobj()
    try:
        # One byte more, to detect content beyond the limit. 0 would mean no limit.
        content = stream.decompress(packed, limit + 1)
    except zlib.error as error:
        raise ValueError(f"the MATLAB file is damaged: {error}") from error
    if len(content) > limit:
        raise ValueError(f"the MATLAB file unpacks to more than {MAX_UNPACKED} bytes")
    if not stream.eof or len(content) < 8:
        raise ValueError("the MATLAB file is truncated")
    (size,) = struct.unpack_from(order + "I", content, 4)
    if len(content) < 8 + size:
        raise ValueError("the MATLAB file is truncated")
    return content[: 8 + size]


def _check(piece: memoryview, order: str) -> None:
    """Check the sizes that a variable and all values inside it claim."""
    waiting = [(piece, 0)]
    while waiting:
        content, depth = waiting.pop()
        if depth > _MAX_DEPTH:
            raise ValueError(f"the MATLAB file nests cells more than {_MAX_DEPTH} deep")
        for kind, body in _elements(content, order):
            if kind == _MATRIX and len(body):
                _check_size(_elements(body, order), len(body), order)
                waiting.append((body, depth + 1))


def _elements(content: memoryview, order: str) -> list[tuple[int, memoryview]]:
    """Split content into elements, and return the type and data of each."""
    elements = []
    at = 0
    while at + 8 <= len(content):
        first, size = struct.unpack_from(order + "II", content, at)
        if first >> 16:  # up to four bytes of data share the eight of the tag
            kind, size, start = first & 0xFFFF, first >> 16, at + 4
            at += 8
            fits = size <= 4
        else:
            kind, start = first, at + 8
            # Matrices are not padded to eight bytes; their elements are.
            at = start + (size if kind == _MATRIX else size + -size % 8)
            fits = start + size <= len(content)
        if not fits:
            raise ValueError("the MATLAB file is damaged: an element is longer than its variable")
        elements.append((kind, content[start : start + size]))
    return elements


def _check_size(parts: list[tuple[int, memoryview]], length: int, order: str) -> None:
    """Refuse an array of ``length`` bytes that claims more elements than it can hold.

    Its parts are flags, size, name and then its content.
    """
    if len(parts) < 2 or len(parts[0][1]) < 4:
        raise ValueError("the MATLAB file is damaged: an array has no size")
    kind = struct.unpack_from(order + "I", parts[0][1])[0] & 0xFF
    inner = sum(part == _MATRIX for part, _ in parts)
    if kind > _LAST_WITH_SIZE:  # a function or object wraps one array
        claimed, room = 1, inner
    elif kind == _SPARSE:  # its size is not that of its stored elements
        return
    else:
        sides = parts[1][1]
        lengths = struct.unpack(f"{order}{len(sides) // 4}i", sides[: len(sides) // 4 * 4])
        if any(side < 0 for side in lengths):
            raise ValueError("the MATLAB file is damaged: an array has a negative size")
        claimed, room = prod(lengths), length
        if kind == _CELL:
            room = inner
        elif kind in (_STRUCT, _OBJECT):
            fields = _fields(parts, order, named=kind == _OBJECT)
            claimed, room = (claimed * fields, inner) if fields else (claimed, length)
    if claimed > room:
        raise ValueError(f"an array of the MATLAB file claims {claimed} elements and holds {room}")


def _fields(parts: list[tuple[int, memoryview]], order: str, *, named: bool) -> int:
    """Return the number of fields of each structure of an array."""
    names = parts[3 + named : 5 + named]
    if len(names) < 2 or len(names[0][1]) < 4:
        raise ValueError("the MATLAB file is damaged: a structure has no fields")
    length = struct.unpack_from(order + "i", names[0][1])[0]
    return len(names[1][1]) // length if length > 0 else 0
