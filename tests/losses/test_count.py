"""Every count term, whatever its name; then what is special to each."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from crowdcount.core.types import BlockTarget, block_target
from crowdcount.losses.count import (
    COUNT_LOSSES,
    BayesianConfig,
    MultiscaleConfig,
    bayesian,
    dm,
    mae,
    mse,
    multiscale,
)

SIDE = 48

WAITS_FOR_THE_DEVICE = {
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::is_nonzero",
    "aten::masked_select",
    "aten::_unique2",
}


class Dispatched(TorchDispatchMode):
    """Records the name of every operation that reaches the device."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls.append(func.name().partition(".")[0])
        return func(*args, **(kwargs or {}))


def target_of(*points: Tensor) -> BlockTarget:
    return block_target(points, height=SIDE, width=SIDE, block=8)


def crowd(heads: int, *, seed: int = 0) -> Tensor:
    return torch.rand(heads, 2, generator=torch.Generator().manual_seed(seed)) * SIDE


def gradient(name: str, counts: Tensor, target: BlockTarget) -> Tensor:
    counts = counts.clone().requires_grad_()
    COUNT_LOSSES[name](counts, target).backward()
    assert counts.grad is not None
    return counts.grad


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
        "a stampede": torch.full(shape, 1e3),
    }


def without_points(target: BlockTarget) -> BlockTarget:
    return dataclasses.replace(target, points=tuple(torch.zeros(0, 2) for _ in target.points))


@pytest.mark.parametrize("name", COUNT_LOSSES)
class TestEveryCountLoss:
    def test_is_smallest_when_exact(self, name):
        target = target_of(crowd(20), crowd(3))
        exact = COUNT_LOSSES[name](target.counts, target)
        if name != "bayesian":  # a block between two heads belongs to both, so it is never 0
            assert_close(exact, torch.tensor(0.0), atol=1e-3, rtol=0)
        for wrong in (target.counts + 1, target.counts.flip(3), target.counts * 0):
            assert COUNT_LOSSES[name](wrong, target) > exact + 0.1

    @pytest.mark.parametrize("heads", [(0,), (0, 0), (1, 0), (50, 1), (5000, 0, 3)])
    @pytest.mark.parametrize("prediction", predictions(torch.Size([1, 1, 6, 6])))
    def test_value_and_gradient_are_finite(self, name, heads, prediction):
        target = target_of(*(crowd(n) for n in heads))
        counts = predictions(target.counts.shape)[prediction].requires_grad_()
        value = COUNT_LOSSES[name](counts, target)
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(counts.grad).all()

    def test_an_image_without_heads_wants_nothing_predicted(self, name):
        target = target_of(crowd(0), crowd(0))
        counts = torch.rand_like(target.counts)
        assert COUNT_LOSSES[name](counts * 0, target) == 0
        assert COUNT_LOSSES[name](counts, target) > 0.1
        assert (gradient(name, counts, target) > 0).all()

    def test_repeating_the_batch_leaves_the_value(self, name):
        # The transport part of dm is summed over the batch, but its value is 0; see its own test.
        points = (crowd(20), crowd(3))
        counts = torch.rand_like(target_of(*points).counts)
        once = COUNT_LOSSES[name](counts, target_of(*points))
        twice = COUNT_LOSSES[name](counts.repeat(2, 1, 1, 1), target_of(*points, *points))
        assert_close(twice, once, rtol=1e-4, atol=1e-3)

    def test_the_order_of_images_and_of_heads_means_nothing(self, name):
        points = (crowd(30), crowd(0), crowd(3, seed=1))
        counts = torch.rand_like(target_of(*points).counts)
        mixed = tuple(each.flip(0) for each in reversed(points))
        values = [
            COUNT_LOSSES[name](counts, target_of(*points)),
            COUNT_LOSSES[name](counts.flip(0), target_of(*mixed)),
        ]
        assert_close(*values, rtol=1e-4, atol=1e-3)
        forwards = gradient(name, counts, target_of(*points))
        backwards = gradient(name, counts.flip(0), target_of(*mixed)).flip(0)
        assert_close(backwards, forwards, rtol=1e-3, atol=1e-4)

    def test_what_stands_in_the_batch_beside_an_image_does_not_matter(self, name):
        counts = torch.rand(2, 1, 6, 6)
        sparse = gradient(name, counts, target_of(crowd(20), crowd(1, seed=1)))
        other = torch.cat([counts[:1], 3 * counts[1:]])
        dense = gradient(name, other, target_of(crowd(20), crowd(300, seed=1)))
        assert_close(dense[:1], sparse[:1], rtol=1e-3, atol=1e-4)

    def test_autocast_changes_nothing(self, name):
        target = target_of(crowd(20), crowd(3))
        counts = torch.rand_like(target.counts)
        expected, expected_pull = COUNT_LOSSES[name](counts, target), gradient(name, counts, target)
        leaf = counts.requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            value = COUNT_LOSSES[name](leaf, target)
        value.backward()
        assert value.dtype == torch.float32
        assert_close(value, expected)
        assert_close(leaf.grad, expected_pull)

    def test_gradients_agree_with_differences(self, name):
        target = target_of(crowd(20), crowd(0))
        if name == "dm":  # its transport term is a gradient without a value
            target = without_points(target)
        target = dataclasses.replace(
            target, counts=target.counts.double(), heads=target.heads.double()
        )
        # A generic prediction, away from the kinks of absolute errors.
        generator = torch.Generator().manual_seed(8)
        counts = torch.rand(2, 1, 6, 6, generator=generator, dtype=torch.float64).requires_grad_()
        assert torch.autograd.gradcheck(lambda c: COUNT_LOSSES[name](c, target), (counts,))

    def test_never_waits_for_the_device(self, name):
        target = target_of(crowd(20), crowd(0), crowd(3))
        counts = torch.rand_like(target.counts).requires_grad_()
        with Dispatched() as seen:
            COUNT_LOSSES[name](counts, target).backward()
        assert not {call for call in seen.calls if call in WAITS_FOR_THE_DEVICE}


@pytest.mark.parametrize("name", [name for name in COUNT_LOSSES if name not in ("mse", "bayesian")])
def test_three_wrong_blocks_cost_three_times_one(name):
    # Summed over blocks: three blocks too full by one head are worse than one.
    target = target_of(crowd(20))
    one, three = target.counts.clone(), target.counts.clone()
    one[0, 0, 0, :1] += 1
    three[0, 0, 0, :3] += 1
    ratio = COUNT_LOSSES[name](three, target) / COUNT_LOSSES[name](one, target)
    assert 2.8 < ratio < 3.2


# The pull of a squared error grows with the error, as it must: nothing bounds that of mse.
@pytest.mark.parametrize("name", [name for name in COUNT_LOSSES if name != "mse"])
@pytest.mark.parametrize("prediction", predictions(torch.Size([1, 1, 6, 6])))
@settings(max_examples=8)
@given(
    heads=st.sampled_from([0, 1, 2, 300, 5000]),
    spread=st.sampled_from([0.0, 0.1, 1.0, 3.0]),
    seed=st.integers(0, 2**31),
)
def test_no_gradient_is_destructive(name, prediction, heads, spread, seed):
    # The published code of dm reaches 1e6 near a prediction of zero.
    target = target_of(crowd(heads, seed=seed) * spread)
    counts = predictions(target.counts.shape)[prediction]
    pull = gradient(name, counts, target)
    assert torch.isfinite(pull).all()
    assert pull.abs().max() <= (75 + 0.02 * heads if name == "dm" else 2)


def test_the_pull_of_dm_is_bounded_in_crowds_that_no_crop_can_hold():
    target = target_of(crowd(100))
    target = dataclasses.replace(target, counts=target.counts * 2000, heads=target.heads * 2000)
    far = torch.zeros_like(target.counts)
    far[..., -1, -1] = 2.0
    for counts in (*predictions(far.shape).values(), far):
        assert gradient("dm", counts, target).abs().max() <= 900


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


def test_a_prediction_of_nothing_is_still_told_where_the_heads_are():
    target = target_of(torch.tensor([[20.0, 20.0], [22.0, 20.0]]))
    pull = gradient("dm", torch.zeros_like(target.counts), target)[0, 0]
    assert pull.argmin() == 2 * 6 + 2
    assert pull[2, 2] < 0


def test_dm_solves_all_images_at_once():
    calls = []
    for images in (1, 5):
        target = target_of(*(crowd(7, seed=seed) for seed in range(images)))
        with Dispatched() as seen:
            dm(torch.rand_like(target.counts), target)
        calls.append(seen.calls.count("aten::bmm"))
    assert calls == [200, 200]


@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(1, 7),
    cols=st.integers(1, 7),
    scale=st.integers(1, 8),
    weight=st.floats(0, 4),
)
def test_cells_forgive_what_cancels_in_them(seed, rows, cols, scale, weight):
    generator = torch.Generator().manual_seed(seed)
    points = tuple(torch.rand(9, 2, generator=generator) * 8 * cols for _ in range(2))
    target = block_target(points, height=8 * rows, width=8 * cols, block=8)
    counts = torch.rand(target.counts.shape, generator=generator)
    error = counts - target.counts
    expected = error.sum(dim=(1, 2, 3)).abs()
    for top in range(0, rows, scale):
        for left in range(0, cols, scale):
            cell = error[:, 0, top : top + scale, left : left + scale].sum(dim=(1, 2))
            expected = expected + weight * cell.abs() / scale**2
    value = multiscale(counts, target, MultiscaleConfig(cells=(scale,), weights=(weight,)))
    assert_close(value, expected.mean(), rtol=1e-4, atol=1e-4)


def test_multiscale_by_hand():
    # Errors +2, -1, +1 of three blocks: image 2; blocks 4; cells of two blocks (1 + 1) / 4.
    target = block_target((torch.tensor([[9.0, 1.0]]),), height=8, width=24, block=8)
    counts = torch.tensor([[[[2.0, 0.0, 1.0]]]])
    assert_close(
        multiscale(counts, target, MultiscaleConfig(cells=(), weights=())), torch.tensor(2.0)
    )
    assert_close(
        multiscale(counts, target, MultiscaleConfig(cells=(1,), weights=(1.0,))), torch.tensor(6.0)
    )
    assert_close(
        multiscale(counts, target, MultiscaleConfig(cells=(2,), weights=(4.0,))), torch.tensor(4.0)
    )
    both = multiscale(counts, target, MultiscaleConfig(cells=(1, 2), weights=(0.5, 4.0)))
    assert_close(both, torch.tensor(6.0))


def test_the_scales_are_those_published_with_zip():
    target = target_of(crowd(20))
    counts = torch.rand_like(target.counts)
    published = multiscale(
        counts, target, MultiscaleConfig(cells=(1, 2, 4), weights=(0.25, 0.5, 1.0))
    )
    assert_close(multiscale(counts, target), published, rtol=0, atol=0)


def test_bayesian_by_hand():
    # Two heads on the centres of the outer blocks of three, 8 pixels apart from the middle one,
    # which belongs to both alike. Without background and with a narrow spread: 2, 1 + 0.5, 0.5.
    points = torch.tensor([[4.0, 4.0], [20.0, 4.0]])
    target = block_target((points,), height=8, width=24, block=8)
    counts = torch.tensor([[[[2.0, 1.0, 0.0]]]])
    value = bayesian(counts, target, BayesianConfig(sigma=1.0, background=0.0))
    assert_close(value, torch.tensor(1.5 + 0.5))
    # With a background at 8 pixels the middle block is background: 2 - 1, 1, 1 - 0.
    value = bayesian(counts, target, BayesianConfig(sigma=1.0, background=1.0))
    assert_close(value, torch.tensor(3.0))


def test_bayesian_heads_are_worth_what_the_counts_say():
    target = target_of(crowd(20))
    counts = target.counts * 0
    assert_close(bayesian(counts, target), torch.tensor(20.0))
    halved = dataclasses.replace(target, heads=target.heads / 2)
    assert_close(bayesian(counts, halved), torch.tensor(10.0))


def test_bayesian_settings_act():
    target = target_of(crowd(20))
    counts = torch.rand_like(target.counts)
    values = [
        bayesian(counts, target),
        bayesian(counts, target, BayesianConfig(sigma=16.0)),
        bayesian(counts, target, BayesianConfig(background=0.3)),
        bayesian(counts, target, BayesianConfig(background=0.0)),
    ]
    assert len({round(value.item(), 3) for value in values}) == 4
