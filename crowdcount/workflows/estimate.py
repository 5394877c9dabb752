"""Estimate the size of a training run before it starts."""

from collections.abc import Sequence
from dataclasses import dataclass

from crowdcount.config import RunConfig
from crowdcount.core.bins import Bins
from crowdcount.core.progress import Track, untracked
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.models.build import empty_model
from crowdcount.training.memory import MemoryEstimate, estimate_memory
from crowdcount.workflows.plan import TrainPlan, first_bins, plan_training


@dataclass(frozen=True, kw_only=True)
class RunEstimate:
    """Model size, steps and memory of a run."""

    plan: TrainPlan
    parameters: int
    trained_parameters: int
    steps_per_epoch: int
    memory: MemoryEstimate

    @property
    def steps(self) -> int:
        """Steps of the whole run, unless it ends early."""
        return self.steps_per_epoch * self.plan.config.train.epochs


def estimate_run(
    config: RunConfig,
    data: Sequence[PreparedDataset],
    *,
    bins: Bins | None = None,
    track: Track = untracked,
) -> RunEstimate:
    """Estimate the size of a run. Writes nothing, and needs neither network nor weights.

    Args:
        config: All settings.
        data: Prepared data sets, trained on together.
        bins: Bins of an existing run; None: those of a new run.
        track: Shows progress.
    """
    plan = plan_training(config, data)
    if bins is None:
        bins = first_bins(config, data, write=False, track=track)
    model = empty_model(config.model, bins)
    crops = plan.training_images * config.train.crops_per_image
    parameters = list(model.parameters())
    return RunEstimate(
        plan=plan,
        parameters=sum(each.numel() for each in parameters),
        trained_parameters=sum(each.numel() for each in parameters if each.requires_grad),
        steps_per_epoch=-(-crops // config.train.batch_size),
        memory=estimate_memory(model, crop=plan.crop, train=config.train),
    )
