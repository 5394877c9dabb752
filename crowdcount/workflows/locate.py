"""Folders of runs: the one to resume, a new one, the latest."""

from pathlib import Path

from crowdcount.errors import InputMissingError
from crowdcount.files import point_link
from crowdcount.runs.folder import RECORD, is_locked, read_record

RUNS_FOLDER = Path("runs")


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
