"""Averaged weights trail the weights, and forget where they began."""

import pytest
import torch
from torch import nn

from crowdcount.training.state import WeightAverage
from tests.toy_training import FewBatches, MeanModel, learner, run


def test_the_average_trails_the_weights_and_forgets_the_start():
    learning = learner(MeanModel(), ema_decay=0.9)
    levels = []

    def note(loss):
        levels.append((learning.model.level.item(), learning.validated_model.level.item()))

    run(learning, FewBatches(), epochs=30, ema_decay=0.9, options={"on_step": note})
    rising = levels[:20]
    assert all(trailing <= current + 1e-6 for current, trailing in rising)
    assert levels[-1][1] == pytest.approx(levels[-1][0], abs=0.1)


def test_without_a_decay_the_weights_themselves_are_kept():
    learning = learner(MeanModel())
    assert learning.validated_model is learning.model


def test_by_hand():
    # 0 is replaced by the first weights, 4; then the decay is (1 + 1) / (10 + 1).
    model = nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, decay=0.9)
    for level in (4.0, 15.0):
        nn.init.constant_(model.weight, level)
        average.update(model)
    assert average.module.weight.item() == pytest.approx(4 * 2 / 11 + 15 * 9 / 11)


def test_the_average_takes_batch_norm_statistics_along():
    model = nn.BatchNorm2d(1)
    average = WeightAverage(model, decay=0.5)
    for _ in range(20):
        model(torch.randn(4, 1, 5, 5) + 3)
        average.update(model)
    assert average.module.running_mean.item() == pytest.approx(model.running_mean.item(), abs=0.3)
    assert average.module.num_batches_tracked == 20
