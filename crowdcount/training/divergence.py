"""A loss or a gradient that is not finite: what broke, and what is needed to see it again."""

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
    """Everything that decides what a step computes, but for the settings of the run."""

    epoch: int
    """From 1 on."""

    step: int
    """Since the start of the run, from 1 on."""

    values: dict[str, float]
    """The terms of the loss and the norm of the gradient."""

    batch: Batch
    model: Mapping[str, Tensor]
    """Weights before the step. Batch-norm statistics have seen it; training does not read them."""

    random: Mapping[str, Tensor]
    """States of the random generators before the step, as of
    :func:`crowdcount.training.randomness.random_states`."""

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
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
        with atomic_file(path) as temporary:
            torch.save(content, temporary)

    @classmethod
    def load(cls, path: Path) -> "Evidence":
        """Read what :meth:`save` wrote; runs no code from the file."""
        content = torch.load(path, map_location="cpu", weights_only=True)
        batch = content.pop("batch")
        images, names = batch.pop("images"), tuple(batch.pop("names"))
        target = BlockTarget(**batch | {"points": tuple(batch["points"])})
        return cls(**content, batch=Batch(images=images, target=target, names=names))


class NotFiniteError(DivergedError):
    """A step whose loss or gradient is not finite, with what reproduces it."""

    def __init__(self, evidence: Evidence, *, finite_prediction: bool, saved: str = "") -> None:
        """Say what broke in which step on which images.

        Args:
            evidence: What reproduces it.
            finite_prediction: Whether what the network said was finite.
            saved: Where the evidence was saved.
        """
        self.evidence = evidence
        self.finite_prediction = finite_prediction
        broken = _broken(evidence.values, finite_prediction=finite_prediction)
        values = ", ".join(f"{name} {value:g}" for name, value in evidence.values.items())
        keep = f"; {saved} reproduces the step" if saved else ""
        super().__init__(
            f"training diverged at step {evidence.step} (epoch {evidence.epoch}): "
            f"{broken}: {values}",
            looked_for=f"finite numbers; the batch was {', '.join(evidence.batch.names)}",
            next_step=f"lower the learning rate (--lr), or look at these images{keep}",
        )


def _broken(values: Mapping[str, float], *, finite_prediction: bool) -> str:
    """What was not finite first, on the way from the network to the gradient."""
    if not finite_prediction:
        return "what the network predicts is not finite"
    bad = [name for name, value in values.items() if not abs(value) < float("inf")]
    if bad == ["gradient"]:
        return "the loss is finite, its gradient is not"
    # The total is broken wherever a part of it is.
    return f"the term {next(iter([name for name in bad if name != 'total']), 'total')} broke"
