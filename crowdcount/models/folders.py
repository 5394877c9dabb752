"""Where checkpoints lie: the one that ships with the package, and those that people name."""

import importlib.resources
from pathlib import Path

from crowdcount.errors import InputMissingError

STARTER = "starter"
"""The name of the shipped checkpoint. A folder that is called so is written ``./starter``."""

CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.safetensors"


def starter_folder() -> Path:
    """Where the shipped checkpoint is, or would be: not every version ships one."""
    return Path(str(importlib.resources.files("crowdcount"))) / STARTER


def starter_ships() -> bool:
    """Whether this version has a starter."""
    return (starter_folder() / CONFIG_NAME).is_file()


def checkpoint_folder(name: str | Path) -> Path:
    """The checkpoint that is named: the shipped one, a checkpoint's folder, or a run's.

    A run folder stands for its best checkpoint, or its last where it was never validated.

    Args:
        name: The text ``starter`` is the shipped one. Other text, and every ``Path``, is a folder.

    Raises:
        InputMissingError: If there is none.
    """
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


def called(folder: Path) -> str:
    """A checkpoint's folder for people: the shipped one by its name, others by their path."""
    if folder == starter_folder():
        return f"{STARTER} (ships with crowdcount)"
    return str(folder)
