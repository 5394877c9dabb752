"""A loss or gradient that is not finite: its cause, and the evidence that reproduces it."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crowdcount.core.types import Batch, BlockTarget
from crowdcount.errors import DivergedError
from crowdcount.files import atomic_file


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Everything that decides the result of a step, apart from the settings of the run."""

    epoch: int
    """From 1 on."""

    step: int
    """In the whole run, from 1 on."""

    values: dict[str, float]
    """Terms of the loss and norm of the gradient."""

    batch: Batch
    model: Mapping[str, Tensor]
    """Weights before the step; batch-norm statistics after it, which training does not read."""

    random: Mapping[str, Tensor]
    """Random states before the step: :func:`crowdcount.training.randomness.random_states`."""

    def save(self, path: Path) -> None:
        """Write the evidence atomically."""
        content: dict[str, Any] = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self)
        }
        target = self.batch.target
        content["batch"] = {
            "images": self.batch.images,
            "names": list(self.batch.names),
            "counts": target.counts,
            "points": list(target.points),
            "heads": target.heads,
            "block": target.block,
        }
        content["model"] = dict(self.model)
        with atomic_file(path) as temporary, temporary.open("wb") as stream:
            torch.save(content, stream)

    @classmethod
    def load(cls, path: Path) -> "Evidence":
        """Read a file that :meth:`save` wrote; runs no code from it."""
        content = torch.load(path, map_location="cpu", weights_only=True)
        batch = content.pop("batch")
        images, names = batch.pop("images"), tuple(batch.pop("names"))
        target = BlockTarget(**batch | {"points": tuple(batch["points"])})
        return cls(**content, batch=Batch(images=images, target=target, names=names))


class NotFiniteError(DivergedError):
    """A step whose loss or gradient is not finite, with its evidence."""

    def __init__(self, evidence: Evidence, *, finite_prediction: bool, saved: str = "") -> None:
        """Create the error.

        Args:
            evidence: The step.
            finite_prediction: Whether the prediction of the network was finite.
            saved: File that holds the evidence, if it was saved.
        """
        self.evidence = evidence
        self.finite_prediction = finite_prediction
        problem = _problem(evidence.values, finite_prediction=finite_prediction)
        values = ", ".join(f"{name} {value:g}" for name, value in evidence.values.items())
        reproduce = f"; {saved} reproduces the step" if saved else ""
        super().__init__(
            f"training diverged at step {evidence.step} (epoch {evidence.epoch}): "
            f"{problem}: {values}",
            looked_for=f"finite numbers; the batch was {', '.join(evidence.batch.names)}",
            next_step=f"lower the learning rate (--lr), or look at these images{reproduce}",
        )


def _problem(values: Mapping[str, float], *, finite_prediction: bool) -> str:
    """Name the first value that is not finite on the way from the network to the gradient."""
    if not finite_prediction:
        return "the prediction of the network is not finite"
    bad = [name for name, value in values.items() if not abs(value) < float("inf")]
    if bad == ["gradient"]:
        return "the loss is finite, its gradient is not"
    # The total is never finite when one of its terms is not.
    return f"the term {next((name for name in bad if name != 'total'), 'total')} is not finite"
