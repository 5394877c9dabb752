"""The runs that are there: what came of each, and where several differ."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from crowdcount.config import differing_settings
from crowdcount.core.bins import Bins
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

SHOWN_OF_A_HASH = 8
"""Characters of a hash that tell one data set from another."""


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One run, in short."""

    name: str
    started: str
    """Date and time in UTC."""

    data: tuple[str, ...]
    backbone: str
    epochs_done: int
    epochs: int
    """Epochs asked for."""

    state: str
    """``finished``, ``running`` or ``unfinished``."""

    best_mae: float | None
    """Of the best validation so far; None: nothing was validated."""

    best_epoch: int | None
    selected_on: str
    """Split that was validated on."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Runs side by side: for each name, a value of every run in turn."""

    runs: tuple[str, ...]
    settings: Mapping[str, tuple[Any, ...]]
    """Settings, and other things that runs are made from, that are not the same in all."""

    metrics: Mapping[str, tuple[float | None, ...]]
    """What came of them; None: not known."""


def list_runs(runs: Path = RUNS_FOLDER) -> tuple[list[RunSummary], list[CrowdCountError]]:
    """All runs in a folder, from the earliest on, and what is wrong with those that are damaged.

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
    return sorted(summaries, key=lambda each: each.started), problems


def find_named(name: str, *, runs: Path = RUNS_FOLDER) -> RunFolder:
    """The run in the folder ``name``, or else in the folder of that name under ``runs``.

    Raises:
        InputMissingError: If there is none.
        BadInputError: If it is damaged.
    """
    for folder in (Path(name), runs / name):
        if (folder / RECORD).is_file():
            return RunFolder.open(folder)
    raise InputMissingError(
        f"{name}: no training run",
        looked_for=f"{Path(name) / RECORD} and {runs / name / RECORD}",
        next_step="see which there are: crowdcount runs",
    )


def summary(run: RunFolder) -> RunSummary:
    """What a run is and how far it is.

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
    """Put runs side by side.

    Raises:
        UsageError: If there are not at least two.
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
    trees = [run.config.to_mapping() for run in runs]
    settings = {
        key: tuple(tree[section].get(name) for tree in trees)
        for key, (section, name) in ((key, key.split(".", 1)) for key in differing)
    }
    made_from = _transposed([_made_from(run.record) for run in runs])
    return Comparison(
        runs=tuple(run.name for run in runs),
        settings={key: values for key, values in made_from.items() if len(set(values)) > 1}
        | settings,
        metrics=_transposed([_metrics(run) for run in runs]),
    )


def _validated(run: RunFolder, line: Line) -> Mapping[str, Any]:
    """The validation of an epoch that had one."""
    found = line.get(run.config.train.select_on)
    if not isinstance(found, dict) or not {"mae", "rmse", "nae"} <= found.keys():
        raise BadInputError(f"{run.folder / LOG}: epoch {line['epoch']} has no validation")
    return found


def _made_from(record: RunRecord) -> dict[str, str]:
    """What decides the weights of a run beside its settings, as text."""
    bins = Bins.from_json(record.bins)
    return {
        "data": ", ".join(
            f"{Path(source.folder).name} ({source.manifest_sha256[:SHOWN_OF_A_HASH]})"
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
        else f"{record.init.name} ({record.init.weights_sha256[:SHOWN_OF_A_HASH]})",
    }


def _metrics(run: RunFolder) -> dict[str, float | None]:
    """What came of a run, and how long it took."""
    log = read_log(run.folder / LOG)
    best = best_line(log)
    found = {} if best is None else _validated(run, best)
    seconds = math.fsum(line.get("seconds", 0) for line in log)
    images = sum(line.get("images", 0) for line in log)
    return {
        "mae": found.get("mae"),
        "rmse": found.get("rmse"),
        "nae": found.get("nae"),
        "best_epoch": None if best is None else best["epoch"],
        "epochs": epochs_done(log),
        "loss": log[-1].get("loss") if log else None,
        "seconds": seconds,
        "images_per_second": images / seconds if seconds else None,
    }


def _transposed(columns: Sequence[Mapping[str, T]]) -> dict[str, tuple[T, ...]]:
    """For each key, which all columns have, its value in every column."""
    return {key: tuple(column[key] for column in columns) for key in columns[0]}
