"""Determinism is switched on where it is asked for, and off again."""

import os

import pytest
import torch

from crowdcount.training.randomness import deterministic


@pytest.mark.parametrize("asked", [True, False])
def test_deterministic_algorithms_are_on_in_the_block_alone(asked, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    with deterministic(asked):
        assert torch.are_deterministic_algorithms_enabled() == asked
        assert torch.backends.cudnn.benchmark != asked
        assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) == asked
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.benchmark
