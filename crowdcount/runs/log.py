"""The log of a run: one line for each epoch, as JSON, as curves and as text for people."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import ConfigDict, Field, create_model

from crowdcount.core.metrics import CountMetrics
from crowdcount.core.settings import explain, field_types
from crowdcount.drawing.charts import Panel, line_chart
from crowdcount.errors import BadInputError
from crowdcount.training.loop import EpochReport
from crowdcount.wording import duration

Line = Mapping[str, Any]

_Number = Annotated[int, Field(ge=0, lt=2**63)]
_types: dict[str, Any] = field_types(EpochReport) | {"best": bool}
for _split in ("val", "test"):
    _types |= {_split: CountMetrics | None, f"{_split}_sets": dict[str, CountMetrics] | None}
# Lines of earlier versions lack some of these, but not the epoch.
_fields: dict[str, Any] = {
    name: (_Number if kind is int else kind, ... if name == "epoch" else None)
    for name, kind in _types.items()
}
_LogLine = create_model(
    "_LogLine", __config__=ConfigDict(strict=True, allow_inf_nan=False), **_fields
)

WAITING_SHOWN_ABOVE = 0.05
"""Share of the time spent waiting for data above which an epoch's text names it."""


def read_log(path: Path) -> list[Line]:
    """Read the lines of a log.

    An incomplete last line is left out: it is being written, or a kill cut it off.

    Raises:
        BadInputError: If the file does not exist, or a line is damaged.
    """
    try:
        *lines, _ = path.read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise BadInputError(f"{path}: not the log of a run: {error}") from error
    log = []
    for number, line in enumerate(lines, start=1):
        try:
            log.append(_LogLine.model_validate_json(line).model_dump(exclude_unset=True))
        except pydantic.ValidationError as error:
            problem = explain(error, EpochReport)
            raise BadInputError(
                f"{path}: line {number} is not part of a run's log: {problem}"
            ) from error
    return log


def best_line(log: Sequence[Line]) -> Line | None:
    """Return the line of the best epoch so far; None: nothing was validated."""
    return next((line for line in reversed(log) if line.get("best")), None)


def epochs_done(log: Sequence[Line]) -> int:
    """Return the number of complete epochs."""
    return max((line["epoch"] for line in log if line.get("complete")), default=0)


def draw_curves(log: Sequence[Line], *, title: str, split: str) -> bytes:
    """Draw losses, learning rates and validation errors over epochs, as a PNG file.

    Curves hold no times, so a resumed run has the same curves as one that was not stopped.
    ``split`` is the split for validation.
    """
    losses = {"total": "loss", "classification": "classification", "count": "count"}
    head, encoder = _points(log, "lr"), _points(log, "encoder_lr")
    rates = {"all": head} if head == encoder else {"head": head, "encoder": encoder}
    panels = [
        Panel(ylabel="loss", lines={name: _points(log, losses[name]) for name in losses}, log=True),
        Panel(ylabel="learning rate", lines=rates),
    ]
    validated = [line for line in log if line.get(split)]
    if validated:
        errors = {split: [(float(line["epoch"]), line[split]["mae"]) for line in validated]}
        for line in validated:
            for name, metrics in (line.get(f"{split}_sets") or {}).items():
                errors.setdefault(name, []).append((float(line["epoch"]), metrics["mae"]))
        panels.append(Panel(ylabel="MAE, heads", lines=errors))
    return line_chart(title=title, xlabel="epoch", panels=panels)


def _points(log: Sequence[Line], key: str) -> list[tuple[float, float]]:
    return [(float(line["epoch"]), float(line[key])) for line in log if line.get(key) is not None]


def epoch_summary(line: Line, *, split: str, epochs: int, seconds_left: float) -> str:
    """Summarise an epoch in one line of text.

    ``split`` is the split for validation, ``epochs`` the number of epochs of the whole run.
    """
    parts = [
        f"epoch {line['epoch']}/{epochs}",
        f"loss {line['loss']:.2f}",
        f"{line['images_per_second']:.1f} images/s",
    ]
    if line["waiting"] > WAITING_SHOWN_ABOVE:
        parts.append(f"{line['waiting']:.0%} waiting for data")
    if metrics := line[split]:
        parts.append(f"{split} MAE {metrics['mae']:.2f} RMSE {metrics['rmse']:.2f}")
        if sets := line.get(f"{split}_sets"):
            errors = ", ".join(f"{name} {result['mae']:.2f}" for name, result in sets.items())
            parts[-1] += f" ({errors})"
    if line["best"]:
        parts.append("best")
    if seconds_left:
        parts.append(f"{duration(seconds_left)} left")
    return "  ".join(parts)


def time_left(steps: int, *, total: int, before: int, seconds: float) -> float:
    """Estimate the remaining seconds of a run.

    Args:
        steps: Steps done.
        total: Steps of the whole run.
        before: Steps done by earlier processes, which say nothing about the speed of this one.
        seconds: Time since this process began, validations and checkpoints included.
    """
    return (total - steps) * seconds / (steps - before)
