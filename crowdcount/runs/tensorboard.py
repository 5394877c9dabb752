"""The log of a run as TensorBoard shows it: one event file in the folder of the run.

Everything in it follows from the lines of the log and the start of the run, so it is made anew
from them when a run is resumed: what was logged after the state that training goes on from is in
neither.
"""

import io
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from crowdcount.errors import InputMissingError
from crowdcount.runs.log import Line

EVENTS = "events.out.tfevents."
"""How the name of an event file begins; TensorBoard knows it by that."""

STEP = "train/epoch"
"""The horizontal axis; a number of its own would say nothing."""

VERSION = "brain.Event:2"


def check_installed() -> None:
    """See that the package is there before a run begins.

    Raises:
        InputMissingError: If it is not.
    """
    try:
        import tensorboard  # noqa: F401 - only to see whether it is there
    except ImportError as error:
        raise InputMissingError(
            "train.tensorboard: TensorBoard is not installed",
            next_step="pip install 'crowdcount-ebc[tensorboard]', or leave out --tensorboard: "
            "log.jsonl and curves.png say the same",
        ) from error


def rewrite_events(folder: Path, log: Sequence[Line], *, started: str) -> None:
    """Put one event file with the whole log in place of those that are in the folder of a run.

    Its name holds the time: a TensorBoard that shows the run reads files in the order of their
    names, and drops the epochs it had where a later file has them again.

    Args:
        folder: The run.
        log: Its lines.
        started: When the run began, as its record says.
    """
    for path in folder.glob(f"{EVENTS}*"):
        path.unlink()
    path = folder / f"{EVENTS}{time.time_ns()}"
    path.write_bytes(_records(log, started=started, version=True))


def append_events(folder: Path, log: Sequence[Line], *, started: str) -> None:
    """Add the last line of the log to the event file of a run; make one where there is none."""
    paths = sorted(folder.glob(f"{EVENTS}*"))
    if not paths:
        rewrite_events(folder, log, started=started)
        return
    with paths[-1].open("ab") as stream:
        stream.write(_records(log, since=len(log) - 1, started=started))


def scalars(line: Line) -> dict[str, float]:
    """Every number of a line of the log but the epoch, by its tag.

    Numbers are called ``train/loss`` and the like; those within a mapping after it: ``val/mae``,
    ``val_sets/sha/mae``.
    """
    alone = {key: value for key, value in line.items() if not isinstance(value, Mapping)}
    within = {key: value for key, value in line.items() if isinstance(value, Mapping)}
    return {tag: value for tag, value in _numbers({"train": alone} | within) if tag != STEP}


def _numbers(values: Mapping[str, Any], *, path: str = "") -> Iterator[tuple[str, float]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, path=f"{path}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{path}{key}", float(value)


def _records(log: Sequence[Line], *, since: int = 0, started: str, version: bool = False) -> bytes:
    """The lines of the log from number ``since`` on as they stand in an event file.

    The time of a line is that of the start plus that of all steps up to it, so that a stop leaves
    no gap.

    Args:
        log: The whole log.
        since: Lines to leave out.
        started: When the run began.
        version: Begin with the version, as a file must.
    """
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    now = datetime.fromisoformat(started).timestamp()
    stream = io.BytesIO()
    records = RecordWriter(stream)
    if version:
        records.write(Event(wall_time=now, file_version=VERSION).SerializeToString())
    for number, line in enumerate(log):
        now += float(line["seconds"])
        if number >= since:
            values = [
                Summary.Value(tag=tag, simple_value=value) for tag, value in scalars(line).items()
            ]
            event = Event(wall_time=now, step=line["epoch"], summary=Summary(value=values))
            records.write(event.SerializeToString())
    return stream.getvalue()
