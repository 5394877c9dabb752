"""docs/sharpen.py, a step of the recipe of the shipped model."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from crowdcount.models.checkpoint import load_checkpoint

SCRIPT = Path(__file__).parent.parent / "docs" / "sharpen.py"


@pytest.fixture
def sharpen(monkeypatch):
    spec = importlib.util.spec_from_file_location("sharpen", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["sharpen.py", *map(str, arguments)])
        module.main()

    return run


@torch.no_grad()
def test_logits_are_scaled_and_those_of_occupied_bins_shifted(sharpen, checkpoint, tmp_path):
    sharpen(checkpoint, tmp_path / "sharp", "--factor", 1.5, "--shift", 0.25)
    before, after = load_checkpoint(checkpoint), load_checkpoint(tmp_path / "sharp")
    images = torch.rand(1, 3, 64, 96)
    expected = 1.5 * before.model.eval()(images).logits
    expected[:, 1:] += 0.25
    torch.testing.assert_close(after.model.eval()(images).logits, expected)
    # Numbers measured of the weights before are not said of these.
    assert after.card["metrics"] == {}
    assert after.card["provenance"] == before.card["provenance"]
