"""The learning rate rises over the warm-up and falls along one cosine."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from crowdcount.errors import ConfigError
from crowdcount.training.schedule import OPTIMISERS, OptimConfig, build_optimiser, learning_rate

CONFIG = OptimConfig(lr=2e-3, warmup=0.1)


@given(st.floats(0, 1))
def test_never_leaves_its_range(progress):
    assert 0 <= learning_rate(progress, CONFIG) <= CONFIG.lr * (1 + 1e-12)


@given(st.floats(0, 0.1), st.floats(0, 0.1))
def test_rises_during_the_warm_up(one, other):
    low, high = sorted((one, other))
    assert learning_rate(low, CONFIG) <= learning_rate(high, CONFIG) + 1e-15


def test_by_hand():
    assert learning_rate(0.05, CONFIG) == pytest.approx(1e-3)
    assert learning_rate(0.1, CONFIG) == pytest.approx(2e-3)
    assert learning_rate(0.55, CONFIG) == pytest.approx(1e-3)
    assert learning_rate(1.0, CONFIG) == pytest.approx(0.0, abs=1e-12)


def test_without_warm_up_the_top_comes_first():
    assert learning_rate(0.0, OptimConfig(lr=1.0, warmup=0.0)) == 1.0


@pytest.mark.parametrize("name", OPTIMISERS)
def test_every_optimiser_takes_its_settings_and_leaves_frozen_weights_out(name):
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    model[0].requires_grad_(False)
    optimiser = build_optimiser(model, OptimConfig(name=name, lr=0.25, weight_decay=0.125))
    (group,) = optimiser.param_groups
    assert (group["lr"], group["weight_decay"], len(group["params"])) == (0.25, 0.125, 2)


@pytest.mark.parametrize(
    "wrong",
    [{"name": "sdg"}, {"lr": 0.0}, {"lr": math.nan}, {"weight_decay": -1.0}, {"warmup": 1.0}],
)
def test_nonsense_is_refused_by_name(wrong):
    with pytest.raises(ConfigError, match=rf"optim\.{next(iter(wrong))}"):
        OptimConfig(**wrong)
