"""Weights kept in the numbers they are multiplied in give the same counts."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from crowdcount.core.precision import PRECISIONS, keep_weights, predict_blocks
from crowdcount.core.types import BlockPrediction


class Network(nn.Module):
    """Something of everything: convolution, norm, attention, linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.linear = nn.Linear(8, 4)

    def forward(self, images):
        tokens = self.norm(self.convolution(images)).flatten(2).transpose(1, 2)
        tokens, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        logits = self.linear(tokens).transpose(1, 2).unsqueeze(2)
        return BlockPrediction(logits=logits, counts=logits[:, :1].abs())


@pytest.mark.parametrize("precision", PRECISIONS)
@torch.no_grad()
def test_counts_stay_the_same(precision):
    torch.manual_seed(0)
    network = Network().eval()
    images = torch.rand(1, 3, 10, 10)
    before = predict_blocks(network, images, precision=precision)
    keep_weights(network, precision=precision)
    after = predict_blocks(network, images, precision=precision)
    # Attention may add up in another order when it need not round its weights.
    rounding = 0.0 if precision == "fp32" else 5e-3
    assert_close(after.logits, before.logits, atol=rounding, rtol=rounding)
    assert_close(after.counts, before.counts, atol=rounding, rtol=rounding)
    dtype = PRECISIONS[precision]
    assert network.convolution.weight.dtype == network.linear.bias.dtype == dtype
    assert network.attention.in_proj_weight.dtype == dtype
    assert network.norm.weight.dtype == torch.float32
