"""Convert an image of an archive to its prepared files and its record in the manifest."""

import io
import logging
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Shaped

from crowdcount.core.blocks import heads_per_block
from crowdcount.core.image import resized
from crowdcount.core.limits import MAX_PIXELS
from crowdcount.data.prepared.manifest import Hashes, ImageRecord, PreprocessConfig, prepared_paths
from crowdcount.data.sources.annotations import Points, PointsFormat
from crowdcount.data.sources.find import SourceSet
from crowdcount.data.sources.images import (
    ImageHeader,
    check_pixels,
    encode_image,
    image_header,
    load_image,
    read_content,
    upright_points,
)
from crowdcount.data.sources.matlab import stated_heads
from crowdcount.data.sources.pair import SourceImage
from crowdcount.data.sources.point_frame import AnnotatedHeads
from crowdcount.data.sources.point_quality import axes_seem_swapped, count_duplicates, finite
from crowdcount.data.sources.resize import moved_inside, moved_points, outside
from crowdcount.errors import BadInputError
from crowdcount.files import sha256_bytes, sha256_file, write_bytes

log = logging.getLogger("crowdcount")


def convert(
    image: SourceImage,
    *,
    source: SourceSet,
    config: PreprocessConfig,
    folder: Path | None,
    max_pixels: int = MAX_PIXELS,
) -> ImageRecord:
    """Convert one image: pixels, points and block counts.

    Without a prepared ``folder`` nothing is written, no pixels are decoded, and the record lacks
    the hashes of prepared files. An image with more than ``max_pixels`` is refused by its header.

    Raises:
        InputMissingError: If a file does not exist.
        BadInputError: If the image or its annotation cannot be used.
    """
    content = read_content(image.path, what="image")
    header = image_header(content, name=str(image.path), max_pixels=max_pixels)
    annotated, annotation_hash = _annotation(image, source.recipe.points)
    width, height = size = source.recipe.resize.size(width=header.width, height=header.height)
    if width * height > max(max_pixels, MAX_PIXELS):
        raise BadInputError(
            f"{image.path}: the recipe makes {width}x{height} pixels of "
            f"{header.width}x{header.height}, more than the {max(max_pixels, MAX_PIXELS)} allowed",
            next_step="leave the image out, or allow more with --max-pixels",
        )
    # Sizes in the frame of the points, before and after the resize: upright, or as stored.
    turn = header.orientation if source.recipe.points.frame == "stored" else 1
    old, new = (wh if turn < 5 else wh[::-1] for wh in ((header.width, header.height), size))
    heads = source.recipe.points.in_pixels(finite(annotated), size=old)
    scaled = moved_points(heads, old=old, new=new)
    # A head inside the image stays inside through every turn and every later crop.
    points = upright_points(moved_inside(scaled, size=new), size=new, orientation=turn)
    raw = heads_per_block(points, height=height, width=width, block=config.block)
    corrected = raw.clip(max=config.largest_count)
    hashes = Hashes(source=sha256_bytes(content), annotation=annotation_hash)
    if folder is not None:
        pixels = _image_content(content, header, size, name=str(image.path), max_pixels=max_pixels)
        files = (pixels, _array_content(points), _blocks_content(raw, corrected))
        paths = prepared_paths(folder, split=image.split, file=image.file)
        for path, file in zip(paths, files, strict=True):
            write_bytes(path, file)
        hashes = replace(
            hashes,
            image=hashes.source if pixels is content else sha256_bytes(pixels),
            points=sha256_bytes(files[1]),
            blocks=sha256_bytes(files[2]),
        )
    return ImageRecord(
        split=image.split,
        file=image.file,
        source=image.path.relative_to(source.root).as_posix(),
        width=width,
        height=height,
        source_width=header.width,
        source_height=header.height,
        orientation=header.orientation,
        heads=len(points),
        outside=int(outside(scaled, size=new).sum()),
        duplicates=count_duplicates(heads),
        dropped=len(annotated) - len(heads),
        axes_swapped=axes_seem_swapped(heads, size=old),
        blocks_corrected=int((raw > corrected).sum()),
        heads_cut=int((raw - corrected).sum()),
        sha256=hashes,
    )


def annotated_heads(
    image: SourceImage, content: bytes, *, points: PointsFormat, max_pixels: int = MAX_PIXELS
) -> AnnotatedHeads:
    """Return the finite heads of an original as annotated; those outside stay where they are.

    Args:
        image: The image and its annotation.
        content: The image file.
        points: How its annotation is read.
        max_pixels: A larger image is refused by its header.

    Raises:
        InputMissingError: If the annotation does not exist.
        BadInputError: If the image or its annotation cannot be used.
    """
    header = image_header(content, name=str(image.path), max_pixels=max_pixels)
    return AnnotatedHeads(
        heads=finite(_annotation(image, points)[0]),
        width=header.width,
        height=header.height,
        orientation=header.orientation,
    )


def is_up_to_date(record: ImageRecord, image: SourceImage, *, folder: Path) -> bool:
    """Return whether the prepared files and the source of an image have the recorded hashes."""
    paths = prepared_paths(folder, split=record.split, file=record.file)
    hashes = record.sha256
    try:
        return (
            sha256_file(image.path) == hashes.source
            and _annotation_hash(image) == hashes.annotation
            and [sha256_file(path) for path in paths]
            == [hashes.image, hashes.points, hashes.blocks]
        )
    except OSError:
        return False


def _annotation(image: SourceImage, points: PointsFormat) -> tuple[Points, str]:
    """Return the points of an image, and the hash of their source."""
    if image.rows is not None:
        return image.rows, _annotation_hash(image)
    # An empty text is an empty scene; other formats refuse an empty file.
    content = read_content(image.annotation, what="annotation", may_be_empty=True)
    try:
        heads = points.read(content)
    except ValueError as error:
        raise BadInputError(f"{image.annotation}: {error}") from error
    stated = stated_heads(content, points.key) if points.reader == "mat" else None
    if stated not in (None, len(heads)):
        log.warning(
            "%s: says %d heads and holds %d points, which count",
            *(image.annotation, stated, len(heads)),
        )
    return heads, sha256_bytes(content)


def _annotation_hash(image: SourceImage) -> str:
    if image.rows is None:
        return sha256_file(image.annotation)
    return sha256_bytes(image.rows.tobytes())


def _image_content(
    content: bytes, header: ImageHeader, size: tuple[int, int], *, name: str, max_pixels: int
) -> bytes:
    """Return the prepared image: the original bytes, unless it must be turned or resized.

    Only the first of several frames is kept.
    """
    unchanged = (header.width, header.height) == size and header.orientation == 1
    if unchanged and not header.animated:
        return check_pixels(content, name=name, max_pixels=max_pixels)
    width, height = size
    pixels = load_image(content, name=name, max_pixels=max_pixels, writable=False)
    return encode_image(resized(pixels, width=width, height=height), format=header.format)


def _array_content(array: Shaped[np.ndarray, "..."]) -> bytes:
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    return content.getvalue()


def _blocks_content(
    raw: Int64[np.ndarray, "rows cols"], corrected: Int64[np.ndarray, "rows cols"]
) -> bytes:
    """Compress faster than ``np.savez_compressed``, by two thirds: few blocks hold heads."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, counts in (("raw", raw), ("corrected", corrected)):
            # ZipInfo's default date: with the time of day, the bytes of every run would differ.
            entry = zipfile.ZipInfo(f"{name}.npy")
            npy = _array_content(counts.astype(np.int32))
            archive.writestr(entry, npy, zipfile.ZIP_DEFLATED, compresslevel=1)
    return content.getvalue()
