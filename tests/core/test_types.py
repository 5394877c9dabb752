"""Batches, as a loader handles them."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from crowdcount.core.blocks import heads_per_block
from crowdcount.core.types import (
    Batch,
    BlockTarget,
    block_counts,
    block_target,
    pad_to_multiple,
)

side = st.integers(1, 40)
coordinate = st.floats(-5, 45, width=32)
heads = st.lists(st.tuples(coordinate, coordinate), max_size=30)


def tensor(points):
    return torch.tensor(points, dtype=torch.float32).reshape(-1, 2)


@given(heads, side, side, st.integers(1, 12))
def test_tensors_and_arrays_give_the_same_counts(points, height, width, block):
    size = {"height": height, "width": width, "block": block}
    counts = block_counts(tensor(points), **size)
    assert counts.dtype == torch.float32
    assert counts.tolist() == [heads_per_block(tensor(points).numpy(), **size).tolist()]


def test_every_tensor_of_a_batch_is_pinned(monkeypatch):
    """A GPU is not needed to see which tensors are asked."""
    pinned = []

    def note(tensor):
        pinned.append(tensor.data_ptr())
        return tensor.clone()

    monkeypatch.setattr(torch.Tensor, "pin_memory", note)
    target = BlockTarget(
        counts=torch.rand(2, 1, 4, 4),
        points=(torch.rand(3, 2), torch.rand(1, 2)),
        heads=torch.tensor([3.0, 1.0]),
        block=8,
    )
    batch = Batch(images=torch.rand(2, 3, 32, 32), target=target, names=("a", "b"))
    tensors = [batch.images, target.counts, *target.points, target.heads]
    copy = batch.pin_memory()
    assert sorted(pinned) == sorted(tensor.data_ptr() for tensor in tensors)
    copies = [copy.images, copy.target.counts, *copy.target.points, copy.target.heads]
    for tensor, other in zip(tensors, copies, strict=True):
        assert torch.equal(tensor, other)
        assert tensor.data_ptr() != other.data_ptr()
    assert (copy.names, copy.target.block) == (batch.names, target.block)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 16))
def test_padding_keeps_the_image_and_adds_zeros_at_the_end(height, width, multiple):
    image = torch.ones(2, 3, height, width)
    padded = pad_to_multiple(image, multiple)
    assert padded.shape[2] % multiple == padded.shape[3] % multiple == 0
    assert padded.shape[2] - height < multiple
    assert padded.shape[3] - width < multiple
    assert_close(padded[:, :, :height, :width], image)
    assert padded.sum() == image.sum()


@given(st.lists(heads, min_size=1, max_size=3), side, side)
def test_the_target_of_a_batch_holds_the_counts_of_each_image(batch, height, width):
    points = tuple(tensor(each) for each in batch)
    target = block_target(points, height=height, width=width, block=8)
    assert target.heads.tolist() == [len(each) for each in batch]
    for counts, each in zip(target.counts, points, strict=True):
        assert_close(counts, block_counts(each, height=height, width=width, block=8))
    assert target.points == points
    assert target.block == 8


def test_float64_decides_the_block_though_points_travel_in_float32():
    # In float32 this head would lie at 8.0, in the next block.
    target = block_target(
        (torch.tensor([[8 - 1e-9, 0]], dtype=torch.float64),), height=8, width=16, block=8
    )
    assert target.counts.tolist() == [[[[1, 0]]]]
    assert target.points[0].dtype == torch.float32
