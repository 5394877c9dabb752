"""Which prepared data and which checkpoint a command means when it is not told."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from crowdcount.data.prepared.dataset import MANIFEST
from crowdcount.errors import InputMissingError, UsageError
from crowdcount.files import point_link
from crowdcount.models.checkpoints.names import (
    CHECKPOINT_VARIABLE,
    STARTER,
    checkpoint_folder,
    starter_ships,
)
from crowdcount.runs.folder import RECORD, is_locked, read_record

DATA_FOLDER = Path("data")
RUNS_FOLDER = Path("runs")
DATA_VARIABLE = "CROWDCOUNT_DATA_DIR"


def find_prepared(
    given: Sequence[Path] = (),
    *,
    environment: Mapping[str, str],
    directory: Path = Path(),
) -> list[Path]:
    """The prepared data sets meant: those given, else of the environment, else all under ``data/``.

    Args:
        given: Prepared folders, or folders that hold some.
        environment: Environment variables; ``CROWDCOUNT_DATA_DIR`` names a folder like the above.
        directory: What relative paths start from.

    Raises:
        InputMissingError: If there is none.
    """
    if not given and DATA_VARIABLE in environment:
        given = [Path(environment[DATA_VARIABLE])]
    if not given:
        given = [directory / DATA_FOLDER]
    found = [prepared for folder in given for prepared in _prepared_in(folder)]
    return list(dict.fromkeys(found))


def one_data_set(found: Sequence[Path], *, chosen: bool) -> list[Path]:
    """The data sets to use together: all that were chosen, or the only one there is.

    Raises:
        UsageError: If nobody chose and there are several.
    """
    if chosen or len(found) == 1:
        return list(found)
    raise UsageError(
        "several prepared data sets are here and none was chosen",
        looked_for=", ".join(str(path) for path in found),
        next_step=f"name one, or several to be used together: --data {found[0]}",
    )


def _prepared_in(folder: Path) -> list[Path]:
    if (folder / MANIFEST).is_file():
        return [folder]
    if folder.is_dir():
        inside = [path.parent for path in sorted(folder.glob(f"*/{MANIFEST}"))]
        if inside:
            return inside
    raise InputMissingError(
        f"{folder}: no prepared data set",
        looked_for=f"{folder / MANIFEST} and {folder / '*' / MANIFEST}",
        next_step="prepare one: crowdcount preprocess SOURCE, or name one: --data FOLDER",
    )


def find_checkpoint(
    given: str | Path | None, *, environment: Mapping[str, str], directory: Path = Path()
) -> Path:
    """The checkpoint meant: given, else of the environment, of the latest run, else the starter.

    What is given or in the environment is named as for
    :func:`crowdcount.models.checkpoints.names.checkpoint_folder`.

    Raises:
        InputMissingError: If there is none.
    """
    if given is None and CHECKPOINT_VARIABLE in environment:
        given = environment[CHECKPOINT_VARIABLE]
    if given is None:
        given = (directory / RUNS_FOLDER / "latest").resolve()
        if not given.exists() and starter_ships():
            given = STARTER
        elif not given.exists():
            raise InputMissingError(
                "there is no model to count with",
                looked_for=f"--checkpoint, {CHECKPOINT_VARIABLE} and {RUNS_FOLDER / 'latest'}; "
                "no model ships with this version",
                next_step="train one: crowdcount train, or see a small one at work: "
                "crowdcount demo",
            )
    return checkpoint_folder(given)


def find_run(name: str, *, runs: Path = RUNS_FOLDER) -> Path:
    """The run to resume: the one named, or, for ``auto``, the latest unfinished one.

    One that another process is training is taken only where there is no other; where all are
    finished, the latest of them.

    Raises:
        InputMissingError: If there is none.
    """
    if name != "auto":
        return Path(name)
    folders = [path.parent for path in runs.glob(f"*/{RECORD}") if not path.parent.is_symlink()]
    if not folders:
        raise InputMissingError(
            "--resume auto: there is no run to resume",
            looked_for=str(runs / "*" / RECORD),
            next_step="start one: crowdcount train",
        )

    def rank(folder: Path) -> tuple[bool, bool, str]:
        record = read_record(folder)
        return not record.finished, not is_locked(folder), record.started

    return max(folders, key=rank)


def new_run_folder(name: str, *, date: str, runs: Path = RUNS_FOLDER) -> Path:
    """A run folder that is not there yet: ``<date>-<name>``, numbered where that is taken."""
    folder = runs / f"{date}-{name}"
    number = 2
    while folder.exists():
        folder = runs / f"{date}-{name}-{number}"
        number += 1
    return folder


def mark_latest(run: Path) -> None:
    """Let ``latest`` beside a run point at it."""
    point_link(run.parent / "latest", run)
