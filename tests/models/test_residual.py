"""Residual blocks: what stands before an enlargement in them is what would stand behind it."""

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from crowdcount.models.residual import BasicBlock, Bottleneck


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
@pytest.mark.parametrize("width", [6, 4])
@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_a_block_on_a_finer_grid_is_the_block_on_enlarged_features(block, width, training):
    torch.manual_seed(0)
    residual = block(6, width).train(training)
    features = torch.randn(2, 6, 5, 7)
    larger = F.interpolate(features, size=(10, 13), mode="bilinear", align_corners=False)
    assert_close(residual(features, (10, 13)), residual(larger), atol=1e-5, rtol=1e-5)
    assert_close(residual(larger, (10, 13)), residual(larger))
