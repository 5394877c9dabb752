"""Training: prepared data and settings in, a run folder with its best checkpoint out."""

import dataclasses
import datetime
import json
import logging
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import tomli_w
import torch

from crowdcount.config import RunConfig
from crowdcount.core.device import resolve_device
from crowdcount.core.image import WorkingSize
from crowdcount.core.metrics import CountMetrics
from crowdcount.core.progress import Track, untracked
from crowdcount.core.sample import Sample
from crowdcount.data.batches import TrainingBatches
from crowdcount.data.prepared import ImageRecord, PreparedDataset
from crowdcount.errors import UsageError
from crowdcount.files import atomic_folder, write_text
from crowdcount.losses.dace import dace_loss
from crowdcount.models.backbones import default_crop
from crowdcount.models.block_counter import BlockCounter
from crowdcount.models.build import build_model
from crowdcount.models.checkpoint import save_checkpoint
from crowdcount.training.loop import EpochReport, WeightAverage, fit
from crowdcount.workflows.bins import training_bins
from crowdcount.workflows.counter import Counter, Provenance
from crowdcount.workflows.evaluate import evaluate
from crowdcount.workflows.locate import mark_latest, new_run_folder

log = logging.getLogger("crowdcount")

WORKING_SIZE_PERCENTILE = 99
LARGEST_TRAINING_ENLARGEMENT = 2


@runtime_checkable
class Watcher(Protocol):
    """Follows a training run, to show it to somebody."""

    def started(self, *, epochs: int, steps: int) -> None:
        """Training begins: so many epochs of so many steps."""
        ...

    def stepped(self, loss: float) -> None:
        """One more step is done."""
        ...

    def finished_epoch(self, report: EpochReport, best: float | None) -> None:
        """One more epoch is done; ``best`` is the lowest validation MAE so far."""
        ...


class _Unwatched:
    def started(self, *, epochs: int, steps: int) -> None:
        pass

    def stepped(self, loss: float) -> None:
        pass

    def finished_epoch(self, report: EpochReport, best: float | None) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """What a run is going to do, as far as it is known before it starts."""

    config: RunConfig
    data: tuple[str, ...]
    training_images: int
    validation_images: int
    crop: int
    working_size: WorkingSize
    mean_heads: float
    """Mean heads of a training image."""

    fold: int | None
    """The fold of the data that is for validation; None: what was held out."""


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """Where a run left its results."""

    run: Path
    checkpoint: Path
    """The best checkpoint, or the last where nothing was validated."""

    best: CountMetrics | None
    interrupted: bool


class TrainingSamples:
    """The training images of several prepared sets, one after the other."""

    def __init__(self, data: Sequence[PreparedDataset]) -> None:
        self._images = [(each, record) for each in data for record in each.records("train")]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Sample:
        source, record = self._images[index]
        return source.sample(record)


def plan_training(config: RunConfig, data: Sequence[PreparedDataset]) -> TrainPlan:
    """Work out crop, working size and amounts.

    Raises:
        InputMissingError: If a data set has no training images.
    """
    records = [record for each in data for record in each.records("train")]
    return TrainPlan(
        config=config,
        data=tuple(each.name for each in data),
        training_images=len(records),
        validation_images=sum(len(each.records("val")) for each in data),
        crop=config.train.crop or default_crop(config.model.backbone),
        working_size=_working_size(data, records),
        mean_heads=float(np.mean([record.heads for record in records])),
        fold=data[0].fold,
    )


def training_batches(plan: TrainPlan, data: Sequence[PreparedDataset]) -> TrainingBatches:
    """The batches of every epoch of the run that ``plan`` describes."""
    config = plan.config
    return TrainingBatches(
        TrainingSamples(data),
        size=plan.crop,
        block=config.model.block,
        batch_size=config.train.batch_size,
        config=config.augment,
        seed=config.train.seed,
        workers=config.train.workers,
    )


def train(
    config: RunConfig,
    data: Sequence[PreparedDataset],
    *,
    out: Path | None = None,
    device: str = "auto",
    offline: bool = False,
    force: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    watcher: Watcher | None = None,
    track: Track = untracked,
    latest: bool = True,
) -> TrainResult:
    """Train a model and keep its best and its last checkpoint.

    Args:
        config: All settings.
        data: Prepared data sets, trained on together.
        out: The run folder; None: a new ``runs/<date>-<name>``.
        device: ``auto``, ``cpu``, ``cuda:0``, ...
        offline: Make every download an error.
        force: Replace an earlier run at ``out``.
        should_stop: Asked after each step; True saves the last checkpoint and returns.
        watcher: Follows the run.
        track: Shows the progress of what comes before training.
        latest: Let ``latest`` beside the run folder point at this run.

    Raises:
        UsageError: If ``out`` is there already.
        DivergedError: If a loss is not finite.
    """
    watcher = watcher or _Unwatched()
    plan = plan_training(config, data)
    if out is not None and out.exists() and not force:
        raise UsageError(f"{out}: there already", next_step="name another, or pass --force")
    target = resolve_device(device)
    bins = training_bins(data, block=config.model.block, chosen=config.model.bins, track=track)
    torch.manual_seed(config.train.seed)
    model = build_model(config.model, bins, offline=offline)
    # Twice as fast on the CPU and on recent GPUs; the numbers are the same.
    model = model.to(target).to(memory_format=torch.channels_last)
    batches = training_batches(plan, data)
    average = WeightAverage(model, config.train.ema_decay) if config.train.ema_decay else None
    run = _Run.create(plan, out=out, latest=latest)
    counter = Counter(
        model=model if average is None else cast(BlockCounter, average.module),
        working_size=plan.working_size,
        device=target,
        name=run.name,
        provenance=Provenance(fold=plan.fold, mean_heads=plan.mean_heads),
    )
    watcher.started(epochs=config.train.epochs, steps=len(batches))
    reports = fit(
        model,
        partial(dace_loss, bins=bins, config=config.loss),
        batches,
        train=config.train,
        optim=config.optim,
        device=target,
        average=average,
        on_step=watcher.stepped,
        should_stop=should_stop,
    )
    finished = False
    for report in reports:
        finished = report.complete and report.epoch == config.train.epochs
        due = report.epoch % config.train.validate_every == 0
        validate = (due or report.epoch == config.train.epochs) and report.complete
        metrics = None
        if validate and plan.validation_images:
            counter.model.eval()
            metrics = evaluate(counter, data, split="val").metrics
        run.record(report, metrics, counter.model)
        watcher.finished_epoch(report, None if run.best is None else run.best.mae)
    return TrainResult(
        run=run.folder, checkpoint=run.checkpoint, best=run.best, interrupted=not finished
    )


class _Run:
    """The folder of a run: its settings, its log, its checkpoints."""

    def __init__(self, folder: Path, plan: TrainPlan) -> None:
        self.folder = folder
        self.name = folder.name
        self.plan = plan
        self.best: CountMetrics | None = None
        self.card: dict[str, Any] = {
            "name": self.name,
            "working_size": dataclasses.asdict(plan.working_size),
            "provenance": {
                "data": list(plan.data),
                "training_images": plan.training_images,
                "validation_images": plan.validation_images,
                "mean_heads": plan.mean_heads,
                **({} if plan.fold is None else {"fold": plan.fold}),
                "torch": torch.__version__,
            },
            "settings": plan.config.to_mapping(),
        }

    @classmethod
    def create(cls, plan: TrainPlan, *, out: Path | None, latest: bool) -> "_Run":
        if out is None:
            backbone = plan.config.model.backbone.removeprefix("timm:")
            name = "-".join([*plan.data, backbone])
            out = new_run_folder(name, date=datetime.date.today().isoformat())
        with atomic_folder(out) as folder:
            write_text(folder / "settings.toml", tomli_w.dumps(plan.config.to_mapping()))
            (folder / "log.jsonl").touch()
        if latest:
            mark_latest(out)
        log.info("run folder %s", out)
        return cls(out, plan)

    @property
    def checkpoint(self) -> Path:
        return self.folder / ("last" if self.best is None else "best")

    def record(
        self, report: EpochReport, metrics: CountMetrics | None, model: BlockCounter
    ) -> None:
        """Log an epoch and save its weights, as the best where they are."""
        better = metrics is not None and (self.best is None or metrics.mae < self.best.mae)
        if better:
            self.best = metrics
        card = dict(self.card)
        card["provenance"] = {**self.card["provenance"], "epoch": report.epoch}
        card["metrics"] = {} if metrics is None else {"val": dataclasses.asdict(metrics)}
        save_checkpoint(self.folder / "last", model, card=card)
        if better:
            save_checkpoint(self.folder / "best", model, card=card)
        line = dataclasses.asdict(report) | {
            "val": None if metrics is None else dataclasses.asdict(metrics),
            "best": better,
        }
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, allow_nan=False) + "\n")
        self._tell(report, metrics, better=better)

    def _tell(self, report: EpochReport, metrics: CountMetrics | None, *, better: bool) -> None:
        validated = (
            "" if metrics is None else f"  val MAE {metrics.mae:.2f} RMSE {metrics.rmse:.2f}"
        )
        log.info(
            "epoch %d/%d  loss %.2f  %.1f images/s%s%s",
            report.epoch,
            self.plan.config.train.epochs,
            report.loss,
            report.images / report.seconds,
            validated,
            "  best" if better else "",
        )


def _working_size(data: Sequence[PreparedDataset], records: Iterable[ImageRecord]) -> WorkingSize:
    """Short side at least the preparation's minimum, long side at most twice what training saw.

    Training crops span scales up to 2, so an image twice as large as (nearly) the largest training
    image still looks familiar.
    """
    long_sides = [max(record.width, record.height) for record in records]
    percentile = float(np.percentile(long_sides, WORKING_SIZE_PERCENTILE))
    shortest = min(each.manifest.resize.short_side_min for each in data)
    longest = math.ceil(LARGEST_TRAINING_ENLARGEMENT * percentile)
    return WorkingSize(short_side_min=shortest, long_side_max=max(longest, shortest))
