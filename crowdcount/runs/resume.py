"""Checks before a run is resumed: settings, data, first weights, machine."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

import torch

from crowdcount.config import RunConfig, differing_settings
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.data.prepared.manifest import MANIFEST
from crowdcount.errors import InputMissingError, UsageError
from crowdcount.models.checkpoints.names import ResolvedCheckpoint
from crowdcount.runs.folder import DataSource, RunFolder, initial_weights
from crowdcount.training.config import FREE_ON_RESUME

log = logging.getLogger("crowdcount")


def check_settings(run: RunFolder, config: RunConfig) -> None:
    """Refuse settings that would change the results of a run.

    Raises:
        UsageError: If there are any; the message lists them.
    """
    differing = differing_settings(run.config, config)
    listed = "; ".join(
        f"{key}: was {was!r}, now {now!r}"
        for key, (was, now) in differing.items()
        if key not in FREE_ON_RESUME
    )
    if listed:
        raise UsageError(
            f"{run.folder}: these settings differ from those it was started with: {listed}",
            next_step="leave them out, or start a new run with them, without --resume",
        )


def check_init(run: RunFolder, init: ResolvedCheckpoint | None) -> None:
    """Check that the checkpoint a run starts from still holds the same weights.

    Raises:
        UsageError: If it holds other weights.
    """
    recorded = run.record.init
    if init is not None and recorded is not None and initial_weights(init) != recorded:
        raise UsageError(
            f"{run.folder}: no state was saved yet, and {init.name} has other weights now than "
            "when the run was started",
            looked_for=f"weights with the SHA-256 {recorded.weights_sha256}",
            next_step="restore them, or start a new run",
        )


def data_of_run(
    run: RunFolder, data: Sequence[PreparedDataset] | None = None
) -> Sequence[PreparedDataset]:
    """Return the data that a run was started with, and check that it is unchanged.

    It is read from the recorded folders unless it is passed as ``data``.

    Raises:
        UsageError: If it is other data.
        InputMissingError: If it has moved from the recorded place.
    """
    record = run.record
    data = _recorded_data(run) if data is None else data
    actual = [DataSource.of(dataset).manifest_sha256 for dataset in data]
    expected = [source.manifest_sha256 for source in record.data]
    if actual != expected:
        folders = ", ".join(str(dataset.folder) for dataset in data)
        raise UsageError(
            f"{run.folder}: was started with other data than {folders}",
            looked_for=f"manifests with the SHA-256 {', '.join(expected)}",
            next_step="prepare the data as before, name its folder (--data), or start a new run",
        )
    if any(dataset.fold != record.fold for dataset in data):
        held_out = (
            "the images that preprocess held out" if record.fold is None else f"fold {record.fold}"
        )
        raise UsageError(
            f"{run.folder}: was started with {held_out} for validation",
            next_step="leave out --fold" if record.fold is None else f"--fold {record.fold}",
        )
    return data


def warn_of_differences(run: RunFolder, device: torch.device) -> None:
    """Warn about differences (device, threads, torch) that break bit-exact resumption."""
    record = run.record
    now = {"device": str(device), "threads": torch.get_num_threads(), "torch": torch.__version__}
    changes = [
        f"{name} {getattr(record, name)} before, {value} now"
        for name, value in now.items()
        if getattr(record, name) != value
    ]
    if device.type == "cuda" and not record.deterministic:
        changes.append("CUDA without --deterministic")
    if changes:
        log.warning(
            "%s continues, but not bit for bit as without the stop: %s",
            run.folder,
            "; ".join(changes),
        )


def _recorded_data(run: RunFolder) -> list[PreparedDataset]:
    folders = [Path(source.folder) for source in run.record.data]
    for folder in folders:
        # Path.is_file() raises an error for a name that is too long, as a damaged record may hold.
        if not os.path.isfile(folder / MANIFEST):  # noqa: PTH113
            raise InputMissingError(
                f"{run.folder}: its data has moved or was deleted",
                looked_for=str(folder / MANIFEST),
                next_step="name its folder: --data FOLDER",
            )
    data = [PreparedDataset.open(folder) for folder in folders]
    fold = run.record.fold
    return data if fold is None else [dataset.with_fold(fold) for dataset in data]
