"""Running averages of weights, which count better than the weights of any one step."""

import copy
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import torch
from torch import nn

Model = TypeVar("Model", bound=nn.Module)


class WeightAverage(Generic[Model]):
    """Exponential moving average of a model's weights and batch-norm statistics.

    The decay rises with the number of updates as (1 + n) / (10 + n) up to its setting, so that the
    random weights of the start are soon forgotten.

    Attributes:
        module: The model with averaged weights.
    """

    def __init__(self, model: Model, decay: float) -> None:
        self.module = copy.deepcopy(model).requires_grad_(requires_grad=False)
        self._decay = decay
        self._updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take the weights of ``model`` into the average; the first ones replace it."""
        updates = self._updates
        decay = min(self._decay, (1 + updates) / (10 + updates)) if updates else 0.0
        now = model.state_dict()
        for name, average in self.module.state_dict().items():
            if average.is_floating_point():
                average.lerp_(now[name], 1 - decay)
            else:
                average.copy_(now[name])
        self._updates += 1

    def state_dict(self) -> dict[str, Any]:
        """What :meth:`load_state_dict` needs to go on from here."""
        return {"module": self.module.state_dict(), "updates": self._updates}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where :meth:`state_dict` was asked."""
        self.module.load_state_dict(state["module"])
        self._updates = int(state["updates"])
