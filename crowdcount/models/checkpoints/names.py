"""Names of checkpoints: the shipped model, folders of checkpoints and runs, the model hub."""

import importlib.resources
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from crowdcount.errors import InputMissingError
from crowdcount.files import present_folder
from crowdcount.models.checkpoints.hub import HUB_PREFIX, HubName, hub_folder

log = logging.getLogger("crowdcount")

STARTER = "starter"
"""The name of the shipped checkpoint. A folder with this name is written ``./starter``."""

CHECKPOINT_VARIABLE = "CROWDCOUNT_CHECKPOINT"
"""The environment variable that names the default checkpoint."""

LATEST_RUN = Path("runs") / "latest"
"""The run to count with by default, relative to the working directory."""

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
README_NAME = "README.md"
"""The card as text, in repositories of the model hub."""


@dataclass(frozen=True, kw_only=True)
class ResolvedCheckpoint:
    """A checkpoint on this machine."""

    path: Path
    """Its folder."""

    name: str
    """The name that the user gave; for a checkpoint of the model hub with its commit."""

    revision: str | None = None
    """Commit on the model hub; None: a checkpoint of this machine."""

    def __str__(self) -> str:
        if self.path == starter_folder():
            return f"{STARTER} (ships with crowdcount)"
        return str(self.path) if self.revision is None else self.name


def resolve_checkpoint(
    given: str | Path | ResolvedCheckpoint | None,
    *,
    environment: Mapping[str, str] | None = None,
    directory: Path = Path(),
    offline: bool = False,
) -> ResolvedCheckpoint:
    """Find the checkpoint that a name means; download it if it is on the model hub.

    Imports neither PyTorch nor the hub's client unless the name is one of the hub.

    Args:
        given: The text ``starter``: the shipped model. Text that starts with ``hf://``: a
            repository of the model hub. Other text, and every ``Path``: a folder of a checkpoint,
            or of a run, whose best checkpoint is taken, or its last if it was never validated.
            None: the name in ``environment``, else the latest run, else the starter.
        environment: Environment variables; ``CROWDCOUNT_CHECKPOINT`` holds a name as above.
        directory: The folder that holds ``runs``.
        offline: Download nothing; a checkpoint of the hub must be in the cache.

    Raises:
        InputMissingError: If there is no such checkpoint, or it cannot be downloaded.
        UsageError: If a repository name has the wrong form.
        UntrustedFileError: If a downloaded file differs from the one that the hub lists.
    """
    if given is None:
        given = (environment or {}).get(CHECKPOINT_VARIABLE)
    if given is None:
        given = _default(directory)
    if isinstance(given, ResolvedCheckpoint):
        return given
    if isinstance(given, str) and given.startswith(HUB_PREFIX):
        source = HubName.parse(given)
        needed, useful = (CONFIG_NAME, WEIGHTS_NAME), (README_NAME,)
        folder = hub_folder(source, needed=needed, useful=useful, offline=offline)
        pinned = HubName(source.repository, folder.name)
        return ResolvedCheckpoint(path=folder, name=str(pinned), revision=folder.name)
    path = _checkpoint_in(starter_folder() if given == STARTER else Path(given))
    if path is not None:
        return ResolvedCheckpoint(path=path, name=str(given))
    next_step = "name a checkpoint or a run, such as runs/latest"
    if given == STARTER:
        raise InputMissingError(
            f"{STARTER}: no model ships with this version",
            looked_for=f"{starter_folder()}; a folder of your own is written ./{STARTER}",
            next_step=next_step,
        )
    raise InputMissingError(
        f"{given}: no checkpoint",
        looked_for=f"{CONFIG_NAME} in it, in its best/ and in its last/",
        next_step=next_step,
    )


def starter_folder() -> Path:
    """Return the folder of the shipped checkpoint, which not every version has."""
    return Path(str(importlib.resources.files("crowdcount"))) / STARTER


def starter_ships() -> bool:
    """Return whether this version ships a starter."""
    return (starter_folder() / CONFIG_NAME).is_file()


def _default(directory: Path) -> str | Path:
    """Return the latest run that holds a checkpoint, or the starter if there was never a run."""
    latest = directory / LATEST_RUN
    if _checkpoint_in(latest) is not None:
        return latest.resolve()
    runs = [run for run in latest.parent.glob("[!.]*/") if _checkpoint_in(run) is not None]
    if runs:
        newest = max(runs, key=lambda run: run.stat().st_mtime)
        log.warning("%s holds no checkpoint; the newest run that does is %s", latest, newest)
        return newest
    if latest.is_symlink():
        raise InputMissingError(
            f"{latest}: points at {latest.readlink()}, which holds no checkpoint",
            next_step=f"count with --checkpoint {STARTER}, or finish a run: "
            "crowdcount train --resume auto",
        )
    if starter_ships():
        return STARTER
    raise InputMissingError(
        "there is no model to count with",
        looked_for=f"--checkpoint, {CHECKPOINT_VARIABLE} and {LATEST_RUN}; "
        "no model ships with this version",
        next_step="train one: crowdcount train, or see a small one at work: crowdcount demo",
    )


def _checkpoint_in(folder: Path) -> Path | None:
    """Return the folder of a checkpoint, or the best or last one of a run; None: there is none."""
    folders = map(present_folder, (folder, folder / "best", folder / "last"))
    return next((path for path in folders if (path / CONFIG_NAME).is_file()), None)
