"""The one image loader: file to upright RGB array, with the header checked before decoding."""

import io
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image, ImageChops, TiffImagePlugin, UnidentifiedImageError

from crowdcount.core.limits import MAX_PIXELS
from crowdcount.errors import BadInputError, InputMissingError, MemoryExhaustedError
from crowdcount.files import describe_stand_in
from crowdcount.opencv import cv2

log = logging.getLogger("crowdcount")

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".png", ".apng", ".webp", ".tif", ".tiff", ".bmp", ".gif"}
    | {".ppm", ".pgm", ".avif", ".heic", ".heif", ".hif"}
)
"""Suffixes of image files, in lower case."""

# Pillow reads more formats; some of them start other programs or do not hold photographs.
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF")
_KNOWN = "JPEG, PNG, WebP, TIFF, BMP, GIF, PPM, AVIF and HEIC"

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# Major brands of HEIC files. AVIF uses the same container with brands that Pillow knows.
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}

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

# The same turns of points: mirror x, mirror y; from 5 on, x and y are then swapped.
_MIRROR_X, _MIRROR_Y = (2, 3, 7, 8), (3, 4, 6, 7)

_JUST_BELOW = 2.0**-10

# Warnings and Pillow's size limit are global, so only one thread changes them at a time.
_PILLOW_GLOBALS = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class ImageHeader:
    """The header of an image file, read before any pixel is decoded."""

    width: int
    """Pixels of the upright image."""

    height: int
    """Pixels of the upright image."""

    orientation: int
    """EXIF orientation, 1 to 8; 1 is upright."""

    format: str
    """Pillow's name of the content's format, whatever the file's suffix is."""

    animated: bool
    """Whether it holds several frames or pages, of which only the first is used."""


def load_image(
    source: Path | bytes,
    *,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
    writable: bool = True,
) -> UInt8[np.ndarray, "height width 3"]:
    """Load the upright RGB pixels of an image file, or of its content.

    EXIF orientation is applied. Grey, palette and CMYK images become RGB; transparent parts become
    white; 16 bits a channel and floats become 8 bits; only the first of several frames or pages is
    used, with a line in the log. Colour profiles are ignored: every image is taken for sRGB, as in
    the published code.

    Args:
        source: A file, or its content.
        name: Name of the image in error messages; the path by default.
        max_pixels: Larger images are refused by their header.
        writable: False saves a copy; tensors need writable memory.

    Raises:
        InputMissingError: If the file does not exist.
        BadInputError: If it is not an image, is damaged or too large.
        MemoryExhaustedError: If its pixels do not fit into memory.
    """
    name = _name_of(source, name)
    try:
        return _load(source, name=name, max_pixels=max_pixels, writable=writable)
    except BadInputError:
        content = source if isinstance(source, bytes) else read_content(source, what="image")
        completed = _with_end(content)
        if completed is None:
            raise
    log.warning("%s: lacks the end of a JPEG file, but no pixel", name)
    return _load(completed, name=name, max_pixels=max_pixels, writable=writable)


def _load(
    source: Path | bytes, *, name: str, max_pixels: int, writable: bool
) -> UInt8[np.ndarray, "height width 3"]:
    with _opened(source, name=name, max_pixels=max_pixels) as image:
        upright = _upright_rgb(image, name=name)
        # Last, because this makes Pillow move to the second frame of a GIF.
        if _is_animated(image):
            log.info("%s: holds several frames; the first is used", name)
        return np.array(upright) if writable else np.asarray(upright)


def pixels_of(image: Image.Image | np.ndarray) -> UInt8[np.ndarray, "height width 3"]:
    """Convert a Pillow image or an array to upright RGB pixels, as :func:`load_image` does a file.

    Args:
        image: A Pillow image, turned upright by its EXIF orientation; or an upright array of 8 bits
            a channel: (height, width) or (height, width, 1) is grey, (height, width, 3) RGB,
            (height, width, 4) RGBA.

    Raises:
        BadInputError: If an array has another type or shape, or the Pillow image is damaged.
    """
    if isinstance(image, Image.Image):
        return np.array(_upright_rgb(image, name="image"))
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or channels not in (1, 3, 4):
        raise BadInputError(
            "image: expected a uint8 array of shape (height, width), (height, width, 3) or "
            f"(height, width, 4), got {image.dtype} of shape {image.shape}",
            next_step="convert it: RGB values from 0 to 255, channels last",
        )
    if image.size == 0:
        raise BadInputError(f"image: an array of shape {image.shape} has no pixels")
    if channels == 3:
        return np.ascontiguousarray(image)
    grey_or_rgba = image if channels == 4 else image.reshape(image.shape[:2])
    return np.array(_rgb(Image.fromarray(grey_or_rgba), name="image"))


def image_header(
    source: Path | bytes, *, name: str | None = None, max_pixels: int = MAX_PIXELS
) -> ImageHeader:
    """Read size, orientation and format of an image, as :func:`load_image` will see it.

    Reads the header only, except for PNG without EXIF before its pixels, and for TIFF.

    Raises:
        InputMissingError: If the file does not exist.
        BadInputError: If it is not an image or too large.
    """
    name = _name_of(source, name)
    with _opened(source, name=name, max_pixels=max_pixels) as image, _quietly():
        orientation = _orientation(image)
        if image.format == "TIFF":
            with _damage_reported(name):
                image.load()  # Pillow turns TIFF by itself, when it is decoded
            width, height = image.size
        else:
            width, height = image.size if orientation < 5 else image.size[::-1]
        return ImageHeader(
            width=width,
            height=height,
            orientation=orientation,
            format=str(image.format),
            animated=_is_animated(image),
        )


def image_size(source: Path | bytes) -> tuple[int, int]:
    """Read ``(width, height)`` of the upright image; raises as :func:`image_header`."""
    header = image_header(source)
    return header.width, header.height


def upright_points(
    points: Float64[np.ndarray, "heads 2"], *, size: tuple[int, int], orientation: int
) -> Float64[np.ndarray, "heads 2"]:
    """Turn points of a stored image as :func:`load_image` turns its pixels.

    A head stays on its pixel. Mirrored to width - x, a head on the left edge of a pixel would move
    to the next pixel; it is placed just inside instead.

    Args:
        points: Head centres ``(x, y)``, all of them inside the stored image.
        size: ``(width, height)`` of the stored image.
        orientation: EXIF orientation, 1 to 8.
    """
    last = np.floor(points) + _JUST_BELOW
    mirrored = np.asarray(size) - np.maximum(points, last)
    moved = np.where([orientation in _MIRROR_X, orientation in _MIRROR_Y], mirrored, points)
    return moved if orientation < 5 else np.ascontiguousarray(moved[:, ::-1])


def check_pixels(content: bytes, *, name: str, max_pixels: int = MAX_PIXELS) -> bytes:
    """Decode an image as cheaply as its format allows, to check that it is complete.

    Returns:
        The content; a JPEG file that lacks its end, but no pixel, gets one.

    Raises:
        BadInputError: If it is truncated, damaged or too large.
    """
    try:
        with _opened(content, name=name, max_pixels=max_pixels) as image:
            with _damage_reported(name):
                image.draft("L", (1, 1))  # JPEG: an eighth of the size, half the time
            _decode(image, name=name)
    except BadInputError:
        completed = _with_end(content)
        if completed is None:
            raise
        log.warning("%s: lacks the end of a JPEG file, but no pixel", name)
        return completed
    return content


def _with_end(content: bytes) -> bytes | None:
    """Return a JPEG file with the end that it lacks; None if it lacks more, or is none.

    Where the decoder still needs bits for the last pixels, it takes them from what follows, so that
    other bits make other pixels.
    """
    if not content.startswith(_JPEG_START) or _JPEG_END in content[-len(_JPEG_END) :]:
        return None
    start = content.rstrip(b"\xff")
    pixels: list[np.ndarray] = []
    for filler in (b"\x00", b"\x55", b"\xaa"):
        image = cv2.imdecode(
            np.frombuffer(start + filler * 64 + _JPEG_END, dtype=np.uint8), cv2.IMREAD_COLOR
        )
        if image is None or (pixels and not np.array_equal(image, pixels[0])):
            return None
        pixels.append(image)
    return start + _JPEG_END


def encode_image(pixels: UInt8[np.ndarray, "height width 3"], *, format: str) -> bytes:
    """Encode an image in the format of its original, JPEG and WebP at quality 95.

    GIF becomes PNG, because it has too few colours for a photograph. AVIF and HEIC become JPEG,
    because their encoders are slow and not always installed.
    """
    if format in ("JPEG", "MPO", "AVIF", "HEIF"):
        # Not with Pillow, which blocks other threads while it encodes.
        bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
        return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    content = io.BytesIO()
    picture = Image.fromarray(pixels)
    if format == "WEBP":
        picture.save(content, "WEBP", quality=95)
    else:
        picture.save(content, "PNG" if format == "GIF" else format)
    return content.getvalue()


def read_content(path: Path, *, what: str, may_be_empty: bool = False) -> bytes:
    """Read the content of a regular file; ``what`` is its noun in error messages.

    Raises:
        InputMissingError: If the file does not exist.
        BadInputError: If it is a folder, a pipe, unreadable, or empty and must not be.
    """
    try:
        if path.is_dir():
            raise BadInputError(f"{path}: is a folder; expected a file")
        if not path.exists():
            raise InputMissingError(f"{path}: no such {what}")
        # Opening a pipe would wait for a writer.
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
    """Suppress Pillow's warnings and its size limit; ours applies instead."""
    with _PILLOW_GLOBALS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


@contextmanager
def _opened(source: Path | bytes, *, name: str, max_pixels: int) -> Iterator[Image.Image]:
    """Open a Pillow image and refuse one that is too large, before or in the block."""
    content = source if isinstance(source, bytes) else read_content(source, what="image")
    try:
        with _quietly():
            image = _identified(content, name=name, max_pixels=max_pixels)
        with image:
            _refuse_larger(image.size, name=name, max_pixels=max_pixels)
            yield image
    except MemoryError as error:
        raise MemoryExhaustedError(
            f"{name}: the image needs more memory than there is",
            next_step="reduce the image, or close other programs",
        ) from error


@contextmanager
def _damage_reported(name: str) -> Iterator[None]:
    """Report an exception of Pillow as damage; the block may hold calls of Pillow only.

    Its decoders raise errors of many types: OSError, SyntaxError, struct.error.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise BadInputError(f"{name}: the image is damaged: {error}") from error


def _name_of(source: Path | bytes, name: str | None) -> str:
    return name or (str(source) if isinstance(source, Path) else "image")


def _refuse_larger(size: tuple[int, int], *, name: str, max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise BadInputError(
            f"{name}: {width}x{height} pixels are more than the {max_pixels} allowed",
            next_step="reduce the image, or allow more with --max-pixels",
        )


def _identified(content: bytes, *, name: str, max_pixels: int) -> Image.Image:
    """Open an image of any known format; from most only the header is read."""
    with _damage_reported(name), suppress(UnidentifiedImageError):
        return Image.open(io.BytesIO(content), formats=_FORMATS)
    if content.startswith(_TIFF_STARTS):
        return _tiff_that_pillow_refuses(content, name=name, max_pixels=max_pixels)
    if content[4:8] == b"ftyp" and content[8:12] in _HEIF_BRANDS:
        return _heif(content, name=name)
    raise BadInputError(
        f"{name}: {describe_stand_in(content) or 'is not an image of a known format'}",
        next_step=f"known formats are {_KNOWN}",
    )


def _heif(content: bytes, *, name: str) -> Image.Image:
    """Open a HEIC photograph; its decoder turns it upright and resets its orientation."""
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise BadInputError(
            f"{name}: is a HEIC image, and nothing is installed that reads these",
            next_step="pip install 'crowdcount-ebc[heif]'",
        ) from error
    with _damage_reported(name):
        image: Image.Image = HeifImageFile(io.BytesIO(content))  # type: ignore[no-untyped-call]
    return image


def _tiff_that_pillow_refuses(content: bytes, *, name: str, max_pixels: int) -> Image.Image:
    """Decode a TIFF of types that OpenCV reads and Pillow does not: 32-bit or float colours."""
    with _damage_reported(name):
        tags = TiffImagePlugin.ImageFileDirectory_v2(content[: 16 if b"+" in content[:4] else 8])
        stream = io.BytesIO(content)
        stream.seek(tags.next)
        tags.load(stream)
        width = int(tags[TiffImagePlugin.IMAGEWIDTH])
        height = int(tags[TiffImagePlugin.IMAGELENGTH])
        bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
        depth = f"{len(bits)} channels of {bits[0]} bits"
    _refuse_larger((width, height), name=name, max_pixels=max_pixels)
    # OpenCV writes about damaged files to stderr.
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        # It applies the orientation, as Pillow does for TIFF.
        values = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        values = None
    finally:
        cv2.utils.logging.setLogLevel(level)
    if values is None or (values.ndim == 3 and values.shape[2] not in (3, 4)):
        raise BadInputError(
            f"{name}: a TIFF with {depth} that cannot be read: it is damaged or of a rare kind",
            next_step="save it with 8 or 16 bits a channel, or as PNG",
        )
    eight = _eight_bits(values)
    if eight.ndim == 3:  # OpenCV's order is blue, green, red, alpha
        eight = np.ascontiguousarray(eight[..., [2, 1, 0, *range(3, eight.shape[2])]])
    image = Image.fromarray(eight)
    image.format = "TIFF"
    return image


def _decode(image: Image.Image, *, name: str) -> None:
    """Decode the pixels; refuse another size than the header's, by which points were scaled."""
    size = image.size
    # Decoding a TIFF parses its tags again, which may warn.
    with _quietly() if image.format == "TIFF" else nullcontext(), _damage_reported(name):
        image.load()
    if image.size != size:
        raise BadInputError(
            f"{name}: the image is damaged: it holds {image.width}x{image.height} pixels, "
            f"and its header says {size[0]}x{size[1]}"
        )


def _upright_rgb(image: Image.Image, *, name: str) -> Image.Image:
    """Decode an image, convert it to RGB and turn it upright."""
    _decode(image, name=name)
    # After decoding: PNG may hold EXIF behind its pixels, and Pillow turns TIFF by itself.
    with _quietly():
        turn = _UPRIGHT.get(_orientation(image))
    rgb = _rgb(image, name=name)
    return rgb if turn is None else rgb.transpose(turn)


def _is_animated(image: Image.Image) -> bool:
    """Return whether there are more frames or pages; depth maps in MPO of phones do not count."""
    try:
        return image.format != "MPO" and bool(getattr(image, "is_animated", False))
    # A damaged later frame is a frame, too; Pillow raises errors of many types for it.
    except Exception:  # noqa: BLE001
        return True


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; an image with unreadable EXIF counts as upright."""
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    # The pixels may be fine; Pillow raises errors of many types for damaged EXIF.
    except Exception:  # noqa: BLE001
        return 1
    return orientation if orientation in _UPRIGHT else 1


def _rgb(image: Image.Image, *, name: str) -> Image.Image:
    """Convert a decoded image of any mode to RGB with 8 bits a channel."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_eight_bits(np.asarray(image))).convert("RGB")
    with _damage_reported(name):
        if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
            colour = image.convert("RGBA")
            white = Image.new("RGBA", colour.size, "white")
            return Image.alpha_composite(white, colour).convert("RGB")
        if image.mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info:
            # Only Adobe stores the inks inverted; Pillow takes every JPEG for one of theirs.
            return ImageChops.invert(image).convert("RGB")
        return image.convert("RGB")


def _eight_bits(values: np.ndarray) -> UInt8[np.ndarray, "*shape"]:
    """Scale values of any type to 0..255 from the smallest usual range that holds them."""
    scaled = np.nan_to_num(values.astype(np.float32), copy=False, posinf=0.0, neginf=0.0)
    highest = float(scaled.max(initial=0.0))
    ranges = (1.0, 255.0, 65535.0) if values.dtype.kind == "f" else (65535.0, 2.0**32 - 1)
    white = next((top for top in ranges if highest <= top), highest)
    scaled *= 255.0 / white
    return np.rint(scaled.clip(0.0, 255.0, out=scaled), out=scaled).astype(np.uint8)
