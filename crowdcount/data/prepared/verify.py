"""Check the files of a prepared folder against its manifest; write nothing."""

import io
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from crowdcount.core.blocks import heads_per_block
from crowdcount.data.prepared.dataset import check_points
from crowdcount.data.prepared.journal import unlisted_files
from crowdcount.data.prepared.manifest import (
    JOURNAL,
    ImageRecord,
    Manifest,
    prepared_paths,
    totals_by_split,
)
from crowdcount.data.sources.images import image_header
from crowdcount.data.sources.recipe import SPLITS
from crowdcount.files import sha256_bytes


def manifest_problems(manifest: Manifest) -> Iterator[str]:
    """Yield contradictions inside a manifest."""
    names = [record.name for record in manifest.images]
    for name in sorted(name for name, number in Counter(names).items() if number > 1):
        yield f"{name}: occurs twice in the manifest"
    sums = totals_by_split(manifest.images)
    for split in {**sums, **manifest.totals}:
        if sums.get(split) != manifest.totals.get(split):
            yield f"{split}: the totals are not the sums over its images"
    train = {record.file for record in manifest.images if record.split == "train"}
    reserved = {*manifest.held_out, *manifest.calibration}
    if len(reserved) < len(manifest.held_out) + len(manifest.calibration):
        yield "held out: an image occurs twice"
    for file in sorted(reserved - train):
        yield f"held out: {file} is not a training image"
    if manifest.held_out and "val" in sums:
        yield "held out: images, although there is a validation split"
    if reserved and not train - reserved:
        yield "held out: every training image"
    if manifest.complete == bool(manifest.reasons):
        yield "complete, with reasons" if manifest.complete else "incomplete, without a reason"


def record_problems(record: ImageRecord, *, folder: Path, manifest: Manifest) -> Iterator[str]:
    """Yield differences between an image and its record: files, hashes, size, heads, blocks."""
    file = PurePosixPath(record.file)
    if record.split not in SPLITS or file.is_absolute() or ".." in file.parts:
        yield f"{record.name}: is in none of {', '.join(SPLITS)}"
        return
    hashes = record.sha256
    contents = []
    for path, expected in zip(
        prepared_paths(folder, split=record.split, file=record.file),
        (hashes.image, hashes.points, hashes.blocks),
        strict=True,
    ):
        try:
            content = path.read_bytes()
        except OSError as error:
            yield f"{path.relative_to(folder)}: {error.strerror or error}"
            continue
        if sha256_bytes(content) == expected:
            contents.append(content)
        else:
            yield f"{path.relative_to(folder)}: is not the file that was written"
    if len(contents) < 3:
        return
    try:
        yield from _content_problems(record, *contents, manifest=manifest)
    # Files of another kind may have the recorded hashes; numpy and zlib raise many types of errors.
    except Exception:  # noqa: BLE001
        yield f"{record.name}: the files do not hold an image, points and block counts"


def folder_problems(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Yield files that the manifest does not name, and an unfinished preparation."""
    for path in unlisted_files(folder, manifest):
        yield f"{path.relative_to(folder)}: the manifest does not name it"
    if (folder / JOURNAL).exists():
        yield f"{JOURNAL}: a preparation was interrupted"


def _content_problems(
    record: ImageRecord, image: bytes, points: bytes, blocks: bytes, *, manifest: Manifest
) -> Iterator[str]:
    header = image_header(image, name=record.name)
    size = (record.width, record.height)
    if (header.width, header.height) != size:
        yield f"{record.name}: has {header.width}x{header.height} pixels, not {size[0]}x{size[1]}"
        return
    heads = np.lib.format.read_array(io.BytesIO(points), allow_pickle=False)
    try:
        check_points(heads, record)
    except ValueError as error:
        yield f"{record.name}: {error}"
        return
    expected = heads_per_block(
        heads, height=record.height, width=record.width, block=manifest.settings.block
    )
    # Packed, a file of a few kilobytes could hold more than the memory does.
    unpacked = max(entry.file_size for entry in zipfile.ZipFile(io.BytesIO(blocks)).infolist())
    if unpacked > expected.nbytes + 1024:
        yield f"{record.name}: the block counts are not those of its {len(heads)} heads"
        return
    with np.load(io.BytesIO(blocks), allow_pickle=False) as counts:
        raw, corrected = counts["raw"], counts["corrected"]
    if not np.array_equal(raw, expected):
        yield f"{record.name}: the block counts are not those of its {len(heads)} heads"
    if not np.array_equal(corrected, raw.clip(max=manifest.max_count)):
        yield f"{record.name}: the corrected counts are not the raw ones up to {manifest.max_count}"
    cut = raw.astype(np.int64) - corrected
    if (int((cut > 0).sum()), int(cut.sum())) != (record.blocks_corrected, record.heads_cut):
        yield f"{record.name}: the correction is not that of the manifest"
