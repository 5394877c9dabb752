"""One image of an archive to its prepared files and its line in the manifest."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from crowdcount.core.blocks import block_counts, corrected_counts
from crowdcount.core.image import resized
from crowdcount.core.limits import MAX_PIXELS
from crowdcount.data.images import (
    ImageHeader,
    check_pixels,
    encode_image,
    image_header,
    load_image,
    read_content,
)
from crowdcount.data.layout import Found, SourceImage
from crowdcount.data.points import Points, PointsFormat
from crowdcount.data.prepared import Hashes, ImageRecord, PreprocessConfig, prepared_paths
from crowdcount.data.resize import moved_inside, moved_points, outside
from crowdcount.errors import BadInputError
from crowdcount.files import sha256_bytes, sha256_file, write_bytes


def convert(
    image: SourceImage,
    *,
    found: Found,
    config: PreprocessConfig,
    folder: Path | None,
    max_pixels: int = MAX_PIXELS,
) -> ImageRecord:
    """Prepare one image: pixels, points and block counts.

    Args:
        image: What to prepare.
        found: The set it belongs to.
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
    annotated, annotation_hash = _annotation(image, found.recipe.points)
    source_size = header.width, header.height
    width, height = size = found.recipe.resize.size(width=header.width, height=header.height)
    scaled = moved_points(annotated, old=source_size, new=size)
    # Inside now, the heads stay with their image through every later crop.
    points = moved_inside(scaled, size=size)
    raw = block_counts(torch.from_numpy(points), height=height, width=width, block=config.block)
    corrected = corrected_counts(raw, max_count=config.max_count)
    hashes = Hashes(source=sha256_bytes(content), annotation=annotation_hash)
    if folder is not None:
        pixels = _image_content(content, header, size, name=str(image.path), max_pixels=max_pixels)
        files = (pixels, _points_content(points), _blocks_content(raw, corrected))
        paths = prepared_paths(folder, split=image.split, file=image.file)
        for path, file in zip(paths, files, strict=True):
            write_bytes(path, file)
        made = dict(zip(("image", "points", "blocks"), map(sha256_bytes, files), strict=True))
        hashes = replace(hashes, **made)
    return ImageRecord(
        split=image.split,
        file=image.file,
        source=image.path.relative_to(found.root).as_posix(),
        width=width,
        height=height,
        source_width=header.width,
        source_height=header.height,
        orientation=header.orientation,
        heads=len(points),
        outside=int(outside(scaled, size=size).sum()),
        duplicates=len(annotated) - len(np.unique(annotated, axis=0)),
        blocks_corrected=int((raw > corrected).sum()),
        heads_cut=int((raw - corrected).sum()),
        sha256=hashes,
    )


def is_right(record: ImageRecord, image: SourceImage, *, folder: Path) -> bool:
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
    content = read_content(image.annotation, what="annotation")
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
    pixels = resized(
        load_image(content, name=name, max_pixels=max_pixels), width=width, height=height
    )
    return encode_image(pixels, format=header.format)


def _points_content(points: Points) -> bytes:
    content = io.BytesIO()
    np.save(content, points, allow_pickle=False)
    return content.getvalue()


def _blocks_content(
    raw: Float[Tensor, "1 rows cols"], corrected: Float[Tensor, "1 rows cols"]
) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, raw=raw[0].int().numpy(), corrected=corrected[0].int().numpy())
    return content.getvalue()
