"""The one image loader: file to upright RGB array, with the header checked before decoding."""

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image, UnidentifiedImageError

from crowdcount.errors import BadInputError, CrowdCountError, InputMissingError

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm"}
)
"""Endings, in lower case, by which a folder's images are known."""

MAX_PIXELS = 200_000_000
"""Larger images are refused before they are decoded: above the largest sensors of cameras."""

# Pillow knows more formats; some of those start other programs or are not photographs.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM")

_EXIF_ORIENTATION = 0x0112

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# What the same turns do to points: mirror x, mirror y; from 5 on, x and y then change places.
_MIRRORED = {
    1: (False, False),
    2: (True, False),
    3: (True, True),
    4: (False, True),
    5: (False, False),
    6: (False, True),
    7: (True, True),
    8: (True, False),
}

_JUST_BELOW = 2.0**-10

# Silencing warnings and lifting Pillow's own size limit act on the whole process, so one at a time.
_PILLOW_GLOBALS = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class ImageHeader:
    """What a file says of its image before any pixel is decoded."""

    width: int
    """Pixels of the upright image."""

    height: int
    """Pixels of the upright image."""

    orientation: int
    """EXIF orientation, 1 to 8; 1 is upright."""

    format: str
    """Pillow's name of the format that the content has, whatever the file is called."""


def load_image(
    source: Path | bytes, *, name: str | None = None, max_pixels: int = MAX_PIXELS
) -> UInt8[np.ndarray, "height width 3"]:
    """Upright RGB pixels of an image file, or of its content.

    EXIF orientation is applied. Grey, palette and CMYK images become RGB; transparent parts lie on
    white; 16 bits a channel are brought to 8; of several frames the first counts.

    Args:
        source: A file, or what one holds.
        name: What error messages call the image; the path by default.
        max_pixels: Larger images are refused by their header.

    Raises:
        InputMissingError: If there is no such file.
        BadInputError: If it is no image, is damaged or too large.
    """
    # A copy, because Pillow's own buffer is read-only and tensors share memory with arrays.
    return np.array(load_picture(source, name=name, max_pixels=max_pixels))


def load_picture(
    source: Path | bytes, *, name: str | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """What :func:`load_image` gives, as Pillow's image: to be written again, not computed with.

    Raises:
        InputMissingError: If there is no such file.
        BadInputError: If it is no image, is damaged or too large.
    """
    with _opened(source, name=name, max_pixels=max_pixels) as image:
        # TIFF parses its tags again, and may warn, when it is decoded.
        with _quietly() if image.format == "TIFF" else nullcontext():
            image.load()
        # After decoding: PNG may hold EXIF behind its pixels, and Pillow turns TIFF by itself.
        with _quietly():
            upright = _UPRIGHT.get(_orientation(image))
        return _rgb(image if upright is None else image.transpose(upright))


def image_header(
    source: Path | bytes, *, name: str | None = None, max_pixels: int = MAX_PIXELS
) -> ImageHeader:
    """Size, orientation and format of an image, as :func:`load_image` will see it.

    Reads the header only, except for PNG without EXIF before its pixels, and for TIFF.

    Raises:
        InputMissingError: If there is no such file.
        BadInputError: If it is no image or too large.
    """
    with _opened(source, name=name, max_pixels=max_pixels) as image, _quietly():
        orientation = _orientation(image)
        if image.format == "TIFF":
            image.load()  # Pillow turns TIFF by itself, when it is decoded
            width, height = image.size
        else:
            width, height = image.size if orientation < 5 else image.size[::-1]
        return ImageHeader(
            width=width, height=height, orientation=orientation, format=str(image.format)
        )


def image_size(source: Path | bytes) -> tuple[int, int]:
    """``(width, height)`` of the upright image, from its header. Raises as :func:`image_header`."""
    header = image_header(source)
    return header.width, header.height


def upright_points(
    points: Float64[np.ndarray, "heads 2"], *, size: tuple[int, int], orientation: int
) -> Float64[np.ndarray, "heads 2"]:
    """Points of the pixels that a file stores, in the image as :func:`load_image` turns it.

    A head stays on its pixel. Mirrored at x = width - x, one on the very left edge of a pixel would
    land on the next pixel; it stays just inside instead.

    Args:
        points: Head centres ``(x, y)``, all of them inside the stored image.
        size: ``(width, height)`` of the stored image.
        orientation: EXIF orientation, 1 to 8.
    """
    last = np.floor(points) + _JUST_BELOW
    mirrored_x, mirrored_y = _MIRRORED[orientation]
    mirrored = np.asarray(size) - np.maximum(points, last)
    moved = np.where([mirrored_x, mirrored_y], mirrored, points)
    return moved if orientation < 5 else np.ascontiguousarray(moved[:, ::-1])


def check_pixels(content: bytes, *, name: str) -> None:
    """Decode an image as cheaply as its format allows, to see that it is whole.

    Raises:
        BadInputError: If it is truncated or damaged.
    """
    with _opened(content, name=name, max_pixels=MAX_PIXELS) as image:
        image.draft("L", (1, 1))  # JPEG: an eighth of the size, half the time
        with _quietly() if image.format == "TIFF" else nullcontext():
            image.load()


def encode_image(picture: Image.Image, *, format: str) -> bytes:
    """The content of an image file in the format of its original: JPEG at quality 95.

    GIF has too few colours for a photograph; it becomes PNG.
    """
    content = io.BytesIO()
    if format in ("JPEG", "MPO"):
        picture.save(content, "JPEG", quality=95)
    elif format == "WEBP":
        picture.save(content, "WEBP", quality=95)
    else:
        picture.save(content, "PNG" if format == "GIF" else format)
    return content.getvalue()


def read_content(path: Path, *, what: str, may_be_empty: bool = False) -> bytes:
    """The content of a regular file.

    Args:
        path: The file.
        what: What it should be, for the error: "image", "annotation".
        may_be_empty: Whether an empty file means something, as a list of no heads does.

    Raises:
        InputMissingError: If there is no such file.
        BadInputError: If it is a folder, a pipe, unreadable, or empty and may not be.
    """
    try:
        if path.is_dir():
            raise BadInputError(f"{path}: is a folder; expected a file")
        if not path.exists():
            raise InputMissingError(f"{path}: no such {what}")
        # Opening a pipe would wait for somebody to write into it.
        if not path.is_file():
            raise BadInputError(f"{path}: is not a regular file")
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path}: cannot be read: {error}") from error
    if not content and not may_be_empty:
        raise BadInputError(f"{path}: the file is empty")
    return content


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep Pillow's warnings from the user, and its size limit from images that ours allows."""
    with _PILLOW_GLOBALS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


@contextmanager
def _opened(source: Path | bytes, *, name: str | None, max_pixels: int) -> Iterator[Image.Image]:
    """A Pillow image whose size is allowed; what goes wrong with it is a :class:`BadInputError`."""
    content = source if isinstance(source, bytes) else read_content(source, what="image")
    called = name or (str(source) if isinstance(source, Path) else "image")
    try:
        with _quietly():
            image = Image.open(io.BytesIO(content), formats=_FORMATS)
        with image:
            width, height = image.size
            if width * height > max_pixels:
                raise BadInputError(
                    f"{called}: {width}x{height} pixels are more than the {max_pixels} allowed",
                    next_step="reduce the image, or allow more pixels",
                )
            yield image
    except CrowdCountError:
        raise
    # Pillow's decoders raise whatever their parsing ran into: OSError, SyntaxError, struct.error.
    except Exception as error:
        raise BadInputError(f"{called}: {_reason(content, error)}") from error


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8. Where it cannot be read the image counts as upright."""
    try:
        found = image.getexif().get(_EXIF_ORIENTATION, 1)
    # Damaged EXIF says nothing of the pixels; Pillow raises whatever parsing it ran into.
    except Exception:  # noqa: BLE001
        return 1
    return found if found in _UPRIGHT else 1


def _reason(content: bytes, error: Exception) -> str:
    """Why ``content`` is not a usable image, for people."""
    start = content[:256].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<body")):
        return "holds a web page, not an image; the download went wrong"
    if isinstance(error, UnidentifiedImageError):
        return "is not an image of a known format"
    return f"the image is damaged: {error}"


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode of Pillow as RGB of 8 bits a channel."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        return _grey_from_wide(image)
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        colour = image.convert("RGBA")
        white = Image.new("RGBA", colour.size, "white")
        return Image.alpha_composite(white, colour).convert("RGB")
    return image.convert("RGB")


def _grey_from_wide(image: Image.Image) -> Image.Image:
    """Grey values of more than 8 bits brought to 0..255 from the smallest usual range they fit."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
    highest = float(values.max(initial=0.0))
    ranges = (1.0, 255.0, 65535.0) if image.mode.startswith("F") else (65535.0,)
    white = next((top for top in ranges if highest <= top), highest)
    grey = np.rint(values.clip(0.0) * (255.0 / white)).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")
