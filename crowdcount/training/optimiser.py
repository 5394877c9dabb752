"""The optimiser: what is trained, how fast each part of it, and what decays."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict
from torch import nn

from crowdcount.errors import ConfigError

OPTIMISERS: dict[str, type[torch.optim.Optimizer]] = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
}

ENCODER = "encoder."
"""Parameters whose name begins so are of the encoder; all others are of the head."""

PROMPTS = "prompt"
"""Parameters with this in their name are prompt tokens."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Settings of the optimiser."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str = "adam"
    """Key into ``OPTIMISERS``."""

    lr: float = 1e-4
    """Learning rate at the top of the schedule."""

    encoder_lr: float | None = None
    """That of the encoder; none: the same. It follows the same schedule."""

    weight_decay: float = 1e-4
    """L2 penalty of ``adam``, decoupled decay of ``adamw``; not of norms, biases and prompts."""

    clip_norm: float | None = None
    """Longest gradient: longer ones are shortened to this L2 norm; none: no gradient is."""

    def __post_init__(self) -> None:
        if self.name not in OPTIMISERS:
            known = ", ".join(OPTIMISERS)
            raise ConfigError(f"optim.name: unknown optimiser {self.name!r}; choose from: {known}")
        for name in ("lr", "encoder_lr", "clip_norm"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ConfigError(f"optim.{name} must be positive, got {value}")
        if not 0 <= self.weight_decay < math.inf:
            raise ConfigError(f"optim.weight_decay must be >= 0, got {self.weight_decay}")


def build_optimiser(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """The optimiser over all parameters of ``model`` that ask for gradients.

    Its groups are the encoder and the rest, each with and without decay. Parameters of one
    dimension at most are biases, norms and scales: a decay would pull them to a place that means
    nothing. So would it prompt tokens, whose length is as free as that of words.
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
    """Let the next step have this learning rate, and the encoder its share of it."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group["lr_scale"]
