"""Plain regression: one number a block, without bins."""

import pytest
import torch
from torch.testing import assert_close

from crowdcount.config import RunConfig, load_run_config
from crowdcount.core.bins import Bins
from crowdcount.core.types import BlockPrediction, block_target
from crowdcount.errors import ConfigError
from crowdcount.inference.sliding import SlidingModel
from crowdcount.losses.count import mae
from crowdcount.losses.dace import DaceConfig, dace_loss
from crowdcount.models.build import build_model
from crowdcount.models.config import ModelConfig
from tests.models.small_backbones import CLIP, shrunken

BINS = Bins(block=8, starts=(0, 1, 2), values=(0.0, 1.0, 2.2))
CONFIG = ModelConfig(backbone="timm:test_resnet", head="regression", pretrained="none")


def some_target():
    return block_target((torch.rand(9, 2) * 32,), height=32, width=32, block=8)


def test_counts_are_the_last_layer_through_a_relu():
    torch.manual_seed(0)
    model = build_model(CONFIG, BINS).eval()
    (last,) = model.head
    assert last.out_channels == 1
    images = torch.rand(1, 3, 40, 50)
    with torch.no_grad():
        last.bias.fill_(0.0)
        last.weight.normal_()
        raw = model.block_logits(torch.nn.functional.pad(model.normalised(images), (0, 14, 0, 24)))
        prediction = model(images)
    assert (raw < 0).any()
    assert_close(prediction.counts, raw[..., :5, :7].clamp(min=0))
    assert prediction.logits.shape == (1, 0, 5, 7)


def test_an_untrained_model_neither_is_dead_nor_shouts():
    torch.manual_seed(0)
    counts = build_model(CONFIG, BINS).eval()(torch.rand(2, 3, 64, 64)).counts
    assert (counts > 0).float().mean() > 0.5
    assert counts.mean() < 1


def test_windows_are_averaged():
    torch.manual_seed(0)
    model = build_model(CONFIG, BINS).eval()
    sliding = SlidingModel(model=model, block=8, window=32, stride=16)
    with torch.no_grad():
        prediction = sliding(torch.rand(1, 3, 64, 48))
    assert prediction.logits.shape == (1, 0, 8, 6)
    assert prediction.counts.isfinite().all()


def test_only_the_count_term_trains():
    target = some_target()
    counts = torch.rand(1, 1, 4, 4, requires_grad=True)
    prediction = BlockPrediction(logits=counts[:, :0], counts=counts)
    terms = dace_loss(prediction, target, BINS, DaceConfig(classification="none", count="mae"))
    assert terms.classification == 0
    assert_close(terms.total, mae(counts, target))
    terms.total.backward()
    assert counts.grad.abs().sum() > 0
    assert DaceConfig(classification="none").resolved().count == "dm"


@pytest.mark.parametrize("classification", ["ce", "zip"])
def test_there_is_nothing_to_classify(classification):
    with pytest.raises(ConfigError, match="needs bins, and model") as caught:
        RunConfig(model=CONFIG, loss=DaceConfig(classification=classification))
    assert "loss.classification=none" in caught.value.next_step
    settings = {"model.head": "regression", "loss.classification": "none"}
    assert load_run_config(overrides=[*settings.items()]).loss.resolved().count == "dm"


def test_clip_has_sentences_and_no_regression():
    with shrunken(), pytest.raises(ConfigError, match="reads no sentences"):
        build_model(ModelConfig(backbone=CLIP[0], head="regression", pretrained="none"), BINS)
