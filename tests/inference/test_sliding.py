"""Windows of an image say together what the image would, each block once."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from crowdcount.core.bins import expected_counts
from crowdcount.core.image import WorkingSize
from crowdcount.core.types import BlockPrediction, pad_to_multiple
from crowdcount.inference import sliding
from crowdcount.inference.counting import count_image
from crowdcount.inference.sliding import SlidingModel, window_starts

VALUES = torch.tensor([0.0, 1.0, 2.5])


class LocalModel:
    """Sees in a block its own pixels alone, and remembers the windows it was shown."""

    def __init__(self, block):
        self.block = block
        self.shown = []

    def __call__(self, images):
        self.shown.append(images)
        sums = self.block**2 * torch.nn.functional.avg_pool2d(
            pad_to_multiple(images, self.block), self.block
        )
        return BlockPrediction(logits=sums / 10, counts=sums[:, :1].round())


class ContextModel:
    """Sees the mean of its window in every block of 8 pixels."""

    def __call__(self, images):
        rows, cols = (-(-side // 8) for side in images.shape[-2:])
        mean = images.mean(dim=(2, 3), keepdim=True)
        logits = (mean * torch.tensor([-1.0, 0.5, 1.0])[:, None, None]).expand(-1, -1, rows, cols)
        return BlockPrediction(logits=logits, counts=expected_counts(logits, VALUES))


@st.composite
def cuts(draw):
    """An image of whole numbers, and windows of whole blocks for it."""
    block = draw(st.sampled_from([1, 4, 8]))
    window = draw(st.integers(1, 6))
    stride = draw(st.integers(1, window))
    # Twelve blocks are twice the largest window; more only take longer.
    height, width = (draw(st.integers(1, 12 * block)) for _ in "hw")
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    images = torch.randint(0, 4, (draw(st.integers(1, 2)), 3, height, width), generator=generator)
    return images.float(), {"block": block, "window": block * window, "stride": block * stride}


@settings(max_examples=25)
@given(cuts())
def test_blocks_that_know_only_themselves_are_counted_as_in_the_whole_image(cut):
    images, windows = cut
    model = LocalModel(windows["block"])
    whole, cut_up = model(images), SlidingModel(model=model, **windows)(images)
    assert torch.equal(cut_up.counts, whole.counts)
    assert_close(cut_up.logits.softmax(dim=1), whole.logits.softmax(dim=1))


@settings(max_examples=25)
@given(cuts(), st.integers(1, 6))
def test_windows_are_whole_and_no_more_at_once_than_memory_is_meant_for(cut, at_once):
    images, windows = cut
    model, free = LocalModel(windows["block"]), LocalModel(windows["block"])
    everything = SlidingModel(model=free, **windows)(images)
    assert len(free.shown) == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sliding, "PIXELS_AT_ONCE", at_once * windows["window"] ** 2)
        bounded = SlidingModel(model=model, **windows)(images)
    side = windows["window"]
    assert {each.shape[1:] for each in model.shown} == {(3, side, side)}
    assert all(len(each) <= max(at_once, len(images)) for each in model.shown)
    assert sum(len(each) for each in model.shown) == len(free.shown[0])
    assert torch.equal(bounded.counts, everything.counts)
    assert_close(bounded.logits, everything.logits)


def test_a_window_larger_than_that_goes_alone(monkeypatch):
    monkeypatch.setattr(sliding, "PIXELS_AT_ONCE", 1)
    model = LocalModel(8)
    SlidingModel(model=model, block=8, window=16, stride=16)(torch.rand(1, 3, 40, 20))
    assert [each.shape for each in model.shown] == [(1, 3, 16, 16)] * 6


@pytest.mark.parametrize(("height", "width"), [(1, 1), (13, 40), (40, 13), (24, 24)])
def test_an_image_smaller_than_a_window_is_padded_and_its_padding_not_counted(height, width):
    model = LocalModel(8)
    images = 1 + torch.rand(1, 3, height, width)
    seen = SlidingModel(model=model, block=8, window=32, stride=32)(images)
    assert seen.counts.shape == (1, 1, -(-height // 8), -(-width // 8))
    (shown,) = model.shown
    first = shown[0, :, :height, :width]
    assert torch.equal(first, images[0, :, :32, :32])
    assert (shown[..., height:, :] == 0).all()


def test_overlaps_are_averaged():
    # Windows of 16 pixels at 0 and 8 see the means 1 and 2; their expectations are averaged.
    columns = torch.tensor([0.0, 2.0, 2.0]).repeat_interleave(8)
    images = columns.expand(1, 3, 16, 24)
    seen = SlidingModel(model=ContextModel(), block=8, window=16, stride=8)(images)
    left, right = (ContextModel()(images[..., at : at + 16]).counts[0, 0, 0, 0] for at in (0, 8))
    expected = torch.stack([left, (left + right) / 2, right])
    assert left < right
    assert_close(seen.counts, expected.expand(1, 1, 2, 3))


@settings(max_examples=25)
@given(cuts())
def test_counts_remain_the_expectation_over_the_bins(cut):
    images, windows = cut
    windows |= {"block": 8, "window": 16, "stride": 8}
    seen = SlidingModel(model=ContextModel(), **windows)(images)
    assert_close(expected_counts(seen.logits, VALUES), seen.counts)


def test_a_certain_model_has_finite_logits():
    def certain(images):
        logits = torch.tensor([1000.0, 0.0, 0.0])[:, None, None].expand(len(images), -1, 2, 2)
        return BlockPrediction(logits=logits, counts=expected_counts(logits, VALUES))

    seen = SlidingModel(model=certain, block=8, window=16, stride=8)(torch.rand(1, 3, 20, 30))
    assert seen.logits.isfinite().all()
    assert (seen.counts == 0).all()


def test_a_broken_model_is_not_averaged_away():
    def broken(images):
        counts = torch.zeros(len(images), 1, 2, 2)
        counts[0] = torch.nan
        return BlockPrediction(logits=counts.expand(-1, 3, -1, -1), counts=counts)

    seen = SlidingModel(model=broken, block=8, window=16, stride=16)(torch.rand(1, 3, 16, 32))
    assert seen.counts.isnan().any()
    assert seen.logits.isnan().any()


def test_an_image_is_counted_through_windows():
    image = np.random.default_rng(0).integers(0, 256, (45, 61, 3), dtype=np.uint8)
    model = SlidingModel(model=LocalModel(8), block=8, window=16, stride=16)
    size = WorkingSize(short_side_min=1, long_side_max=100)
    whole, windows = (
        count_image(each, image, block=8, working_size=size, device=torch.device("cpu"))
        for each in (LocalModel(8), model)
    )
    assert windows.total == whole.total
    assert torch.equal(windows.blocks, whole.blocks)


@pytest.mark.parametrize(
    ("window", "stride"), [(12, 8), (16, 12), (16, 0), (16, -8), (16, 24), (0, 0)]
)
def test_windows_that_cut_blocks_or_leave_gaps_are_refused(window, stride):
    with pytest.raises(ValueError, match="whole blocks of 8 pixels"):
        SlidingModel(model=LocalModel(8), block=8, window=window, stride=stride)


@st.composite
def sides(draw):
    window = draw(st.integers(1, 40))
    stride = draw(st.integers(1, window))
    return draw(st.integers(window, 200)), window, stride


@given(sides())
def test_windows_cover_the_side_and_nothing_beyond(side):
    length, window, stride = side
    starts = window_starts(length, window=window, stride=stride)
    covered = {place for start in starts for place in range(start, start + window)}
    assert covered == set(range(length))


@given(sides())
def test_windows_advance_by_the_stride_and_are_as_few_as_that_allows(side):
    length, window, stride = side
    starts = window_starts(length, window=window, stride=stride)
    steps = [after - before for before, after in pairwise(starts)]
    assert set(steps[:-1]) <= {stride}
    assert all(0 < step <= stride for step in steps)
    assert len(starts) == 1 + -(-(length - window) // stride)


@given(sides(), st.integers(1, 32))
def test_windows_of_whole_blocks_start_at_blocks(side, block):
    length, window, stride = (block * each for each in side)
    in_blocks = window_starts(side[0], window=side[1], stride=side[2])
    assert window_starts(length, window=window, stride=stride) == [block * n for n in in_blocks]


@pytest.mark.parametrize(
    ("length", "stride", "starts"),
    [(4, 4, [0]), (8, 4, [0, 4]), (9, 4, [0, 4, 5]), (10, 3, [0, 3, 6]), (11, 3, [0, 3, 6, 7])],
)
def test_the_last_window_is_pulled_back_to_the_border(length, stride, starts):
    assert window_starts(length, window=4, stride=stride) == starts


@pytest.mark.parametrize("stride", [0, -1, 5])
def test_a_stride_that_would_leave_gaps_is_refused(stride):
    with pytest.raises(ValueError, match="stride must be 1 to the window, 4"):
        window_starts(10, window=4, stride=stride)


def test_a_side_shorter_than_a_window_is_refused():
    with pytest.raises(ValueError, match="window of 4 does not fit into 3"):
        window_starts(3, window=4, stride=4)
