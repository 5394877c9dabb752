"""Draw the first crops of a training run, as the network and the loss receive them."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from crowdcount.config import RunConfig
from crowdcount.core.bins import Bins, format_range
from crowdcount.core.image import Sample
from crowdcount.core.progress import Track, untracked
from crowdcount.core.types import Batch
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.drawing.contact_sheet import (
    BlockColours,
    Layout,
    Tile,
    contact_sheet,
    picture,
    plain_picture,
)
from crowdcount.files import write_bytes
from crowdcount.wording import counted
from crowdcount.workflows.plan import (
    TrainingSamples,
    first_bins,
    initial_checkpoint,
    plan_training,
    training_batches,
)
from crowdcount.workflows.show import check_sheet

FEWEST_CROPS = 8
"""Number of crops up to which further batches are drawn."""

MOST_CROPS = 32
"""Largest number of crops drawn from one batch."""

_SEAM = 4
"""Pixels between a crop and the same crop with its blocks."""


Crop = tuple[Sample, Tensor]
"""A training crop and the heads of each of its blocks, of shape (1, rows, cols)."""


def show_batch(
    config: RunConfig,
    data: Sequence[PreparedDataset],
    out: Path,
    *,
    force: bool = False,
    track: Track = untracked,
) -> None:
    """Draw the first crops of a training run into a PNG file, without training.

    Args:
        config: All settings of the run.
        data: Prepared data sets, trained on together.
        out: The file.
        force: Replace an earlier file.
        track: Shows progress.

    Raises:
        UsageError: If ``out`` already exists, or does not end in ``.png``.
    """
    check_sheet(out, force=force)
    write_bytes(out, draw_batch(config, data, track=track))


def draw_batch(
    config: RunConfig, data: Sequence[PreparedDataset], *, track: Track = untracked
) -> bytes:
    """Draw the first crops of a training run, in their order, as a PNG file.

    Each crop is drawn twice: as the network sees it, and in grey with its heads and with its blocks
    in the colours of their classes. Batches and bins are those of
    :func:`crowdcount.workflows.train.train` with the same settings.
    """
    plan = plan_training(config, data)
    bins = first_bins(config, data, init=initial_checkpoint(config), track=track)
    batches = training_batches(plan, TrainingSamples(data)).epoch(1)
    crops = _first_crops(iter(batches))
    colours = BlockColours(
        block=bins.block,
        max_count=bins.max_count,
        fullest=max(int(counts.max()) for _, counts in crops),
        bins=bins,
    )
    layout = Layout.of([(2 * plan.crop, plan.crop)] * len(crops))
    half = Layout(columns=1, width=(layout.width - _SEAM) // 2, height=layout.height)
    tiles = [_tile(*crop, layout=half, colours=colours, bins=bins) for crop in crops]
    heads = int(sum(counts.sum() for _, counts in crops))
    title = (
        f"{', '.join(plan.names)}: first {len(crops)} training crops of {plan.crop} pixels, "
        f"{counted(heads, 'head')}, {config.augment.chain} augmentation, "
        f"seed {config.train.seed}"
    )
    return contact_sheet(tiles, title=title, layout=layout, colours=colours)


def _first_crops(batches: Iterator[Batch]) -> list[Crop]:
    """Return the crops of the first batches, in order."""
    crops: list[Crop] = []
    while len(crops) < FEWEST_CROPS and (batch := next(batches, None)) is not None:
        crops += islice(_crops(batch), MOST_CROPS)
    return crops


def _crops(batch: Batch) -> Iterator[Crop]:
    """Convert the tensors of a training batch to crops."""
    pixels = (batch.images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    for name, image, points, counts in zip(
        batch.names, pixels, batch.target.points, batch.target.counts, strict=True
    ):
        sample = Sample(
            name=name, image=np.ascontiguousarray(image), points=points.double().numpy()
        )
        yield sample, counts


def _tile(
    sample: Sample, counts: Tensor, *, layout: Layout, colours: BlockColours, bins: Bins
) -> Tile:
    plain = plain_picture(sample, layout=layout)
    heads = counts[0].long().numpy()
    marked = picture(sample, layout=layout, colours=colours, counts=heads)
    seam = np.zeros((len(plain), _SEAM, 3), dtype=np.uint8)
    return Tile(
        picture=np.concatenate([plain, seam, marked], axis=1),
        name=sample.name,
        caption=_caption(counts, bins),
    )


def _caption(counts: Tensor, bins: Bins) -> str:
    """Return the number of heads, and of blocks of each class that occurs."""
    heads = int(counts.sum())
    blocks = torch.bincount(bins.classify(counts).flatten(), minlength=len(bins.starts))
    classes = [
        f"{number:,} of {format_range(low, high)}"
        for (low, high), number in zip(bins.ranges, blocks.tolist(), strict=True)
        if number
    ]
    return f"{counted(heads, 'head')}; blocks: {', '.join(classes)}"
