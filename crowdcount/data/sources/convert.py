"""One image of an archive to its prepared files and its line in the manifest."""

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Int64, Shaped

from crowdcount.core.heads import heads_per_block
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
from crowdcount.data.sources.pair import SourceImage
from crowdcount.data.sources.point_quality import axes_seem_swapped, finite, repeated
from crowdcount.data.sources.resize import moved_inside, moved_points, outside
from crowdcount.errors import BadInputError
from crowdcount.files import sha256_bytes, sha256_file, write_bytes


def convert(
    image: SourceImage,
    *,
    source: SourceSet,
    config: PreprocessConfig,
    folder: Path | None,
    max_pixels: int = MAX_PIXELS,
) -> ImageRecord:
    """Prepare one image: pixels, points and block counts.

    Args:
        image: What to prepare.
        source: The set it belongs to.
        config: Settings.
        folder: The prepared folder. None: write nothing and leave the pixels alone; the record then
            lacks the hashes of the files.
        max_pixels: A larger image is refused by its header.

    Raises:
        InputMissingError: If a file is not there.
        BadInputError: If the image or its annotation cannot be used.
    """
    content = read_content(image.path, what="image")
    header = image_header(content, name=str(image.path), max_pixels=max_pixels)
    annotated, annotation_hash = _annotation(image, source.recipe.points)
    heads = finite(annotated)
    width, height = size = source.recipe.resize.size(width=header.width, height=header.height)
    if width * height > max(max_pixels, MAX_PIXELS):
        raise BadInputError(
            f"{image.path}: the recipe makes {width}x{height} pixels of "
            f"{header.width}x{header.height}, more than the {max(max_pixels, MAX_PIXELS)} allowed",
            next_step="leave the image out, or allow more with --max-pixels",
        )
    # The image as its points see it, before and after the resize: upright, or as it is stored.
    turn = header.orientation if source.recipe.points.frame == "stored" else 1
    seen, resized_seen = (
        each if turn < 5 else each[::-1] for each in ((header.width, header.height), size)
    )
    scaled = moved_points(heads, old=seen, new=resized_seen)
    # Inside now, the heads stay with their image through every turn and every later crop.
    inside = moved_inside(scaled, size=resized_seen)
    points = upright_points(inside, size=resized_seen, orientation=turn)
    raw = heads_per_block(points, height=height, width=width, block=config.block)
    corrected = raw.clip(max=config.largest_count)
    hashes = Hashes(source=sha256_bytes(content), annotation=annotation_hash)
    if folder is not None:
        pixels = _image_content(content, header, size, name=str(image.path), max_pixels=max_pixels)
        files = (pixels, _array_content(points), _blocks_content(raw, corrected))
        paths = prepared_paths(folder, split=image.split, file=image.file)
        for path, file in zip(paths, files, strict=True):
            write_bytes(path, file)
        copied = pixels is content
        hashes = replace(
            hashes,
            image=hashes.source if copied else sha256_bytes(pixels),
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
        outside=int(outside(scaled, size=resized_seen).sum()),
        duplicates=repeated(heads),
        dropped=len(annotated) - len(heads),
        axes_swapped=axes_seem_swapped(heads, size=seen),
        blocks_corrected=int((raw > corrected).sum()),
        heads_cut=int((raw - corrected).sum()),
        sha256=hashes,
    )


def is_up_to_date(record: ImageRecord, image: SourceImage, *, folder: Path) -> bool:
    """Whether an image's files are, by content, what ``record`` says, and its source still is."""
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
    """The points of an image, and a hash of what they were read from."""
    if image.rows is not None:
        return image.rows, _annotation_hash(image)
    # A text without a line is an empty scene; other formats say that the file is empty.
    content = read_content(image.annotation, what="annotation", may_be_empty=True)
    try:
        return points.read(content), sha256_bytes(content)
    except ValueError as error:
        raise BadInputError(f"{image.annotation}: {error}") from error


def _annotation_hash(image: SourceImage) -> str:
    if image.rows is None:
        return sha256_file(image.annotation)
    return sha256_bytes(image.rows.tobytes())


def _image_content(
    content: bytes, header: ImageHeader, size: tuple[int, int], *, name: str, max_pixels: int
) -> bytes:
    """The prepared image: the original byte for byte, unless it must be turned or resized.

    Of several frames the first is kept alone, so that nothing later has to choose.
    """
    as_it_is = header.orientation == 1 and not header.animated
    if (header.width, header.height) == size and as_it_is:
        check_pixels(content, name=name, max_pixels=max_pixels)
        return content
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
    """What ``np.savez_compressed`` writes, in a third of its time: nearly all blocks are empty."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, counts in (("raw", raw), ("corrected", corrected)):
            # ZipInfo's own date, because that of the clock would make every run's bytes differ.
            entry = zipfile.ZipInfo(f"{name}.npy")
            npy = _array_content(counts.astype(np.int32))
            archive.writestr(entry, npy, zipfile.ZIP_DEFLATED, compresslevel=1)
    return content.getvalue()
