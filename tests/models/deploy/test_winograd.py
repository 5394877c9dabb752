"""Winograd's convolution is the same convolution."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from crowdcount.models.deploy import winograd
from crowdcount.models.deploy.winograd import WinogradConv2d, use_winograd


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(6, 8), (7, 9), (1, 1), (1, 4), (2, 3)])
@pytest.mark.parametrize("tiles", [1, 1024])
@torch.no_grad()
def test_it_is_the_same_convolution(size, bias, tiles, monkeypatch):
    monkeypatch.setattr(winograd, "_TILES", tiles)
    own = nn.Conv2d(5, 4, 3, padding=1, bias=bias)
    features = torch.randn(2, 5, *size)
    for layout in (torch.contiguous_format, torch.channels_last):
        laid = features.contiguous(memory_format=layout)
        assert_close(WinogradConv2d(own)(laid), own(features), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_it_takes_the_place_of_wide_convolutions_of_this_kind_alone(monkeypatch):
    monkeypatch.setattr(winograd, "WIDE", 8)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),  # too narrow
        nn.Conv2d(8, 8, 3, padding=1),
        nn.Conv2d(8, 8, 3, padding=1, stride=2),
        nn.Conv2d(8, 8, 3, padding=2, dilation=2),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Conv2d(8, 8, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(8, 8, 1),
        nn.Sequential(nn.Conv2d(8, 16, 3, padding=1, bias=False)),
    ).eval()
    images = torch.randn(1, 3, 12, 10)
    before = model(images)
    use_winograd(model)
    replaced = [name for name, each in model.named_modules() if isinstance(each, WinogradConv2d)]
    assert replaced == ["1", "7.0"]
    assert_close(model(images), before, atol=1e-5, rtol=1e-5)
