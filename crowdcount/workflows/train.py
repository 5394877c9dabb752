"""Train a model into a run folder, or resume a run."""

import dataclasses
import datetime
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

import torch

from crowdcount.config import RunConfig
from crowdcount.core.device import resolve_device
from crowdcount.core.image import Normalisation
from crowdcount.core.metrics import CountMetrics
from crowdcount.core.progress import Track, untracked
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.errors import DivergedError, NoCountError, UsageError, WorkerEndedError
from crowdcount.files import refuse_existing
from crowdcount.losses.dace import dace_loss
from crowdcount.models.block_counter import BlockCounter
from crowdcount.models.build import empty_model
from crowdcount.models.checkpoints.card import Card, Provenance
from crowdcount.runs.folder import (
    DIVERGED,
    LOG,
    RunFolder,
    locked,
    mark_latest,
    new_run_folder,
    read_record,
)
from crowdcount.runs.log import epoch_summary, read_log, time_left
from crowdcount.runs.resume import check_init, check_settings, data_of_run, warn_of_differences
from crowdcount.runs.tensorboard import EventWriter, check_installed
from crowdcount.training.divergence import NotFiniteError
from crowdcount.training.loop import EpochReport, fit
from crowdcount.training.randomness import deterministic as deterministic_algorithms
from crowdcount.training.state import Learner, SavedState
from crowdcount.workflows.counter import Counter
from crowdcount.workflows.evaluate import Evaluation, evaluate
from crowdcount.workflows.plan import (
    TrainingSamples,
    TrainPlan,
    first_bins,
    first_model,
    initial_checkpoint,
    plan_training,
    training_batches,
)

log = logging.getLogger("crowdcount")


@runtime_checkable
class Watcher(Protocol):
    """Follows a training run, to show its progress."""

    def started(self, *, epochs: int, steps: int, done: int = 0) -> None:
        """Begin a run of ``epochs`` epochs with ``steps`` steps each, after ``done`` steps."""
        ...

    def stepped(self, loss: float) -> None:
        """Note one more step."""
        ...

    def finished_epoch(self, report: EpochReport, best: float | None) -> None:
        """Note one more epoch; ``best`` is the lowest validation MAE so far."""
        ...


class _Unwatched:
    def started(self, *, epochs: int, steps: int, done: int = 0) -> None:
        pass

    def stepped(self, loss: float) -> None:
        pass

    def finished_epoch(self, report: EpochReport, best: float | None) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """The results of a run."""

    run: Path
    checkpoint: Path
    """The best checkpoint, or the last if nothing was validated."""

    best: CountMetrics | None
    interrupted: bool


def check_selection(config: RunConfig, *, allow_test: bool) -> None:
    """Refuse to select the best weights on the test images without permission.

    Raises:
        UsageError: If the settings select on them without permission.
    """
    if config.train.select_on == "test" and not allow_test:
        raise UsageError(
            "train.select_on: weights selected on the test images count these better than others, "
            "so no number on them is honest any more",
            next_step="select on val, or pass --allow-test-selection, which checkpoint and reports "
            "will mention",
        )


def train(
    config: RunConfig,
    data: Sequence[PreparedDataset],
    *,
    out: Path | None = None,
    device: str = "auto",
    offline: bool = False,
    force: bool = False,
    deterministic: bool = False,
    allow_test_selection: bool = False,
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
        force: Replace an earlier run at ``out``, unless a process is training it.
        deterministic: Use algorithms with bit-identical results on a GPU, too.
        allow_test_selection: Let the settings select on the test images.
        should_stop: Asked after each step. True saves the state and the last checkpoint and ends
            the training.
        watcher: Follows the run.
        track: Shows the progress of preparations.
        latest: Point the link ``latest`` beside the run folder at this run.

    Raises:
        UsageError: If ``out`` already exists, another process trains it, or the settings select on
            the test images without permission.
        DivergedError: If a loss is not finite.
        MemoryExhaustedError: If a step needs more memory than there is.
    """
    check_selection(config, allow_test=allow_test_selection)
    if config.train.tensorboard:
        check_installed()
    plan = plan_training(config, data)
    target = resolve_device(device)
    folder = _new_folder(plan) if out is None else out
    with deterministic_algorithms(deterministic), locked(folder):
        refuse_existing(out, force=force)
        init = initial_checkpoint(config, offline=offline)
        bins = first_bins(config, data, init=init, track=track)
        model = first_model(config, bins, init=init, offline=offline)
        run = RunFolder.create(
            folder,
            config=plan.config,
            data=data,
            bins=bins,
            init=init,
            device=target,
            deterministic=deterministic,
        )
        if latest:
            mark_latest(run.folder)
        log.info("run folder %s", run.folder)
        return _carry_out(run, plan, model, target, should_stop=should_stop, watcher=watcher)


def resume(
    run: RunFolder,
    config: RunConfig | None = None,
    *,
    data: Sequence[PreparedDataset] | None = None,
    device: str | None = None,
    offline: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    watcher: Watcher | None = None,
) -> TrainResult:
    """Continue a run from its latest state, as if it had not been stopped.

    On the same machine with as many threads, the weights are bit-identical to those of a run that
    was not stopped; on CUDA if it is ``deterministic``. A finished run is left as it is.

    Args:
        run: The run.
        config: Settings, which may differ from those of the run in ``FREE_ON_RESUME``; None: the
            settings of the run.
        data: The data of the run, if it has moved; None: in the folders it was begun with.
        device: Where to compute; None: as when it was begun.
        offline: Make every download an error.
        should_stop: As for :func:`train`.
        watcher: Follows the run.

    Raises:
        UsageError: If settings or data are not those of the run, or another process trains it.
        InputMissingError: If its data has moved and ``data`` does not say where.
        BadInputError: If its state is damaged.
        DivergedError: If a loss is not finite.
        MemoryExhaustedError: If a step needs more memory than there is.
    """
    config = config or run.config
    check_settings(run, config)
    if config.train.tensorboard:
        check_installed()
    if run.record.finished:
        log.info("%s is finished; there is nothing left to train", run.folder)
        return _result(run)
    plan = plan_training(config, data_of_run(run, data))
    target = resolve_device(device or run.record.device)
    warn_of_differences(run, target)
    with deterministic_algorithms(run.record.deterministic), locked(run.folder):
        # Another process may have finished it before the lock was taken.
        if read_record(run.folder).finished:
            return _result(RunFolder.open(run.folder))
        mark_latest(run.folder)
        state = run.rewind()
        bins = run.record.bins
        if state is None:
            init = initial_checkpoint(config, offline=offline)
            check_init(run, init)
            log.info("%s: no state was saved yet; it begins again", run.folder)
            model = first_model(config, bins, init=init, offline=offline)
        else:
            statistics = state.run["normalisation"]
            model = empty_model(config.model, bins, normalisation=Normalisation(**statistics))
        return _carry_out(
            run, plan, model, target, state=state, should_stop=should_stop, watcher=watcher
        )


def _carry_out(
    run: RunFolder,
    plan: TrainPlan,
    model: BlockCounter,
    device: torch.device,
    *,
    state: SavedState | None = None,
    should_stop: Callable[[], bool],
    watcher: Watcher | None,
) -> TrainResult:
    """Train from the beginning, or from ``state``, to the end or a request to stop."""
    config = plan.config
    watcher = watcher or _Unwatched()
    # Twice as fast on the CPU and on recent GPUs; the numbers are the same.
    model = model.to(device).to(memory_format=torch.channels_last)
    learner = Learner(model, train=config.train, optim=config.optim, device=device)
    samples = TrainingSamples(plan.data).cached(config.train.cache, directory=run.folder)
    batches = training_batches(plan, samples, device=device)
    if state is not None:
        learner.load_state_dict(state.learner)
        progress = learner.progress
        log.info(
            "%s continues at epoch %d, step %d", run.folder, progress.epoch, progress.steps + 1
        )
    counter = Counter(
        model=cast(BlockCounter, learner.validated_model),
        working_size=plan.working_size,
        device=device,
        name=run.name,
        provenance=Provenance(fold=plan.fold, mean_heads=plan.mean_heads),
    )
    extra = {"normalisation": dataclasses.asdict(model.normalisation)}
    if not plan.validation_images:
        log.warning(
            "no images for validation, so the last epoch is kept and none is called the best; "
            "with two images and more, crowdcount preprocess --val-fraction 0.1 holds some out"
        )
    epochs, split = config.train.epochs, config.train.select_on
    done, total = learner.progress.steps, epochs * len(batches)
    began = time.monotonic()
    watcher.started(epochs=epochs, steps=len(batches), done=done)
    reports = fit(
        learner,
        partial(dace_loss, bins=model.bins, config=config.loss),
        batches,
        train=config.train,
        optim=config.optim,
        schedule=config.schedule,
        on_step=watcher.stepped,
        on_checkpoint=lambda: run.save_state(learner, extra=extra),
        should_stop=should_stop,
    )
    warned, previous = False, set[str]()
    card = _card(run, plan)
    try:
        with run.curves_drawn(), _events(run, config) as events:
            for report in reports:
                evaluation = _validate(counter, plan, report)
                line = run.record_epoch(
                    report,
                    counter.model,
                    metrics=None if evaluation is None else evaluation.metrics,
                    sets={} if evaluation is None else evaluation.sets,
                    card=card,
                )
                if events is not None:
                    events.add(line)
                left = time_left(
                    report.steps, total=total, before=done, seconds=time.monotonic() - began
                )
                summary = epoch_summary(line, split=split, epochs=epochs, seconds_left=left)
                log.info("%s", summary)
                # A residual branch that starts at zero gets its first gradient in the second step.
                lasting = [name for name in report.without_gradient if name in previous]
                previous = set(report.without_gradient)
                if lasting and not warned:
                    warned = True
                    _warn_without_gradient(lasting, epoch=report.epoch)
                watcher.finished_epoch(report, None if run.best is None else run.best.mae)
                finished = report.complete and report.epoch == epochs
                if evaluation is not None and _out_of_patience(run, report.epoch):
                    log.info("%d epochs without a better one: training ends", config.train.patience)
                    finished = True
                if finished:
                    run.finish()
                    break
    except NotFiniteError as error:
        path = run.folder / DIVERGED
        error.evidence.save(path)
        raise NotFiniteError(
            error.evidence, finite_prediction=error.finite_prediction, saved=str(path)
        ) from None
    except WorkerEndedError:
        run.save_state(learner, extra=extra)  # it ended between two steps
        log.error("go on when that is mended: crowdcount train --resume %s", run.folder)
        raise
    except OSError:
        log.error("go on when that is mended: crowdcount train --resume %s", run.folder)
        raise
    return _result(run)


def _events(run: RunFolder, config: RunConfig) -> AbstractContextManager[EventWriter | None]:
    """Open the TensorBoard events of a run, if its settings ask for them."""
    if not config.train.tensorboard:
        return nullcontext()
    lines = read_log(run.folder / LOG)
    return closing(EventWriter(run.folder, lines, started=run.record.started))


def _result(run: RunFolder) -> TrainResult:
    return TrainResult(
        run=run.folder,
        checkpoint=run.checkpoint,
        best=run.best,
        interrupted=not run.record.finished,
    )


def _validate(counter: Counter, plan: TrainPlan, report: EpochReport) -> Evaluation | None:
    """Measure the model on the validation images if a validation is due.

    Weights that the last step broke are an error, so they do not replace the last checkpoint.
    """
    train = plan.config.train
    due = report.epoch % train.validate_every == 0 or report.epoch == train.epochs
    if not (due and report.complete and plan.validation_images):
        return None
    counter.model.eval()
    try:
        return evaluate(counter, plan.validated, split=train.select_on)
    except NoCountError as error:
        raise DivergedError(
            f"training diverged in epoch {report.epoch}: {error.message}",
            next_step="lower the learning rate (--lr)",
        ) from error


def _warn_without_gradient(names: Sequence[str], *, epoch: int) -> None:
    log.warning(
        "%d trained tensors got no gradient in the last steps of epochs %d and %d, from %s to %s: "
        "they no longer learn, mostly because the units behind them are saturated. A lower "
        "optim.encoder_lr, or optim.lr, avoids it; the log names them in each epoch",
        len(names),
        epoch - 1,
        epoch,
        names[0],
        names[-1],
    )


def _out_of_patience(run: RunFolder, epoch: int) -> bool:
    """Whether the best epoch lies ``train.patience`` epochs back or more."""
    patience, top = run.config.train.patience, run.checkpoints.top
    return bool(patience and top) and epoch - top[0].epoch >= patience


def _new_folder(plan: TrainPlan) -> Path:
    backbone = plan.config.model.backbone.removeprefix("timm:").removeprefix("open-clip:")
    backbone = backbone.replace("/", "-")
    name = "-".join([*plan.names, backbone])
    return new_run_folder(name, date=datetime.date.today().isoformat())


def _card(run: RunFolder, plan: TrainPlan) -> Card:
    """Return the card of all checkpoints of a run, but for epoch and metrics."""
    return Card(
        name=run.name,
        working_size=plan.working_size,
        provenance=Provenance(
            data=tuple(plan.names),
            training_images=plan.training_images,
            validation_images=plan.validation_images,
            mean_heads=plan.mean_heads,
            selected_on=plan.config.train.select_on,
            fold=plan.fold,
            init=run.record.init,
            torch=torch.__version__,
        ),
        settings=plan.config.to_mapping(),
    )
