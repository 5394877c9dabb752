"""Where checkpoints lie: the one that ships, those of folders and runs, those of the model hub."""

import importlib.resources
from pathlib import Path

from crowdcount.errors import InputMissingError
from crowdcount.models.checkpoints.hub import HUB_PREFIX, HubName, hub_folder

STARTER = "starter"
"""The name of the shipped checkpoint. A folder that is called so is written ``./starter``."""

CHECKPOINT_VARIABLE = "CROWDCOUNT_CHECKPOINT"
"""The environment variable that names the checkpoint where nothing else does."""

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"
README_NAME = "README.md"
"""The card in words, of checkpoints on the model hub."""


def starter_folder() -> Path:
    """Where the shipped checkpoint is, or would be: not every version ships one."""
    return Path(str(importlib.resources.files("crowdcount"))) / STARTER


def starter_ships() -> bool:
    """Whether this version has a starter."""
    return (starter_folder() / CONFIG_NAME).is_file()


def checkpoint_folder(name: str | Path, *, offline: bool = False) -> Path:
    """The checkpoint that is named: the shipped one, a checkpoint's folder, a run's, or the hub's.

    A run folder stands for its best checkpoint, or its last where it was never validated. One of
    the model hub is fetched into the cache of its client.

    Args:
        name: The text ``starter`` is the shipped one; text that starts with ``hf://`` is a
            repository of the model hub. Other text, and every ``Path``, is a folder.
        offline: Download nothing: of the hub's, take what is in the cache.

    Raises:
        InputMissingError: If there is none, or it cannot be fetched.
        UsageError: If the name of a repository is not written like one.
        UntrustedFileError: If what was fetched is not what the hub lists.
    """
    if isinstance(name, str) and name.startswith(HUB_PREFIX):
        return hub_folder(
            HubName.parse(name),
            needed=(CONFIG_NAME, WEIGHTS_NAME),
            useful=(README_NAME,),
            offline=offline,
        )
    if name == STARTER:
        if not starter_ships():
            raise InputMissingError(
                f"{STARTER}: no model ships with this version",
                looked_for=f"{starter_folder()}; a folder of your own is written ./{STARTER}",
                next_step="name a checkpoint or a run, such as runs/latest",
            )
        return starter_folder()
    given = Path(name)
    for folder in (given, given / "best", given / "last"):
        if (folder / CONFIG_NAME).is_file():
            return folder
    raise InputMissingError(
        f"{given}: no checkpoint",
        looked_for=f"{CONFIG_NAME} in it, in its best/ and in its last/",
        next_step="name a checkpoint or a run, such as runs/latest",
    )


def lasting_name(name: str, *, offline: bool = False) -> str:
    """The name of a checkpoint that means the same tomorrow: one of the hub's gets its commit.

    Raises:
        CrowdCountError: As from :func:`checkpoint_folder`, of the hub's alone.
    """
    if not name.startswith(HUB_PREFIX):
        return name
    return str(HubName.of_folder(checkpoint_folder(name, offline=offline)))


def called(folder: Path) -> str:
    """A checkpoint's folder for people: the shipped one and the hub's by name, others by path."""
    if folder == starter_folder():
        return f"{STARTER} (ships with crowdcount)"
    return str(HubName.of_folder(folder) or folder)
