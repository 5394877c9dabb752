"""A training run before it starts: its data, sizes, samples, bins, initial model and estimate."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch

from crowdcount.config import RunConfig
from crowdcount.core.bins import Bins
from crowdcount.core.image import Sample, WorkingSize
from crowdcount.core.progress import Track, untracked
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.data.prepared.manifest import ImageRecord
from crowdcount.data.training.batches import Samples, TrainingBatches
from crowdcount.data.training.cache import CachedSamples, Room, make_cache
from crowdcount.models.backbones import default_crop
from crowdcount.models.block_counter import BlockCounter
from crowdcount.models.build import build_model, check_weights, empty_model
from crowdcount.models.checkpoints.format import describe
from crowdcount.models.checkpoints.names import ResolvedCheckpoint, resolve_checkpoint
from crowdcount.models.checkpoints.warm_start import (
    initial_model,
    with_initial_settings,
)
from crowdcount.training.config import TrainConfig
from crowdcount.training.memory import MemoryEstimate, estimate_memory
from crowdcount.wording import counted
from crowdcount.workflows.bins import training_bins

WORKING_SIZE_PERCENTILE = 99
LARGEST_TRAINING_ENLARGEMENT = 2


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """Data and sizes of a run."""

    config: RunConfig
    data: tuple[PreparedDataset, ...]
    """Data sets, trained on together."""

    training_images: int
    validated: tuple[PreparedDataset, ...]
    """Those of them that have images for validation."""

    validation_images: int
    """Images of the split that the best weights are selected on."""

    crop: int
    working_size: WorkingSize
    mean_heads: float
    """Mean heads of a training image."""

    @property
    def names(self) -> list[str]:
        """Names of the data sets."""
        return [source.name for source in self.data]

    @property
    def fold(self) -> int | None:
        """The fold for validation; None: the images that were held out."""
        return self.data[0].fold


class TrainingSamples:
    """The training images of several prepared data sets, one after the other."""

    def __init__(self, data: Sequence[PreparedDataset]) -> None:
        self._images = [(source, record) for source in data for record in source.records("train")]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Sample:
        source, record = self._images[index]
        return source.sample(record)

    def cached(self, kind: str, *, directory: Path) -> Samples:
        """Return these samples with a cache of decoded images, if there is room for it."""
        rooms = [
            Room(name=record.name, width=record.width, height=record.height, heads=record.heads)
            for _, record in self._images
        ]
        cache = make_cache(rooms, kind=kind, directory=directory)
        return self if cache is None else CachedSamples(self, cache)


def new_run_config(tree: Mapping[str, Any], *, offline: bool = False) -> RunConfig:
    """Build the settings of a new run; the checkpoint it starts from completes them.

    A checkpoint of the model hub is pinned to its commit, so that the name keeps its meaning.

    Args:
        tree: A tree of settings, such as ``{"train": {"init": "starter"}}``, or that of
            :func:`crowdcount.config.given_settings`.
        offline: Do not download the checkpoint.

    Raises:
        ConfigError: If a key is unknown, a value is wrong or contradicts the checkpoint.
        InputMissingError: If there is no such checkpoint.
        BadInputError: If it is damaged.
    """
    train, model = tree.get("train", {}), tree.get("model", {})
    init = train.get("init") if isinstance(train, Mapping) else None
    if not (isinstance(init, str) and init and isinstance(model, Mapping)):
        return RunConfig.from_mapping(tree)
    checkpoint = resolve_checkpoint(init, offline=offline)
    part = train.get("init_part", TrainConfig.init_part)
    model = with_initial_settings(model, init=checkpoint, part=part)
    train = {**train, "init": checkpoint.name}
    return RunConfig.from_mapping({**tree, "model": model, "train": train})


def plan_training(config: RunConfig, data: Sequence[PreparedDataset]) -> TrainPlan:
    """Work out the sizes of a run.

    Raises:
        InputMissingError: If a data set has no training images.
    """
    config = config.resolved()
    records = [record for source in data for record in source.records("train")]
    split = config.train.select_on
    validated = tuple(source for source in data if split == "test" or split in source.splits)
    return TrainPlan(
        config=config,
        data=tuple(data),
        training_images=len(records),
        validated=validated,
        validation_images=sum(len(source.records(split)) for source in validated),
        crop=config.train.crop
        or default_crop(config.model.backbone, grid=config.model.position_grid),
        working_size=_working_size(data, records),
        mean_heads=float(np.mean([record.heads for record in records])),
    )


def training_batches(
    plan: TrainPlan, samples: Samples, *, device: torch.device | None = None
) -> TrainingBatches:
    """Return the batches of every epoch of a run, for ``device``."""
    config = plan.config
    return TrainingBatches(
        samples,
        size=plan.crop,
        block=config.model.block,
        batch_size=config.train.batch_size,
        crops_per_image=config.train.crops_per_image,
        config=config.augment,
        seed=config.train.seed,
        workers=config.train.workers,
        pinned=device is not None and device.type == "cuda",
    )


def initial_checkpoint(config: RunConfig, *, offline: bool = False) -> ResolvedCheckpoint | None:
    """Find the checkpoint that training starts from; None: it starts from fresh weights.

    Raises:
        InputMissingError: If it is missing or cannot be downloaded.
    """
    init = config.train.init
    return None if init is None else resolve_checkpoint(init, offline=offline)


def first_bins(
    config: RunConfig,
    data: Sequence[PreparedDataset],
    *,
    init: ResolvedCheckpoint | None,
    write: bool = True,
    track: Track = untracked,
) -> Bins:
    """Return the bins of the checkpoint that training starts from, else those of the data.

    Bins that are made from the data are saved beside it, unless ``write`` is false.
    """
    if init is not None and config.train.init_part == "all":
        return describe(init.path).bins
    model = config.model
    return training_bins(data, block=model.block, chosen=model.bins, write=write, track=track)


def first_model(
    config: RunConfig, bins: Bins, *, init: ResolvedCheckpoint | None, offline: bool
) -> BlockCounter:
    """Build the initial model.

    Seeds torch's global generator, so everything random afterwards is reproducible.
    """
    torch.manual_seed(config.train.seed)
    if init is None:
        return build_model(config.model, bins, offline=offline)
    return initial_model(config.model, bins, init=init, part=config.train.init_part)


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

    def lines(self) -> Iterator[str]:
        """Yield the lines of a run file, with the sizes as comments."""
        plan, memory = self.plan, self.memory
        parts = ", ".join(
            f"{name} {_mebibytes(getattr(memory, name))}"
            for name in ("weights", "gradients", "optimiser", "average", "activations")
        )
        yield from tomli_w.dumps(plan.config.to_mapping()).splitlines()
        yield (
            f"# {plan.training_images} training and {plan.validation_images} validation images, "
            f"crops of {plan.crop} pixels"
        )
        yield f"# {self.parameters:,} parameters, {self.trained_parameters:,} of them trained"
        yield f"# {counted(self.steps_per_epoch, 'step')} an epoch, {self.steps:,} in all"
        yield f"# memory, estimated: {_mebibytes(memory.total)} ({parts})"


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

    Raises:
        ConfigError: If settings contradict each other, the data, or what the library of the
            backbone has.
    """
    plan = plan_training(config, data)
    if bins is None:
        init = initial_checkpoint(config)
        if init is None:
            check_weights(config.model)
        bins = first_bins(config, data, init=init, write=False, track=track)
    model = empty_model(config.model, bins)
    crops = plan.training_images * config.train.crops_per_image
    parameters = list(model.parameters())
    return RunEstimate(
        plan=plan,
        parameters=sum(tensor.numel() for tensor in parameters),
        trained_parameters=sum(tensor.numel() for tensor in parameters if tensor.requires_grad),
        steps_per_epoch=-(-crops // config.train.batch_size),
        memory=estimate_memory(model, crop=plan.crop, train=config.train),
    )


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def _working_size(data: Sequence[PreparedDataset], records: Iterable[ImageRecord]) -> WorkingSize:
    """Return the range of image sizes that the model is used with.

    The short side is at least the minimum of the preparation. The long side is at most twice that
    of (nearly) the largest training image, because augmentation enlarges crops up to twice.
    """
    long_sides = [max(record.width, record.height) for record in records]
    percentile = float(np.percentile(long_sides, WORKING_SIZE_PERCENTILE))
    shortest = min(source.manifest.resize.short_side_min for source in data)
    longest = math.ceil(LARGEST_TRAINING_ENLARGEMENT * percentile)
    return WorkingSize(short_side_min=shortest, long_side_max=max(longest, shortest))
