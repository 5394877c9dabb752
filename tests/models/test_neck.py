import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from crowdcount.errors import ConfigError
from crowdcount.models.neck import Neck, on_grid


def stages(strides, channels, *, height, width):
    return [
        torch.rand(2, c, height // s, width // s) for s, c in zip(strides, channels, strict=True)
    ]


@pytest.mark.parametrize("block", [4, 8, 14, 16, 28, 32, 64])
def test_any_pyramid_ends_at_the_block(block):
    strides, channels = (2, 4, 8, 16, 32), (3, 4, 5, 6, 7)
    neck = Neck(channels=channels, strides=strides, block=block, width=8).eval()
    height, width = 448, 896
    fused = neck(stages(strides, channels, height=height, width=width), height=height, width=width)
    assert fused.shape == (2, 8, height // block, width // block)


def test_stages_finer_than_half_a_block_are_left_out():
    neck = Neck(channels=(3, 4, 5, 6), strides=(2, 4, 8, 16), block=8, width=8)
    assert [lateral[0].in_channels for lateral in neck.lateral] == [6, 5, 4]


def test_of_stages_with_one_stride_the_deepest_is_used():
    neck = Neck(channels=(3, 4, 5), strides=(16, 16, 16), block=8, width=8)
    assert [lateral[0].in_channels for lateral in neck.lateral] == [5]


def test_a_backbone_that_is_too_fine_is_refused():
    with pytest.raises(
        ConfigError, match=r"blocks of 32 pixels need features of stride 16 or more"
    ):
        Neck(channels=(3, 4), strides=(4, 8), block=32, width=8)


@given(rows=st.integers(1, 9), cols=st.integers(1, 9), block=st.integers(1, 4))
def test_coarsening_averages_and_keeps_constants(rows, cols, block):
    fine = torch.rand(1, 1, rows * block, cols * block)
    coarse = on_grid(fine, (rows, cols))
    assert_close(coarse.mean(), fine.mean())
    assert_close(on_grid(torch.ones_like(coarse), (rows * 3, cols * 3)).unique(), torch.ones(1))
