"""Made-up records and manifests of prepared data sets."""

from dataclasses import replace

from crowdcount.data.prepared.manifest import (
    FORMAT,
    Hashes,
    ImageRecord,
    Manifest,
    PreprocessConfig,
)
from crowdcount.data.sources.annotations import PointsFormat
from crowdcount.data.sources.resize import ResizeRule


def record(split, file, heads=3, **facts):
    """Build a record; the facts of an image with some heads at one place are the default."""
    plain = ImageRecord(
        split=split,
        file=file,
        source=f"{split}_data/images/{file}",
        width=64,
        height=32,
        source_width=60,
        source_height=30,
        orientation=1,
        heads=heads,
        outside=0,
        duplicates=1,
        blocks_corrected=0,
        heads_cut=0,
        sha256=Hashes(source="a", annotation="b", image="c", points="d", blocks="e"),
    )
    return replace(plain, **facts)


def manifest(*images, held_out=()):
    return Manifest(
        format=FORMAT,
        versions={"crowdcount": ("0",)},
        name="street",
        title="Street",
        recipe="csv",
        recipe_sha256="0",
        settings=PreprocessConfig(),
        max_count=4,
        resize=ResizeRule(short_side_min=448),
        points=PointsFormat(reader="csv"),
        complete=True,
        reasons=(),
        release=None,
        totals={},
        unpaired={},
        held_out=held_out,
        images=images,
    )
