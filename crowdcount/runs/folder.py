"""The folder of a training run: its settings, its log, its checkpoints and its state.

::

    runs/2026-11-24-sha-clip-rn50/
      run.json         what it is made from: data, bins, device; and whether it is finished
      settings.toml    all settings
      log.jsonl        one line an epoch
      curves.png       what the log says, drawn when training ends or stops
      events.out.*     the same for TensorBoard, with ``train.tensorboard``
      best/  last/     checkpoints
      top/epoch-0012/  with ``train.keep_best`` of 2 and more: the best ones, ``best/`` among them
      state.pt         from where ``--resume`` goes on; gone when the run is finished
      diverged.pt      what reproduces the step that was not finite
"""

import dataclasses
import datetime
import fcntl
import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pydantic
import tomli_w
import torch
from pydantic import TypeAdapter

from crowdcount.config import RunConfig
from crowdcount.core.bins import Bins
from crowdcount.core.metrics import CountMetrics
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.data.prepared.manifest import MANIFEST
from crowdcount.errors import BadInputError, CrowdCountError, InputMissingError, UsageError
from crowdcount.files import (
    atomic_folder,
    is_temporary,
    read_toml,
    sha256_file,
    write_bytes,
    write_json,
    write_text,
)
from crowdcount.models.block_counter import BlockCounter
from crowdcount.models.checkpoints.format import describe, save_checkpoint
from crowdcount.models.checkpoints.names import WEIGHTS_NAME, resolve_checkpoint
from crowdcount.runs.log import draw_curves, epoch_in_words, read_log
from crowdcount.runs.tensorboard import append_events, rewrite_events
from crowdcount.training.divergence import NotFiniteError
from crowdcount.training.loop import EpochReport
from crowdcount.training.state import Learner, SavedState, load_state, save_state

log = logging.getLogger("crowdcount")

RECORD = "run.json"
SETTINGS = "settings.toml"
LOG = "log.jsonl"
CURVES = "curves.png"
STATE = "state.pt"
DIVERGED = "diverged.pt"
LOCK = ".lock"
TOP = "top"


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """One prepared data set of a run."""

    folder: str
    manifest_sha256: str
    """Of its manifest, which holds the hashes of all its files."""

    @classmethod
    def of(cls, data: PreparedDataset) -> "DataSource":
        """Where a data set is and what it holds."""
        folder = data.folder.resolve()
        return cls(folder=str(folder), manifest_sha256=sha256_file(folder / MANIFEST))


@dataclass(frozen=True, kw_only=True)
class InitSource:
    """The checkpoint that a run starts from."""

    name: str
    weights_sha256: str

    @classmethod
    def of(cls, init: str) -> "InitSource":
        """What a checkpoint, named as in ``train.init``, is called and holds."""
        folder = resolve_checkpoint(init).path
        name = describe(folder).card.get("name")
        return cls(name=str(name or folder.name), weights_sha256=sha256_file(folder / WEIGHTS_NAME))


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What decides the weights of a run beside its settings, and how it ended."""

    format: Literal[1] = 1
    started: str
    """Date and time in UTC."""

    data: tuple[DataSource, ...]
    fold: int | None
    bins: dict[str, Any]
    device: str
    threads: int
    """Of PyTorch on the CPU: sums over threads are taken in an order that depends on it."""

    torch: str
    deterministic: bool
    init: InitSource | None = None
    """None: it starts from fresh weights."""

    finished: bool = False
    best: CountMetrics | None = None
    """Validation of the best checkpoint of a finished run."""


@dataclass(frozen=True, kw_only=True, order=True)
class Ranked:
    """A validation among others: the lower its error the better, the earlier where equal."""

    mae: float
    epoch: int

    @property
    def folder(self) -> str:
        """Where its checkpoint is, from the folder of the run."""
        return f"{TOP}/epoch-{self.epoch:04d}"


class RunFolder:
    """A run on disk.

    Attributes:
        folder: Where it is.
        name: What the folder is called.
        config: Its settings.
        record: What else it is made from.
        best: The best validation so far.
        top: The best validations so far, from the best on, ``train.keep_best`` of them at most.
    """

    def __init__(self, folder: Path, *, config: RunConfig, record: RunRecord) -> None:
        """Stand for a folder that is there; :meth:`create` makes one, :meth:`open` reads one."""
        self.folder = folder
        self.name = folder.name
        self.config = config
        self.record = record
        self.best = record.best
        self.top: tuple[Ranked, ...] = ()
        self._in_tensorboard = False
        self._said_what_is_still = False

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        config: RunConfig,
        data: Sequence[PreparedDataset],
        bins: Bins,
        device: torch.device,
        deterministic: bool,
    ) -> "RunFolder":
        """Begin a run; what was at ``folder`` is replaced."""
        record = RunRecord(
            started=datetime.datetime.now(datetime.UTC).isoformat(),
            data=tuple(map(DataSource.of, data)),
            fold=data[0].fold,
            bins=bins.to_json(),
            device=str(device),
            threads=torch.get_num_threads(),
            torch=torch.__version__,
            deterministic=deterministic,
            init=None if config.train.init is None else InitSource.of(config.train.init),
        )
        with atomic_folder(folder) as temporary:
            write_text(temporary / SETTINGS, tomli_w.dumps(config.to_mapping()))
            write_json(temporary / RECORD, dataclasses.asdict(record))
            (temporary / LOG).touch()
        return cls(folder, config=config, record=record)

    @classmethod
    def open(cls, folder: Path) -> "RunFolder":
        """The run in ``folder``.

        Raises:
            InputMissingError: If there is none.
            BadInputError: If its record or its settings are damaged.
            ConfigError: If this version does not know its settings.
        """
        record = read_record(folder)
        path = folder / SETTINGS
        try:
            settings = read_toml(path)
        except (OSError, ValueError) as error:
            raise BadInputError(f"{path}: cannot be read: {error}") from error
        return cls(folder, config=RunConfig.from_mapping(settings), record=record)

    @property
    def checkpoint(self) -> Path:
        """The best checkpoint, or the last where nothing was validated."""
        return self.folder / ("last" if self.best is None else "best")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from training this run as long as the block runs.

        The system lifts the lock with the process, however that ends.

        Raises:
            UsageError: If one does.
        """
        with (self.folder / LOCK).open("w") as stream:
            try:
                fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise UsageError(
                    f"{self.folder}: another process trains this run",
                    next_step="wait for it, or stop it",
                ) from error
            yield

    def rewind(self) -> SavedState | None:
        """Bring the folder back to its latest state, and give that; None: to the beginning.

        What was logged since is cut off, what a killed process left half-written is removed.

        Raises:
            BadInputError: If the state is damaged.
        """
        path = self.folder / STATE
        state = load_state(path) if path.exists() else None
        for each in filter(is_temporary, list(self.folder.iterdir())):
            if each.is_dir():
                shutil.rmtree(each)
            else:
                each.unlink()
        kept = 0 if state is None else int(state.run["log_bytes"])
        log_path = self.folder / LOG
        write_text(log_path, log_path.read_bytes()[:kept].decode("utf-8"))
        best = None if state is None else state.run["best"]
        self.best = None if best is None else CountMetrics(**best)
        ranked = [] if state is None else state.run.get("top", [])
        self.top = tuple(Ranked(**each) for each in ranked)
        self._drop_all_but_top()
        return state

    def save_state(self, learner: Learner, *, extra: Mapping[str, Any]) -> None:
        """Save where training is; ``extra`` are plain values that come back with it."""
        run = {
            "log_bytes": (self.folder / LOG).stat().st_size,
            "best": None if self.best is None else dataclasses.asdict(self.best),
            "top": [dataclasses.asdict(each) for each in self.top],
            **extra,
        }
        save_state(self.folder / STATE, learner, run=run)

    def record_epoch(
        self,
        report: EpochReport,
        metrics: CountMetrics | None,
        model: BlockCounter,
        *,
        sets: Mapping[str, CountMetrics],
        card: Mapping[str, Any],
        seconds_left: float | None = None,
    ) -> None:
        """Log an epoch and save its weights, as the best where they are.

        Args:
            report: What happened in it.
            metrics: Its validation, if there was one.
            model: The model to keep.
            sets: The validation of each data set.
            card: What the checkpoint says of the run.
            seconds_left: How long the rest of the run may take, as far as that can be told.
        """
        better = metrics is not None and (self.best is None or metrics.mae < self.best.mae)
        if better:
            self.best = metrics
        measured = self._measured(metrics, sets)
        card = dict(card)
        card["provenance"] = {**card["provenance"], "epoch": report.epoch}
        card["metrics"] = {} if metrics is None else measured
        save_checkpoint(self.folder / "last", model, card=card)
        if better:
            save_checkpoint(self.folder / "best", model, card=card)
        if metrics is not None:
            this = Ranked(mae=metrics.mae, epoch=report.epoch)
            keep_best = self.config.train.keep_best
            self.top = tuple(sorted([*self.top, this])[:keep_best])
            if this in self.top and keep_best > 1:
                save_checkpoint(self.folder / this.folder, model, card=card)
            self._drop_all_but_top()
        line = dataclasses.asdict(report) | measured | {"best": better}
        with (self.folder / LOG).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, allow_nan=False) + "\n")
        if self._in_tensorboard:
            append_events(self.folder, read_log(self.folder / LOG), started=self.record.started)
        words = epoch_in_words(
            report,
            metrics,
            sets=sets,
            split=self.config.train.select_on,
            epochs=self.config.train.epochs,
            better=better,
            seconds_left=seconds_left,
        )
        log.info("%s", words)
        if report.without_gradient and not self._said_what_is_still:
            self._said_what_is_still = True
            log.warning(
                "%d trained tensors got no gradient in the last step of epoch %d, from %s to %s: "
                "they no longer learn, mostly because the units behind them are saturated. A lower "
                "optim.encoder_lr, or optim.lr, avoids it; the log names them in each epoch",
                len(report.without_gradient),
                report.epoch,
                report.without_gradient[0],
                report.without_gradient[-1],
            )

    def show_in_tensorboard(self) -> None:
        """Keep an event file beside the log, from what is in that now on."""
        rewrite_events(self.folder, read_log(self.folder / LOG), started=self.record.started)
        self._in_tensorboard = True

    def _measured(
        self, metrics: CountMetrics | None, sets: Mapping[str, CountMetrics]
    ) -> dict[str, Any]:
        """A validation as plain values; that of each set, too, where there are several."""
        split = self.config.train.select_on
        if metrics is None:
            return {split: None}
        measured: dict[str, Any] = {split: dataclasses.asdict(metrics)}
        if len(self.record.data) > 1:
            measured[f"{split}_sets"] = {name: dataclasses.asdict(sets[name]) for name in sets}
        return measured

    def out_of_patience(self, epoch: int) -> bool:
        """Whether the validation of ``epoch`` is so long after the best that training ends."""
        patience = self.config.train.patience
        return bool(patience and self.top) and epoch - self.top[0].epoch >= patience

    def _drop_all_but_top(self) -> None:
        """Remove checkpoints in ``top/`` that are not among the best, and what a kill left."""
        kept = {self.folder / each.folder for each in self.top}
        for path in set((self.folder / TOP).glob("*")) - kept:
            shutil.rmtree(path)

    @contextmanager
    def curves_drawn(self) -> Iterator[None]:
        """Draw the curves where the block ends before the run is finished.

        Not where something ends it that is no error for a person to mend, such as a second Ctrl-C.
        """
        try:
            yield
        except CrowdCountError:
            self._draw_curves()
            raise
        if not self.record.finished:
            self._draw_curves()

    def finish(self) -> None:
        """Draw the curves, say that the run is finished, and drop the state, which is large."""
        self._draw_curves()
        self.record = dataclasses.replace(self.record, finished=True, best=self.best)
        write_json(self.folder / RECORD, dataclasses.asdict(self.record))
        (self.folder / STATE).unlink(missing_ok=True)
        (self.folder / LOCK).unlink(missing_ok=True)

    def _draw_curves(self) -> None:
        """What the log says as a picture, where it says anything."""
        lines = read_log(self.folder / LOG)
        if lines:
            curves = draw_curves(lines, title=self.name, split=self.config.train.select_on)
            write_bytes(self.folder / CURVES, curves)

    def keep_evidence(self, error: NotFiniteError) -> NotFiniteError:
        """Save what reproduces a step that was not finite; gives the error that says so."""
        path = self.folder / DIVERGED
        error.evidence.save(path)
        return NotFiniteError(
            error.evidence, finite_prediction=error.finite_prediction, saved=str(path)
        )


def read_record(folder: Path) -> RunRecord:
    """What a run is made from.

    Raises:
        InputMissingError: If there is no run in ``folder``.
        BadInputError: If its record is damaged or of another version.
    """
    path = folder / RECORD
    try:
        return TypeAdapter(RunRecord).validate_json(path.read_bytes())
    except OSError as error:
        raise InputMissingError(
            f"{folder}: no training run", looked_for=f"{RECORD} in it"
        ) from error
    except pydantic.ValidationError as error:
        raise BadInputError(
            f"{path}: not the record of a run of this version",
            next_step="start the run again, with --force",
        ) from error


def is_locked(folder: Path) -> bool:
    """Whether another process trains the run in ``folder``."""
    path = folder / LOCK
    if not path.exists():
        return False
    with path.open("r+") as stream:
        try:
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False
