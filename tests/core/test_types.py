"""Batches, as a loader handles them."""

import torch

from crowdcount.core.types import Batch, BlockTarget


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
