"""What every test shares: the Hypothesis profile, two threads, no trace of the user's settings."""

import os

import pytest
import torch
from hypothesis import settings

# Torch's first call takes longer than Hypothesis allows an example by default.
settings.register_profile("crowdcount", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("crowdcount")

torch.set_num_threads(2)


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting of the person who runs the tests must not change their outcome."""
    for name in os.environ:
        if name.startswith("CROWDCOUNT_") and name != "CROWDCOUNT_TEST_DATA":
            monkeypatch.delenv(name)
