"""What is said of the backbones is what they are, in ``models list`` and in the documentation."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from crowdcount.core.bins import Bins
from crowdcount.models.backbones import BACKBONES
from crowdcount.models.build import empty_model
from crowdcount.models.config import ModelConfig
from crowdcount.models.figures import FIGURES
from tests.models.documented import documented

FIVE = Bins(block=8, starts=(0, 1, 2, 3, 4), values=(0.0, 1.0, 2.0, 3.0, 4.3))


def billions_of_multiply_adds(model, *, height, width):
    windows = 1
    if window := model.config.window:
        windows = math.ceil(height / window) * math.ceil(width / window)
        height = width = window
    height, width = (math.ceil(side / model.stride) * model.stride for side in (height, width))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.block_logits(torch.empty(1, 3, height, width, device="meta"))
    return windows * counter.get_total_flops() / 2e9


def test_every_backbone_has_figures():
    assert FIGURES.keys() == BACKBONES.keys()


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_what_the_models_have(name):
    figures, row = FIGURES[name], documented(name)
    with torch.device("meta"):
        model = empty_model(ModelConfig(backbone=name), FIVE).eval()
    trained = [each for each in model.parameters() if each.requires_grad]
    for said, column, parameters in (
        (figures.encoder, "encoder", model.encoder.parameters()),
        (figures.parameters, "model", model.parameters()),
        (figures.trained, "trained", trained),
    ):
        assert f"{sum(each.numel() for each in parameters) / 1e6:.1f}" == f"{said:.1f}"
        assert row[column] == f"{said:.1f}"
    assert model.stride == figures.stride == int(row["stride"])
    assert figures.weights == row["weights"].replace("`", "")
    model.requires_grad_(requires_grad=False)
    for said, column, height, width in (
        (figures.gmac_448, "GMAC 448", 448, 448),
        (figures.gmac_1024, "GMAC 1024", 768, 1024),
    ):
        assert round(billions_of_multiply_adds(model, height=height, width=width)) == said
        assert row[column] == str(said)
