"""List training runs and compare them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from crowdcount.config import differing_settings
from crowdcount.errors import BadInputError, CrowdCountError, InputMissingError, UsageError
from crowdcount.runs.folder import (
    LOG,
    RECORD,
    RUNS_FOLDER,
    RunFolder,
    RunRecord,
    is_locked,
    run_folders,
)
from crowdcount.runs.log import Line, best_line, epochs_done, read_log

T = TypeVar("T")

HASH_LENGTH = 8
"""Characters of a hash that are shown."""


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """Summary of one run."""

    name: str
    started: str
    """Date and time in UTC."""

    data: tuple[str, ...]
    backbone: str
    epochs_done: int
    epochs: int
    """Epochs in the settings."""

    state: str
    """``finished``, ``running`` or ``unfinished``."""

    best_mae: float | None
    """MAE of the best validation so far; None: nothing was validated."""

    best_epoch: int | None
    selected_on: str
    """Split for validation."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Several runs side by side: for each name, the value of every run."""

    runs: tuple[str, ...]
    settings: Mapping[str, tuple[Any, ...]]
    """Settings and other inputs of the runs that differ between them."""

    metrics: Mapping[str, tuple[float | None, ...]]
    """Their results; None: unknown."""


def list_runs(runs: Path = RUNS_FOLDER) -> tuple[list[RunSummary], list[CrowdCountError]]:
    """List the runs in a folder by start, and the problems of damaged ones.

    Raises:
        InputMissingError: If there is none.
    """
    folders = run_folders(runs)
    if not folders:
        raise InputMissingError(
            f"{runs}: there are no runs",
            looked_for=str(runs / "*" / RECORD),
            next_step="start one: crowdcount train",
        )
    summaries, problems = [], []
    for folder in folders:
        try:
            summaries.append(summary(RunFolder.open(folder)))
        except CrowdCountError as error:
            problems.append(error)
    return sorted(summaries, key=lambda run: run.started), problems


def summary(run: RunFolder) -> RunSummary:
    """Summarise a run.

    Raises:
        BadInputError: If its log is damaged.
    """
    log = read_log(run.folder / LOG)
    best = best_line(log)
    if run.record.finished:
        state = "finished"
    else:
        state = "running" if is_locked(run.folder) else "unfinished"
    return RunSummary(
        name=run.name,
        started=run.record.started,
        data=tuple(Path(source.folder).name for source in run.record.data),
        backbone=run.config.model.backbone,
        epochs_done=epochs_done(log),
        epochs=run.config.train.epochs,
        state=state,
        best_mae=None if best is None else _validated(run, best)["mae"],
        best_epoch=None if best is None else best["epoch"],
        selected_on=run.config.train.select_on,
    )


def compare(runs: Sequence[RunFolder]) -> Comparison:
    """Compare runs: the inputs that differ, and the results.

    Raises:
        UsageError: If there are fewer than two.
        BadInputError: If a log is damaged.
    """
    if len(runs) < 2:
        raise UsageError(
            f"there is nothing to compare {', '.join(run.name for run in runs) or 'nothing'} with",
            next_step="name two runs or more: crowdcount runs compare RUN RUN",
        )
    differing: dict[str, None] = {}
    for run in runs[1:]:
        differing |= dict.fromkeys(differing_settings(runs[0].config, run.config))
    flat = [run.config.flat() for run in runs]
    settings = {key: tuple(values[key] for values in flat) for key in differing}
    inputs = _transposed([_inputs(run.record) for run in runs])
    return Comparison(
        runs=tuple(run.name for run in runs),
        settings={key: values for key, values in inputs.items() if len(set(values)) > 1} | settings,
        metrics=_transposed([_metrics(run) for run in runs]),
    )


def _validated(run: RunFolder, line: Line) -> Mapping[str, Any]:
    """Return the validation of an epoch.

    Raises:
        BadInputError: If it has none.
    """
    metrics = line.get(run.config.train.select_on)
    if not isinstance(metrics, dict) or not {"mae", "rmse", "nae"} <= metrics.keys():
        raise BadInputError(f"{run.folder / LOG}: epoch {line['epoch']} has no validation")
    return metrics


def _inputs(record: RunRecord) -> dict[str, str]:
    """Return the inputs of a run besides its settings, as text."""
    bins = record.bins
    return {
        "data": ", ".join(
            f"{Path(source.folder).name} ({source.manifest_sha256[:HASH_LENGTH]})"
            for source in record.data
        ),
        "fold": "-" if record.fold is None else str(record.fold),
        "bins": ", ".join(
            f"{start}: {value:g}" for start, value in zip(bins.starts, bins.values, strict=True)
        ),
        "device": record.device,
        "threads": str(record.threads),
        "torch": record.torch,
        "deterministic": str(record.deterministic).lower(),
        "init": "-"
        if record.init is None
        else f"{record.init.name} ({record.init.weights_sha256[:HASH_LENGTH]})",
    }


def _metrics(run: RunFolder) -> dict[str, float | None]:
    """Return the results of a run and its duration."""
    log = read_log(run.folder / LOG)
    best = best_line(log)
    metrics = {} if best is None else _validated(run, best)
    seconds = math.fsum(line.get("seconds", 0) for line in log)
    images = sum(line.get("images", 0) for line in log)
    return {
        "mae": metrics.get("mae"),
        "rmse": metrics.get("rmse"),
        "nae": metrics.get("nae"),
        "best_epoch": None if best is None else best["epoch"],
        "epochs": epochs_done(log),
        "loss": log[-1].get("loss") if log else None,
        "seconds": seconds,
        "images_per_second": images / seconds if seconds else None,
    }


def _transposed(columns: Sequence[Mapping[str, T]]) -> dict[str, tuple[T, ...]]:
    """Return for each key its values in all columns. All columns have the same keys."""
    return {key: tuple(column[key] for column in columns) for key in columns[0]}
