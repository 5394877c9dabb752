import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from crowdcount.core.image import WorkingSize
from crowdcount.core.types import BlockPrediction, pad_to_multiple
from crowdcount.errors import UsageError
from crowdcount.inference.counting import count_image

CPU = torch.device("cpu")
ANY_SIZE = WorkingSize(short_side_min=1, long_side_max=10_000)


class BrightnessModel(torch.nn.Module):
    """Sees as many heads in a block as its red pixels shine, and remembers what it was shown."""

    def __init__(self, block=8):
        super().__init__()
        self.block = block
        self.shown = []

    def forward(self, images):
        self.shown.append(images)
        red = pad_to_multiple(images[:, :1], self.block)
        counts = torch.nn.functional.avg_pool2d(red, self.block) * self.block**2
        return BlockPrediction(logits=counts.expand(-1, 2, -1, -1), counts=counts)


def photograph(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def count(model, image, *, working_size=ANY_SIZE, scale=None):
    return count_image(
        model, image, block=model.block, working_size=working_size, device=CPU, scale=scale
    )


@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([1, 4, 8, 32]))
def test_an_image_of_any_size_is_counted_to_its_last_pixel(height, width, block):
    image = photograph(height, width)
    seen = count(BrightnessModel(block), image)
    assert seen.blocks.shape == (-(-height // block), -(-width // block))
    assert seen.total == pytest.approx(image[..., 0].sum() / 255, rel=1e-5)


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.05, 4))
def test_the_total_is_the_sum_of_the_blocks_in_float64(height, width, scale):
    seen = count(BrightnessModel(), photograph(height, width), scale=scale)
    assert seen.total == math.fsum(seen.blocks.flatten().tolist())
    assert seen.blocks.dtype == torch.float32


def test_the_model_sees_rgb_from_0_to_1_in_the_order_of_torch():
    model = BrightnessModel()
    image = np.zeros((8, 16, 3), dtype=np.uint8)
    image[0, 15] = [255, 51, 0]
    count(model, image)
    shown = model.shown[0]
    assert shown.shape == (1, 3, 8, 16)
    assert_close(shown[0, :, 0, 15], torch.tensor([1.0, 0.2, 0.0]))
    assert shown.sum() == pytest.approx(1.2)


def test_an_image_inside_the_working_size_is_shown_as_it_is():
    model = BrightnessModel()
    image = photograph(21, 34)
    seen = count(model, image)
    assert_close(model.shown[0][0].permute(1, 2, 0) * 255, torch.tensor(image).float())
    assert seen.scale == (1, 1)


def test_a_small_image_is_enlarged_and_a_large_one_reduced():
    working_size = WorkingSize(short_side_min=32, long_side_max=64)
    small = count(BrightnessModel(), photograph(16, 20), working_size=working_size)
    assert (small.working_width, small.working_height) == (40, 32)
    assert (small.width, small.height) == (20, 16)
    large = count(BrightnessModel(), photograph(100, 128), working_size=working_size)
    assert (large.working_width, large.working_height) == (64, 50)
    assert large.scale == (0.5, 0.5)
    assert large.blocks.shape == (7, 8)


def test_a_given_scale_replaces_the_working_size():
    working_size = WorkingSize(short_side_min=500, long_side_max=600)
    seen = count(BrightnessModel(), photograph(33, 10), working_size=working_size, scale=0.5)
    # 16.5 rounds to even; the axes then differ by that rounding alone.
    assert (seen.working_width, seen.working_height) == (5, 16)
    assert seen.scale == (0.5, 16 / 33)


def test_the_same_image_gives_the_same_count():
    image = photograph(50, 61)
    first, second = (count(BrightnessModel(), image, scale=1.3) for _ in range(2))
    assert first.total == second.total
    assert torch.equal(first.blocks, second.blocks)


def test_pixels_that_may_not_be_written_to_are_counted():
    image = photograph(16, 16)
    image.flags.writeable = False
    assert count(BrightnessModel(), image).total == count(BrightnessModel(), image.copy()).total


def test_counting_keeps_no_gradients_and_its_blocks_can_be_computed_with():
    model = BrightnessModel()
    seen = count(model, photograph(16, 16))
    assert not model.shown[0].requires_grad
    weight = torch.ones((), requires_grad=True)
    (seen.blocks * weight).sum().backward()
    assert weight.grad == pytest.approx(seen.total, rel=1e-6)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.nan, math.inf])
def test_a_scale_that_is_no_positive_number_is_refused(scale):
    with pytest.raises(UsageError, match="positive number"):
        count(BrightnessModel(), photograph(8, 8), scale=scale)


@pytest.mark.parametrize("scale", [2000.0, 1e200, 1e308])
def test_an_enormous_working_image_is_refused_before_it_is_made(scale):
    with pytest.raises(UsageError, match="million pixels") as refused:
        count(BrightnessModel(), photograph(8, 8), scale=scale)
    assert "choose a scale below" in refused.value.next_step


def test_a_tiny_scale_leaves_one_pixel():
    seen = count(BrightnessModel(), photograph(8, 8), scale=1e-9)
    assert (seen.working_width, seen.working_height) == (1, 1)


def test_a_model_whose_blocks_miss_the_image_is_a_bug_that_shows():
    with pytest.raises(ValueError, match=r"grid of \(3, 3\)"):
        count_image(
            BrightnessModel(16),
            photograph(24, 24),
            block=8,
            working_size=ANY_SIZE,
            device=CPU,
        )
