"""Every count term, whatever its name; then what is special to each."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from crowdcount.core.blocks import block_target
from crowdcount.core.types import BlockTarget
from crowdcount.losses.count import COUNT_LOSSES, dm, mae, mse

SIDE = 48


def target_of(*points: Tensor) -> BlockTarget:
    return block_target(points, height=SIDE, width=SIDE, block=8)


def crowd(heads: int, *, seed: int = 0) -> Tensor:
    return torch.rand(heads, 2, generator=torch.Generator().manual_seed(seed)) * SIDE


def gradient(name: str, counts: Tensor, target: BlockTarget) -> Tensor:
    counts = counts.clone().requires_grad_()
    COUNT_LOSSES[name](counts, target).backward()
    assert counts.grad is not None
    return counts.grad


@pytest.mark.parametrize("name", COUNT_LOSSES)
class TestEveryCountLoss:
    def test_is_smallest_when_exact(self, name):
        target = target_of(crowd(20), crowd(3))
        exact = COUNT_LOSSES[name](target.counts, target)
        assert_close(exact, torch.tensor(0.0), atol=1e-3, rtol=0)
        for wrong in (target.counts + 1, target.counts.flip(3), target.counts * 0):
            assert COUNT_LOSSES[name](wrong, target) > exact + 0.1

    @pytest.mark.parametrize("heads", [(0,), (0, 0), (1, 0), (50, 1)])
    @pytest.mark.parametrize("scale", [0.0, 1e-6, 1.0, 100.0])
    def test_value_and_gradient_are_finite(self, name, heads, scale):
        target = target_of(*(crowd(n) for n in heads))
        counts = torch.rand_like(target.counts) * scale
        assert torch.isfinite(COUNT_LOSSES[name](counts, target))
        assert torch.isfinite(gradient(name, counts, target)).all()

    def test_repeating_the_batch_leaves_the_value(self, name):
        # The transport part of dm is summed over the batch, but its value is 0; see its own test.
        points = (crowd(20), crowd(3))
        counts = torch.rand_like(target_of(*points).counts)
        once = COUNT_LOSSES[name](counts, target_of(*points))
        twice = COUNT_LOSSES[name](counts.repeat(2, 1, 1, 1), target_of(*points, *points))
        assert_close(twice, once, rtol=1e-4, atol=1e-3)

    def test_more_area_of_the_same_sums_up(self, name):
        # Summed over blocks: three blocks too full by one head are worse than one.
        target = target_of(crowd(20))
        one, three = target.counts.clone(), target.counts.clone()
        one[0, 0, 0, :1] += 1
        three[0, 0, 0, :3] += 1
        ratio = COUNT_LOSSES[name](three, target) / COUNT_LOSSES[name](one, target)
        assert 2.8 < ratio < 3.2


@pytest.mark.parametrize("loss", [mae, mse])
def test_gradients_of_the_elementwise_losses_agree_with_differences(loss):
    target = target_of(crowd(20), crowd(0))
    exact = dataclasses.replace(target, counts=target.counts.double())
    # Half a head away from every whole count, where the absolute error has its kink.
    counts = (exact.counts + 0.5).requires_grad_()
    assert torch.autograd.gradcheck(lambda c: loss(c, exact), (counts,))


def test_hand_calculation():
    # Heads in blocks (0, 0) and (0, 1); predicted 3 and 0: errors 2 and 1.
    target = block_target((torch.tensor([[1.0, 1.0], [9.0, 1.0]]),), height=8, width=16, block=8)
    counts = torch.tensor([[[[3.0, 0.0]]]])
    assert_close(mae(counts, target), torch.tensor(3.0))
    assert_close(mse(counts, target), torch.tensor(5.0))
    # |3 - 2| + 0.01 * 2 * (|1 - 1/2| + |0 - 1/2|)
    assert_close(dm(counts, target), torch.tensor(1.02), rtol=0, atol=1e-4)


def test_an_image_without_heads_is_scored_by_its_count_alone():
    counts = torch.rand(1, 1, 6, 6)
    target = target_of(crowd(0))
    assert_close(dm(counts, target), counts.sum())
    assert_close(gradient("dm", counts, target), torch.ones_like(counts))


def test_heads_decide_the_count_and_points_the_transport():
    target = target_of(crowd(20))
    counts = target.counts * 1.5
    fewer = dataclasses.replace(target, heads=target.heads - 5)
    assert dm(counts, fewer) > dm(counts, target) + 4
    moved = dataclasses.replace(target, points=(crowd(20, seed=1),))
    pull = gradient("dm", counts, target) - gradient("dm", counts, moved)
    assert pull.abs().max() > 0.01


def test_the_transport_gradient_does_not_weaken_as_the_batch_grows():
    # Count and variation are averaged over the batch, the transport is summed.
    points = crowd(20)
    counts = torch.rand(1, 1, 6, 6)
    without = dataclasses.replace(target_of(points), points=(torch.zeros(0, 2),))
    averaged = gradient("dm", counts, without)
    transport = gradient("dm", counts, target_of(points)) - averaged
    twice = gradient("dm", counts.repeat(2, 1, 1, 1), target_of(points, points))
    assert_close(twice[:1], averaged / 2 + transport, rtol=1e-3, atol=1e-4)


def predictions(shape: torch.Size) -> dict[str, Tensor]:
    one_block = torch.zeros(shape)
    one_block[..., 0, 0] = 7.0
    far = torch.zeros(shape)
    far[..., -1, -1] = 1e-3
    return {
        "nothing": torch.zeros(shape),
        "barely anything": torch.full(shape, 1e-12),
        "less than numbers can hold": torch.full(shape, 1e-44),
        "a thousandth of a head in a corner": far,
        "everything in one block": one_block,
        "even": torch.ones(shape),
    }


@pytest.mark.parametrize("prediction", predictions(torch.Size([1, 1, 6, 6])))
@settings(max_examples=15)
@given(
    heads=st.sampled_from([0, 1, 2, 300, 5000]),
    spread=st.sampled_from([0.0, 0.1, 1.0, 3.0]),
    seed=st.integers(0, 2**31),
)
def test_no_gradient_is_destructive(prediction, heads, spread, seed):
    # The published code reaches 1e6 near a prediction of zero.
    target = target_of(crowd(heads, seed=seed) * spread)
    counts = predictions(target.counts.shape)[prediction]
    pull = gradient("dm", counts, target)
    assert torch.isfinite(pull).all()
    assert pull.abs().max() <= 75 + 0.02 * heads <= 1e3


def test_a_prediction_of_nothing_is_still_told_where_the_heads_are():
    target = target_of(torch.tensor([[20.0, 20.0], [22.0, 20.0]]))
    pull = gradient("dm", torch.zeros_like(target.counts), target)[0, 0]
    assert pull.argmin() == 2 * 6 + 2
    assert pull[2, 2] < 0
