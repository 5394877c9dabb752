"""Every setting of the optimiser acts on the parameters it is meant for."""

import math

import pytest
import torch
from torch import nn

from crowdcount.errors import ConfigError
from crowdcount.training.optimiser import (
    OPTIMISERS,
    OptimConfig,
    build_optimiser,
    set_learning_rate,
)
from tests.toy_training import ConvModel


def moved(config, *, lr=0.125):
    """How far one step without any gradient moves each parameter of value 1: what decays."""
    model = ConvModel()
    for parameter in model.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    optimiser = build_optimiser(model, config)
    set_learning_rate(optimiser, lr)
    optimiser.step()
    return {name: 1 - each.flatten()[0].item() for name, each in model.named_parameters()}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_norms_biases_and_prompts_do_not_decay(name):
    moves = moved(OptimConfig(name=name, weight_decay=0.5))
    decaying = {parameter for parameter, distance in moves.items() if distance}
    assert decaying == {"encoder.0.weight", "head.weight"}


def test_decay_is_decoupled_in_adamw_and_a_gradient_in_adam():
    # AdamW takes off lr * decay; Adam makes a first step of lr, whatever the size of the gradient.
    assert moved(OptimConfig(name="adamw", weight_decay=0.5))["head.weight"] == 0.0625
    assert moved(OptimConfig(name="adam", weight_decay=0.5))["head.weight"] == pytest.approx(0.125)
    assert not any(moved(OptimConfig(name="adam", weight_decay=0.0)).values())


def test_the_encoder_has_a_rate_of_its_own_that_follows_the_schedule():
    settings = {"name": "adamw", "weight_decay": 0.5, "lr": 0.5}
    for encoder_lr, share in ((None, 1.0), (0.125, 0.25)):
        moves = moved(OptimConfig(encoder_lr=encoder_lr, **settings), lr=0.25)
        assert moves["head.weight"] == 0.25 * 0.5
        assert moves["encoder.0.weight"] == 0.25 * 0.5 * share


def test_frozen_weights_are_left_out():
    model = ConvModel()
    model.encoder.requires_grad_(False)
    optimiser = build_optimiser(model, OptimConfig())
    trained = {id(each) for group in optimiser.param_groups for each in group["params"]}
    assert trained == {id(each) for each in (model.prompt_tokens, *model.head.parameters())}


def test_every_parameter_is_in_one_group():
    model = ConvModel()
    optimiser = build_optimiser(model, OptimConfig(encoder_lr=1e-5))
    trained = [id(each) for group in optimiser.param_groups for each in group["params"]]
    assert sorted(trained) == sorted(map(id, model.parameters()))


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "sdg"},
        {"lr": 0.0},
        {"lr": math.nan},
        {"encoder_lr": 0.0},
        {"weight_decay": -1.0},
        {"clip_norm": 0.0},
    ],
)
def test_nonsense_is_refused_by_name(wrong):
    with pytest.raises(ConfigError, match=rf"optim\.{next(iter(wrong))}"):
        OptimConfig(**wrong)
