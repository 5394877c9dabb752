"""Whether a run may go on: with the same settings, on the same data, and where."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from crowdcount.config import RunConfig, differing_settings
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.data.prepared.manifest import MANIFEST
from crowdcount.errors import InputMissingError, UsageError
from crowdcount.runs.folder import DataSource, InitSource, RunFolder
from crowdcount.training.config import FREE_ON_RESUME

log = logging.getLogger("crowdcount")


def check_settings(run: RunFolder, config: RunConfig) -> None:
    """See that a run would not become another one under these settings.

    Raises:
        UsageError: If it would, with each setting that differs.
    """
    differing = differing_settings(run.config, config)
    bound = {key: pair for key, pair in differing.items() if key not in FREE_ON_RESUME}
    if bound:
        listed = "; ".join(f"{key}: was {was!r}, now {now!r}" for key, (was, now) in bound.items())
        raise UsageError(
            f"{run.folder}: these settings are not those it was started with: {listed}",
            next_step="leave them out, or start a new run with them, without --resume",
        )


def check_init(run: RunFolder) -> None:
    """See that a run that begins again starts from the weights that it was begun from.

    Raises:
        InputMissingError: If their checkpoint is not where it was.
        UsageError: If it holds others.
    """
    init, begun = run.config.train.init, run.record.init
    if init is not None and begun is not None and InitSource.of(init) != begun:
        raise UsageError(
            f"{run.folder}: no state was saved yet, and {init} has other weights now than those it "
            "was begun from",
            looked_for=f"weights with the SHA-256 {begun.weights_sha256}",
            next_step="bring them back, or start a new run",
        )


def data_of_run(
    run: RunFolder, given: Sequence[PreparedDataset] | None = None
) -> Sequence[PreparedDataset]:
    """The data that a run was begun with, from where it was or from where it is said to be.

    Raises:
        UsageError: If it is other data.
        InputMissingError: If it is not where it was.
    """
    record = run.record
    data = _where_it_was(run) if given is None else given
    found = [DataSource.of(each).manifest_sha256 for each in data]
    expected = [source.manifest_sha256 for source in record.data]
    if found != expected:
        folders = ", ".join(str(each.folder) for each in data)
        raise UsageError(
            f"{run.folder}: was begun with other data than {folders}",
            looked_for=f"manifests with the SHA-256 {', '.join(expected)}",
            next_step="prepare the data as it was, say where it is (--data), or start a new run",
        )
    if any(each.fold != record.fold for each in data):
        begun = "what preprocess held out" if record.fold is None else f"fold {record.fold}"
        raise UsageError(
            f"{run.folder}: was begun with {begun} for validation",
            next_step="leave out --fold" if record.fold is None else f"--fold {record.fold}",
        )
    return data


def warn_of_another_machine(run: RunFolder, device: torch.device) -> None:
    """Say what lets the numbers of a run come out otherwise than if it had not been stopped."""
    record = run.record
    now = {
        "device": str(device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    changes = [
        f"{name} {getattr(record, name)} before, {value} now"
        for name, value in now.items()
        if getattr(record, name) != value
    ]
    if device.type == "cuda" and not record.deterministic:
        changes.append("CUDA without --deterministic")
    if changes:
        log.warning(
            "%s goes on, but not bit for bit as without the stop: %s",
            run.folder,
            "; ".join(changes),
        )


def _where_it_was(run: RunFolder) -> list[PreparedDataset]:
    folders = [Path(source.folder) for source in run.record.data]
    for folder in folders:
        if not (folder / MANIFEST).is_file():
            raise InputMissingError(
                f"{run.folder}: its data is not there any more",
                looked_for=str(folder / MANIFEST),
                next_step="say where it is now: --data FOLDER",
            )
    data = [PreparedDataset.open(folder) for folder in folders]
    fold = run.record.fold
    return data if fold is None else [each.with_fold(fold) for each in data]
