"""The optimiser: its groups of parameters, their learning rates and their weight decay."""

from typing import Any, Literal

import torch
from torch import nn

from crowdcount.core.settings import NonNegativeFloat, PositiveFloat, settings

OptimiserName = Literal["adam", "adamw"]

OPTIMISERS: dict[OptimiserName, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}

ENCODER = "encoder."
"""Prefix of the names of the encoder's parameters; all others belong to the head."""

PROMPTS = "prompt"
"""Part of the names of prompt tokens."""


@settings("optim")
class OptimConfig:
    """Settings of the optimiser."""

    name: OptimiserName = "adam"
    """Update rule of the weights."""

    lr: PositiveFloat = 1e-4
    """Learning rate at the top of the schedule."""

    encoder_lr: PositiveFloat | None = None
    """Learning rate of the encoder at the top of the same schedule. None: that of the rest."""

    weight_decay: NonNegativeFloat = 1e-4
    """L2 penalty of ``adam``, decoupled decay of ``adamw``; not of norms, biases and prompts."""

    clip_norm: PositiveFloat | None = None
    """L2 norm to which longer gradients are shortened. None: gradients are not clipped."""


def build_optimiser(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """Build the optimiser of all parameters of ``model`` that require gradients.

    Its groups are the encoder and the rest, each with and without weight decay. Biases, norms and
    scales (at most one dimension) do not decay, since zero is no natural value for them; nor do
    prompt tokens, whose length is as free as that of words.
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and PROMPTS not in name
            groups.setdefault((name.startswith(ENCODER), decays), []).append(parameter)
    encoder_scale = 1.0 if config.encoder_lr is None else config.encoder_lr / config.lr
    options: list[dict[str, Any]] = [
        {
            "params": parameters,
            "weight_decay": config.weight_decay if decays else 0.0,
            "lr_scale": encoder_scale if of_encoder else 1.0,
        }
        for (of_encoder, decays), parameters in groups.items()
    ]
    optimiser = OPTIMISERS[config.name](options, lr=config.lr)  # type: ignore[call-arg]
    set_learning_rate(optimiser, config.lr)
    return optimiser


def set_learning_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of the next step, scaled for the encoder."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group["lr_scale"]
