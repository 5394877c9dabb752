"""The log of a run: one line an epoch, its curves, and what people are told meanwhile."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from crowdcount.core.metrics import CountMetrics
from crowdcount.drawing.charts import Panel, line_chart
from crowdcount.errors import BadInputError
from crowdcount.training.loop import EpochReport
from crowdcount.wording import duration

Line = Mapping[str, Any]

WORTH_SAYING = 0.05
"""Share of the time spent waiting for data above which the line of an epoch names it."""


def read_log(path: Path) -> list[Line]:
    """The lines of a run's log.

    A last line without its end is one that is being written, or that a kill cut off; it is left
    out.

    Raises:
        BadInputError: If the file is not there, or a line is none of a log.
    """
    try:
        *lines, _ = path.read_text(encoding="utf-8").split("\n")
        read = [json.loads(line) for line in lines]
    except (OSError, ValueError, RecursionError) as error:
        raise BadInputError(f"{path}: not the log of a run: {error}") from error
    for number, line in enumerate(read, start=1):
        if not (isinstance(line, dict) and isinstance(line.get("epoch"), int)):
            raise BadInputError(f"{path}: line {number} is none of the log of a run")
    return read


def best_line(log: Sequence[Line]) -> Line | None:
    """The epoch whose weights are the best so far; None: nothing was validated."""
    return next((line for line in reversed(log) if line.get("best")), None)


def epochs_done(log: Sequence[Line]) -> int:
    """Epochs that were brought to their end."""
    return max((line["epoch"] for line in log if line.get("complete")), default=0)


def draw_curves(log: Sequence[Line], *, title: str, split: str) -> bytes:
    """Loss and its parts, learning rates and validation error over epochs, as a PNG file.

    They hold no times, so those of a run that was stopped and resumed are those of one that was
    not.

    Args:
        log: At least one epoch.
        title: What stands above.
        split: What the run was validated on.
    """
    panels = [
        Panel(
            ylabel="loss",
            lines={
                "total": _points(log, "loss"),
                "classification": _points(log, "classification"),
                "count": _points(log, "count"),
            },
            log=True,
        ),
        Panel(ylabel="learning rate", lines=_learning_rates(log)),
    ]
    validated = [line for line in log if line.get(split)]
    if validated:
        sets = {name: None for line in validated for name in line.get(f"{split}_sets") or {}}
        lines = {split: [(float(line["epoch"]), line[split]["mae"]) for line in validated]} | {
            name: [
                (float(line["epoch"]), line[f"{split}_sets"][name]["mae"])
                for line in validated
                if name in line[f"{split}_sets"]
            ]
            for name in sets
        }
        panels.append(Panel(ylabel="MAE, heads", lines=lines))
    return line_chart(title=title, xlabel="epoch", panels=panels)


def _learning_rates(log: Sequence[Line]) -> dict[str, list[tuple[float, float]]]:
    """Two lines only where encoder and head differ."""
    head, encoder = _points(log, "lr"), _points(log, "encoder_lr")
    return {"all": head} if head == encoder else {"head": head, "encoder": encoder}


def _points(log: Sequence[Line], key: str) -> list[tuple[float, float]]:
    return [(float(line["epoch"]), float(line[key])) for line in log if line.get(key) is not None]


def epoch_in_words(
    report: EpochReport,
    metrics: CountMetrics | None,
    *,
    sets: Mapping[str, CountMetrics],
    split: str,
    epochs: int,
    better: bool,
    seconds_left: float | None,
) -> str:
    """One line on an epoch for people; it names the wait for data where there is much of it.

    Args:
        report: What happened in it.
        metrics: Its validation, if there was one.
        sets: The validation of each data set.
        split: What was validated on.
        epochs: Epochs of the whole run.
        better: Whether that is the best so far.
        seconds_left: How long the rest of the run may take, as far as that can be told.
    """
    parts = [
        f"epoch {report.epoch}/{epochs}",
        f"loss {report.loss:.2f}",
        f"{report.images_per_second:.1f} images/s",
    ]
    if report.waiting > WORTH_SAYING:
        parts.append(f"{report.waiting:.0%} waiting for data")
    if metrics is not None:
        parts.append(f"{split} MAE {metrics.mae:.2f} RMSE {metrics.rmse:.2f}")
        if len(sets) > 1:
            errors = ", ".join(f"{name} {each.mae:.2f}" for name, each in sets.items())
            parts[-1] += f" ({errors})"
    if better:
        parts.append("best")
    if seconds_left:
        parts.append(f"{duration(seconds_left)} left")
    return "  ".join(parts)


class Pace:
    """The speed of a training run since this process works on it.

    Validations and checkpoints count in; what an earlier process did, and the time since, do not.
    """

    def __init__(
        self, *, total: int, done: int = 0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin to measure.

        Args:
            total: Steps of the whole run.
            done: Steps that were done before.
            clock: Gives seconds.
        """
        self._total, self._done, self._clock = total, done, clock
        self._began = clock()

    def seconds_left(self, done: int) -> float | None:
        """Time to the last step after ``done`` steps of the run; None: there is no telling yet."""
        taken = done - self._done
        if taken < 1:
            return None
        return (self._total - done) * (self._clock() - self._began) / taken
