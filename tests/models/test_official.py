import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from crowdcount.core.bins import Bins
from crowdcount.core.image import NORMALISATIONS
from crowdcount.errors import BadInputError
from crowdcount.inference.sliding import SlidingModel
from crowdcount.models.official import official_clip_ebc

GOLDEN = Path(__file__).parents[1] / "golden"
NAME = "clip_resnet50_r8_t4"
PART_A = Bins(block=8, starts=(0, 1, 2, 3, 4), values=(0.0, 1.0, 2.0, 3.0, 4.29992))


@pytest.fixture(scope="module")
def published():
    """The weights of the fixture, made again from their seed."""
    spec = importlib.util.spec_from_file_location("make_weights", GOLDEN / "make_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_weights(NAME, 11)


@pytest.fixture(scope="module")
def model(published):
    return official_clip_ebc(published, bins=PART_A)


def test_a_published_resnet_gives_the_published_outputs(model):
    with np.load(GOLDEN / f"{NAME}.seed11.npz") as golden:
        images = torch.from_numpy(golden["whole_256x320.input"]).float()
        with torch.no_grad():
            prediction = model.from_normalised(images)
        exact = {"atol": 1e-4, "rtol": 0}
        assert_close(model.bin_values, torch.from_numpy(golden["anchors"]))
        assert_close(model.text_features, torch.from_numpy(golden["text_features"]), **exact)
        assert_close(prediction.logits, torch.from_numpy(golden["whole_256x320.logits"]), **exact)
        assert_close(prediction.counts, torch.from_numpy(golden["whole_256x320.density"]), **exact)
    assert model.normalisation == NORMALISATIONS["imagenet"]
    assert not model.training


def test_windows_give_the_published_counts(model):
    with np.load(GOLDEN / f"{NAME}.seed11.npz") as golden:
        (case,) = {name.partition(".")[0] for name in golden if name.startswith("sliding")}
        window, stride = golden[f"{case}.window_stride"].tolist()
        images = torch.from_numpy(golden[f"{case}.input"]).float()
        sliding = SlidingModel(
            model=model.from_normalised, block=PART_A.block, window=window, stride=stride
        )
        with torch.no_grad():
            counts = sliding(images).counts
        assert_close(counts, torch.from_numpy(golden[f"{case}.density"]), atol=1e-4, rtol=0)


def test_what_is_not_such_a_checkpoint_is_refused(published):
    with pytest.raises(BadInputError, match="does not know: vpt_0"):
        official_clip_ebc(published | {"vpt_0": torch.zeros(1)}, bins=PART_A)
