"""The transport term against a plain dense Sinkhorn, and what batching must not change."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from crowdcount.losses.transport import sinkhorn_potentials, transport_loss

BLOCK = 8


def dense_potentials(share: Tensor, points: Tensor) -> Tensor:
    """The published iteration, word for word, with the whole kernel in float64."""
    rows, cols = share.shape
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
    centres = torch.stack([x.flatten(), y.flatten()], dim=1).double() * BLOCK + BLOCK / 2
    cost = (points.double()[:, None] - centres).square().sum(dim=2)
    kernel = torch.exp(-cost / 10)
    a = torch.full((len(points),), 1 / len(points), dtype=torch.float64)
    b = share.double().flatten()
    u = a
    v = torch.full_like(b, 1 / len(b))
    for _ in range(100):
        v = b / (kernel.T @ u + 1e-16)
        u = a / (kernel @ v + 1e-16)
    return 10 * torch.log(v + 1e-16).reshape(rows, cols)


def scene(seed: int, *, heads: int, rows: int = 5, cols: int = 7) -> tuple[Tensor, Tensor]:
    """Predicted heads with empty blocks among them, and points of which a few lie close by."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.rand(1, rows, cols, generator=generator)
    counts = torch.where(torch.rand(counts.shape, generator=generator) < 0.2, 0, counts)
    size = torch.tensor([cols, rows]) * BLOCK
    points = torch.rand(heads, 2, generator=generator) * size
    points[heads // 2 :] = points[heads // 2 :] / 4
    return counts, points


def gradient(counts: Tensor, points: tuple[Tensor, ...]) -> Tensor:
    counts = counts.clone().requires_grad_()
    transport_loss(counts, points, block=BLOCK).backward()
    assert counts.grad is not None
    return counts.grad


@settings(max_examples=15)
@given(seed=st.integers(0, 2**31), heads=st.integers(1, 40))
def test_the_separable_kernel_gives_what_the_dense_one_gives(seed, heads):
    counts, points = scene(seed, heads=heads)
    share = counts / counts.sum()
    potentials = sinkhorn_potentials(share, (points,), block=BLOCK)
    assert_close(potentials[0].double(), dense_potentials(share[0], points), rtol=1e-4, atol=1e-2)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**31), heads=st.lists(st.integers(0, 40), min_size=2, max_size=4))
def test_an_image_gets_the_same_gradient_alone_and_among_others(seed, heads):
    scenes = [scene(seed + i, heads=n) for i, n in enumerate(heads)]
    together = gradient(
        torch.stack([counts for counts, _ in scenes]), tuple(points for _, points in scenes)
    )
    for (counts, points), batched in zip(scenes, together, strict=True):
        alone = gradient(counts[None], (points,))[0]
        assert_close(batched, alone, rtol=1e-3, atol=1e-4)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**31))
def test_the_order_of_images_and_of_heads_means_nothing(seed):
    scenes = [scene(seed + i, heads=n) for i, n in enumerate([30, 0, 1])]
    counts = torch.stack([counts for counts, _ in scenes])
    points = tuple(points for _, points in scenes)
    forwards = gradient(counts, points)
    backwards = gradient(counts.flip(0), tuple(each.flip(0) for each in reversed(points)))
    assert_close(backwards.flip(0), forwards, rtol=1e-3, atol=1e-4)


@settings(max_examples=15)
@given(seed=st.integers(0, 2**31), heads=st.integers(1, 40))
def test_the_value_is_zero_and_scaling_the_prediction_is_neither_rewarded_nor_punished(seed, heads):
    counts, points = scene(seed, heads=heads)
    assert transport_loss(counts[None], (points,), block=BLOCK).abs() < 1e-3
    pull = gradient(counts[None], (points,))
    assert (pull * counts).sum().abs() < 1e-3


def test_heads_are_drawn_towards_the_annotated_block():
    counts = torch.tensor([[[[0.5, 0.5, 0.5, 2.5]]]])
    pull = gradient(counts, (torch.tensor([[4.0, 4.0], [4.0, 4.0]]),))
    assert pull[0, 0, 0, 0] < pull[0, 0, 0, 1] < pull[0, 0, 0, 2]


def test_repeating_the_batch_leaves_the_pull_on_each_image_because_it_is_a_sum():
    counts, points = scene(3, heads=20)
    once = gradient(counts[None], (points,))
    twice = gradient(counts[None].repeat(2, 1, 1, 1), (points, points))
    assert_close(twice, once.repeat(2, 1, 1, 1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("images", [1, 3])
def test_images_without_heads_contribute_nothing(images):
    counts = torch.rand(images, 1, 3, 4)
    empty = tuple(torch.zeros(0, 2) for _ in range(images))
    assert transport_loss(counts, empty, block=BLOCK) == 0
    assert_close(gradient(counts, empty), torch.zeros_like(counts))
    crowded = gradient(counts, (torch.tensor([[1.0, 2.0]]), *empty[1:]))
    assert crowded[0].abs().sum() > 0
    assert_close(crowded[1:], torch.zeros_like(counts[1:]))


def test_potentials_stay_in_their_range_where_every_block_is_far_from_every_head():
    share = torch.full((1, 4, 4), 1 / 16)
    potentials = sinkhorn_potentials(share, (torch.tensor([[1e5, -1e5]]),), block=BLOCK)
    assert torch.isfinite(potentials).all()
    assert potentials.abs().max() <= 10 * -math.log(1e-16) + 0.1


def test_autocast_does_not_reach_the_iteration():
    counts, points = scene(5, heads=30)
    share = counts / counts.sum()
    expected = sinkhorn_potentials(share, (points,), block=BLOCK)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        potentials = sinkhorn_potentials(share, (points,), block=BLOCK)
    assert potentials.dtype == torch.float32
    assert_close(potentials, expected)
