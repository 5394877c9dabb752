"""The folder of a training run: its settings, its log, its checkpoints and its state.

::

    runs/2026-11-24-sha-clip-rn50/
      run.json         the inputs besides the settings; whether the run is finished
      settings.toml    all settings
      log.jsonl        one line for each epoch
      curves.png       the log as curves, drawn when training ends or stops
      events.out.*     the log for TensorBoard, with ``train.tensorboard``
      best/  last/     checkpoints
      top/epoch-0012/  with ``train.keep_best`` of 2 and more: the best ones, ``best/`` among them
      state.pt         the state that ``--resume`` continues from; removed when the run is finished
      diverged.pt      reproduces the step that was not finite
    runs/.2026-11-24-sha-clip-rn50.lock
                       exists while a process trains the run
"""

import dataclasses
import datetime
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import pydantic
import tomli_w
import torch
from pydantic import TypeAdapter

from crowdcount.config import RunConfig
from crowdcount.core.bins import Bins, StoredBins
from crowdcount.core.metrics import CountMetrics
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.data.prepared.manifest import MANIFEST
from crowdcount.errors import BadInputError, CrowdCountError, InputMissingError, UsageError
from crowdcount.files import (
    append_text,
    atomic_folder,
    is_temporary,
    point_link,
    read_toml,
    sha256_file,
    write_bytes,
    write_json,
    write_text,
)
from crowdcount.models.block_counter import BlockCounter
from crowdcount.models.checkpoints.card import Card, InitialWeights
from crowdcount.models.checkpoints.format import describe
from crowdcount.models.checkpoints.names import WEIGHTS_NAME, ResolvedCheckpoint
from crowdcount.runs.checkpoints import BEST, LAST, Checkpoints
from crowdcount.runs.log import draw_curves, read_log
from crowdcount.training.loop import EpochReport
from crowdcount.training.state import Learner, SavedState, load_state, save_state

try:
    import fcntl
except ImportError:  # on Windows
    HAS_LOCKS = False
else:
    HAS_LOCKS = True

log = logging.getLogger("crowdcount")

RUNS_FOLDER = Path("runs")
RECORD = "run.json"
SETTINGS = "settings.toml"
LOG = "log.jsonl"
CURVES = "curves.png"
STATE = "state.pt"
DIVERGED = "diverged.pt"


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """A prepared data set of a run."""

    folder: str
    manifest_sha256: str
    """Hash of its manifest, which holds the hashes of all its files."""

    @classmethod
    def of(cls, data: PreparedDataset) -> "DataSource":
        """Return the place and hash of a data set."""
        folder = data.folder.resolve()
        return cls(folder=str(folder), manifest_sha256=sha256_file(folder / MANIFEST))


def initial_weights(init: ResolvedCheckpoint) -> InitialWeights:
    """Return the name and hash of the checkpoint that a training starts from."""
    name = describe(init.path).card.name or init.path.name
    return InitialWeights(name=name, weights_sha256=sha256_file(init.path / WEIGHTS_NAME))


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Inputs of a run besides its settings, which determine its weights, and its result."""

    format: Literal[1] = 1
    started: str
    """Date and time in UTC."""

    data: tuple[DataSource, ...]
    fold: int | None
    bins: StoredBins
    device: str
    threads: int
    """Threads of PyTorch on the CPU, which determine the order in which it adds."""

    torch: str
    deterministic: bool
    init: InitialWeights | None = None
    """None: new weights."""

    finished: bool = False
    best: CountMetrics | None = None
    """Validation of the best checkpoint of a finished run."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return dataclasses.asdict(self) | {"bins": self.bins.to_json()}


class RunFolder:
    """A run on disk.

    Attributes:
        folder: Its folder.
        name: The name of that folder.
        config: Its settings.
        record: Its other inputs, and its result.
        checkpoints: The checkpoints it keeps.
    """

    def __init__(self, folder: Path, *, config: RunConfig, record: RunRecord) -> None:
        """Represent an existing folder; use :meth:`create` or :meth:`open`."""
        self.folder = folder
        self.name = folder.name
        self.config = config
        self.record = record
        self.checkpoints = Checkpoints(folder, keep_best=config.train.keep_best)
        self.checkpoints.best = record.best

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        config: RunConfig,
        data: Sequence[PreparedDataset],
        bins: Bins,
        init: ResolvedCheckpoint | None,
        device: torch.device,
        deterministic: bool,
    ) -> "RunFolder":
        """Begin a run: replace ``folder``, or the folder that a link points at."""
        folder = _real(folder)
        record = RunRecord(
            started=datetime.datetime.now(datetime.UTC).isoformat(),
            data=tuple(map(DataSource.of, data)),
            fold=data[0].fold,
            bins=bins,
            device=str(device),
            threads=torch.get_num_threads(),
            torch=torch.__version__,
            deterministic=deterministic,
            init=None if init is None else initial_weights(init),
        )
        with atomic_folder(folder) as temporary:
            write_text(temporary / SETTINGS, tomli_w.dumps(config.to_mapping()))
            write_json(temporary / RECORD, record.to_json())
            (temporary / LOG).touch()
        return cls(folder, config=config, record=record)

    @classmethod
    def open(cls, folder: Path) -> "RunFolder":
        """Read the run in ``folder``, or in the folder that a link points at.

        Raises:
            InputMissingError: If there is none.
            BadInputError: If its record or its settings are damaged.
            ConfigError: If this version does not know its settings.
        """
        folder = _real(folder)
        record = read_record(folder)
        path = folder / SETTINGS
        try:
            settings = read_toml(path)
        except (OSError, ValueError) as error:
            raise BadInputError(f"{path}: cannot be read: {error}") from error
        return cls(folder, config=RunConfig.from_mapping(settings), record=record)

    @property
    def best(self) -> CountMetrics | None:
        """The best validation so far."""
        return self.checkpoints.best

    @property
    def checkpoint(self) -> Path:
        """The best checkpoint, or the last if nothing was validated."""
        return self.folder / (LAST if self.best is None else BEST)

    def rewind(self) -> SavedState | None:
        """Bring the folder back to its latest state and return that; None: to the beginning.

        Log lines and checkpoints that are newer than the state go, as does everything that a
        killed process left half-written.

        Raises:
            BadInputError: If the state is damaged.
        """
        state_path, log_path = self.folder / STATE, self.folder / LOG
        state = load_state(state_path) if state_path.exists() else None
        self.checkpoints.rewind(None if state is None else state.run)
        for path in list(self.folder.iterdir()):
            # Earlier versions kept their lock inside.
            if is_temporary(path) or path.name == ".lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        log_bytes = 0 if state is None else int(state.run["log_bytes"])
        write_bytes(log_path, log_path.read_bytes()[:log_bytes])
        return state

    def save_state(self, learner: Learner, *, extra: Mapping[str, Any]) -> None:
        """Save the state of training, with plain values that :meth:`rewind` returns."""
        log_bytes = (self.folder / LOG).stat().st_size
        run = {"log_bytes": log_bytes, **self.checkpoints.to_state(), **extra}
        save_state(self.folder / STATE, learner, run=run)
        self.checkpoints.mark_saved()

    def record_epoch(
        self,
        report: EpochReport,
        model: BlockCounter,
        *,
        metrics: CountMetrics | None,
        sets: Mapping[str, CountMetrics],
        card: Card,
    ) -> dict[str, Any]:
        """Save the checkpoints of an epoch, log it and return the line of the log.

        Args:
            report: The course of the epoch.
            model: The model to keep.
            metrics: Its validation, if there was one.
            sets: The validation of each data set, recorded if there are several.
            card: The card of the checkpoint, but for epoch and metrics.
        """
        split = self.config.train.select_on
        measured: dict[str, CountMetrics | dict[str, CountMetrics]] = {}
        if metrics is not None:
            measured[split] = metrics
            if len(self.record.data) > 1:
                measured[f"{split}_sets"] = dict(sets)
        provenance = dataclasses.replace(card.provenance, epoch=report.epoch)
        card = dataclasses.replace(card, provenance=provenance, metrics=measured)
        best = self.checkpoints.add(model, epoch=report.epoch, metrics=metrics, card=card)
        line: dict[str, Any] = (
            dataclasses.asdict(report) | {split: None} | card.to_json()["metrics"]
        )
        line["best"] = best
        append_text(self.folder / LOG, json.dumps(line, allow_nan=False) + "\n")
        return line

    @contextmanager
    def curves_drawn(self) -> Iterator[None]:
        """Draw the curves when the block ends before the run is finished.

        A bug or a second Ctrl-C ends it without curves.
        """
        try:
            yield
        except CrowdCountError:
            self._draw_curves()
            raise
        if not self.record.finished:
            self._draw_curves()

    def finish(self) -> None:
        """Draw the curves, record the run as finished, and remove its large state."""
        self._draw_curves()
        self.record = dataclasses.replace(self.record, finished=True, best=self.best)
        write_json(self.folder / RECORD, self.record.to_json())
        (self.folder / STATE).unlink(missing_ok=True)
        self.checkpoints.finish()

    def _draw_curves(self) -> None:
        lines = read_log(self.folder / LOG)
        if lines:
            curves = draw_curves(lines, title=self.name, split=self.config.train.select_on)
            write_bytes(self.folder / CURVES, curves)


def _real(folder: Path) -> Path:
    return folder.resolve() if folder.is_symlink() else folder


def read_record(folder: Path) -> RunRecord:
    """Read the record of the run in ``folder``.

    Raises:
        InputMissingError: If there is no run.
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


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from training the run in ``folder`` while the block runs.

    The lock is a file beside the folder, so replacing the folder does not release it. The system
    releases it when the process ends, in whatever way. Parents made for it are removed again if
    they stay empty. Systems without ``fcntl``, such as Windows, lock nothing.

    Raises:
        UsageError: If another process trains the run.
    """
    if not HAS_LOCKS:
        yield
        return
    path = _lock_path(folder)
    missing = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        # If its last owner removed the file after it was opened here, locking it stops nobody.
        if not (_acquire(stream, fcntl.LOCK_EX) and _is_at(path, stream)):
            raise UsageError(
                f"{folder}: another process trains this run", next_step="wait for it, or stop it"
            )
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            for parent in missing:
                with suppress(OSError):  # it is not empty
                    parent.rmdir()


def is_locked(folder: Path) -> bool:
    """Return whether another process trains the run in ``folder``."""
    try:
        with _lock_path(folder).open() as stream:
            return not _acquire(stream, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def _lock_path(folder: Path) -> Path:
    folder = folder.resolve()
    return folder.parent / f".{folder.name}.lock"


def _acquire(stream: IO[str], kind: int) -> bool:
    """Lock a file without waiting; return whether that succeeded."""
    try:
        fcntl.lockf(stream, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_at(path: Path, stream: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False


def run_folders(runs: Path = RUNS_FOLDER) -> list[Path]:
    """Return the folders of all runs in ``runs``, by name."""
    folders = sorted(path.parent for path in runs.glob(f"*/{RECORD}"))
    return [folder for folder in folders if not folder.is_symlink()]


def find_run(name: str, *, runs: Path = RUNS_FOLDER) -> RunFolder:
    """Open a run by its folder, or by its name under ``runs``; ``auto`` chooses one to resume.

    ``auto`` is the latest unfinished run. One that another process trains is chosen only if there
    is no other, and a finished one only if all are finished. Damaged runs are left out with a
    warning.

    Raises:
        InputMissingError: If there is no such run.
        BadInputError: If it is damaged.
    """
    if name != "auto":
        for folder in (Path(name), runs / name):
            if (folder / RECORD).is_file():
                return RunFolder.open(folder)
        raise InputMissingError(
            f"{name}: no training run",
            looked_for=f"{Path(name) / RECORD} and {runs / name / RECORD}",
            next_step="list the runs: crowdcount runs",
        )
    candidates = []
    for folder in run_folders(runs):
        try:
            candidates.append(RunFolder.open(folder))
        except CrowdCountError as error:
            log.warning("--resume auto leaves out a damaged run, %s: %s", folder, error.message)
    if not candidates:
        raise InputMissingError(
            "--resume auto: there is no run to resume",
            looked_for=str(runs / "*" / RECORD),
            next_step="start one: crowdcount train",
        )
    return max(
        candidates,
        key=lambda run: (not run.record.finished, not is_locked(run.folder), run.record.started),
    )


def new_run_folder(name: str, *, date: str, runs: Path = RUNS_FOLDER) -> Path:
    """Return an unused run folder, ``<date>-<name>``, numbered if that is taken."""
    folder = runs / f"{date}-{name}"
    number = 2
    while folder.exists() or is_locked(folder):
        folder = runs / f"{date}-{name}-{number}"
        number += 1
    return folder


def mark_latest(run: Path) -> None:
    """Point the link ``latest`` beside a run at it; leave a real file or folder of that name."""
    link = run.parent / "latest"
    if link == run:
        return
    try:
        point_link(link, run)
    except OSError as error:
        log.warning("%s does not point at this run: %s", link, error)
