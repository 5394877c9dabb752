"""The optimiser and its learning rate over the epochs."""

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


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Settings of the optimiser and its schedule."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    name: str = "adam"
    """Key into ``OPTIMISERS``."""

    lr: float = 1e-4
    """Learning rate at the top of the schedule."""

    weight_decay: float = 1e-4
    """L2 penalty of ``adam``, decoupled decay of ``adamw``."""

    warmup: float = 0.05
    """Share of the training over which the learning rate rises linearly from near zero."""

    def __post_init__(self) -> None:
        if self.name not in OPTIMISERS:
            known = ", ".join(OPTIMISERS)
            raise ConfigError(f"optim.name: unknown optimiser {self.name!r}; choose from: {known}")
        if not 0 < self.lr < math.inf:
            raise ConfigError(f"optim.lr must be positive, got {self.lr}")
        if not 0 <= self.weight_decay < math.inf:
            raise ConfigError(f"optim.weight_decay must be >= 0, got {self.weight_decay}")
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"optim.warmup must be in [0, 1), got {self.warmup}")


def learning_rate(progress: float, config: OptimConfig) -> float:
    """Learning rate when ``progress``, a share in [0, 1], of all steps is done.

    Rises linearly over the warm-up, then follows one half-period of a cosine down to zero.
    """
    if progress < config.warmup:
        return config.lr * progress / config.warmup
    cosine = (progress - config.warmup) / (1 - config.warmup)
    return config.lr * 0.5 * (1 + math.cos(math.pi * min(cosine, 1.0)))


def build_optimiser(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """The optimiser over all parameters of ``model`` that ask for gradients."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    options: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    return OPTIMISERS[config.name](trainable, **options)
