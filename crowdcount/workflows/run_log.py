"""The log of a run: one line an epoch, and the curves it draws."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crowdcount.drawing.charts import Panel, line_chart
from crowdcount.errors import BadInputError

Line = Mapping[str, Any]


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
