"""TensorBoard events of a run, written from its log."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path

from crowdcount.errors import InputMissingError
from crowdcount.runs.log import Line

EVENTS = "events.out.tfevents."
"""The beginning of the name of an event file."""


def check_installed() -> None:
    """Check that the package is installed.

    Raises:
        InputMissingError: If it is not.
    """
    try:
        import tensorboard  # noqa: F401 - only to see whether it is there
    except ImportError as error:
        raise InputMissingError(
            "train.tensorboard: TensorBoard is not installed",
            next_step="pip install 'crowdcount-ebc[tensorboard]', or leave out --tensorboard: "
            "log.jsonl and curves.png hold the same numbers",
        ) from error


class EventWriter:
    """Writes the lines of a run's log as TensorBoard events."""

    def __init__(self, folder: Path, log: Sequence[Line], *, started: str) -> None:
        """Replace the event files of a run by one that holds its log so far.

        The time of a line is ``started``, in ISO format, plus the seconds of all epochs up to it,
        so a stop leaves no gap.
        """
        from torch.utils.tensorboard import SummaryWriter

        for path in folder.glob(f"{EVENTS}*"):
            path.unlink()
        self._time = datetime.fromisoformat(started).timestamp()
        # purge_step lets a running TensorBoard drop the events of the removed files.
        self._writer = SummaryWriter(str(folder), purge_step=1)
        for line in log:
            self.add(line)

    def add(self, line: Line) -> None:
        """Write a line."""
        self._time += float(line["seconds"])
        for tag, value in scalars(line).items():
            self._writer.add_scalar(tag, value, line["epoch"], walltime=self._time)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


def scalars(line: Line, *, prefix: str = "") -> dict[str, float]:
    """Return every number of a line but the epoch, by tag.

    Numbers of training are called ``train/loss`` and the like, those of a validation ``val/mae``
    and ``val_sets/sha/mae``.
    """
    tags: dict[str, float] = {}
    for key, value in line.items():
        if isinstance(value, Mapping):
            tags |= scalars(value, prefix=f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and key != "epoch":
            tags[f"{prefix or 'train/'}{key}"] = float(value)
    return tags
