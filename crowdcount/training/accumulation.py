"""A batch in pieces, for steps that need more memory at once than there is."""

import dataclasses
from collections.abc import Iterator

import torch

from crowdcount.core.types import Batch, BlockTarget


def split_batch(batch: Batch, *, pieces: int) -> Iterator[Batch]:
    """The images of a batch in at most ``pieces`` batches of nearly equal size, in order."""
    images = len(batch.names)
    size = -(-images // pieces)
    if size >= images:
        yield batch
        return
    target = batch.target
    for start in range(0, images, size):
        part = slice(start, start + size)
        yield Batch(
            images=batch.images[part],
            target=dataclasses.replace(
                target,
                counts=target.counts[part],
                points=target.points[part],
                heads=target.heads[part],
                whole_batch=images,
            ),
            names=batch.names[part],
        )


def move_target(target: BlockTarget, device: torch.device) -> BlockTarget:
    """The same target on another device."""
    return dataclasses.replace(
        target,
        counts=target.counts.to(device, non_blocking=True),
        points=tuple(points.to(device, non_blocking=True) for points in target.points),
        heads=target.heads.to(device, non_blocking=True),
    )
