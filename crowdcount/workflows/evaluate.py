"""Evaluation of a counter on a split of prepared data sets."""

import csv
import dataclasses
import io
import logging
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crowdcount.core.limits import MAX_PIXELS
from crowdcount.core.metrics import CountMetrics, count_metrics
from crowdcount.core.progress import Track, untracked
from crowdcount.data.prepared.dataset import PreparedDataset
from crowdcount.data.prepared.find import open_prepared
from crowdcount.errors import UsageError
from crowdcount.files import write_text
from crowdcount.models.checkpoints.names import ResolvedCheckpoint
from crowdcount.workflows.counter import Counter, load

log = logging.getLogger("crowdcount")

COMPARISONS = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


def parse_gate(text: str) -> Callable[[CountMetrics], bool]:
    """Read a condition such as ``mae>60``, and return a function that says whether it holds.

    A metric that is not defined fails every gate.

    Raises:
        UsageError: If the text is not a condition of this form.
    """
    match = re.fullmatch(r"\s*(mae|rmse|nae)\s*(>=|<=|>|<)\s*([0-9.eE+-]+)\s*", text)
    try:
        metric, comparison, number = match.groups()  # type: ignore[union-attr]
        bound = float(number)
    except (AttributeError, ValueError):
        raise UsageError(
            f"--fail-if {text}: expected mae, rmse or nae, then >, >=, < or <=, then a number",
            next_step='quote it for the shell: --fail-if "mae>60"',
        ) from None

    def fails(metrics: CountMetrics) -> bool:
        value = getattr(metrics, metric)
        return value is None or COMPARISONS[comparison](value, bound)

    return fails


@dataclass(frozen=True, kw_only=True)
class ImageResult:
    """Predicted and true count of one image."""

    data: str
    name: str
    path: Path
    predicted: float
    heads: int


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Errors of a counter on a split."""

    metrics: CountMetrics
    results: tuple[ImageResult, ...]
    split: str
    data: tuple[str, ...]
    model: str

    sets: dict[str, CountMetrics]
    """Metrics of each data set with images in this split, by name, or by folder where names are
    equal."""

    mean_guess: CountMetrics | None
    """Errors of always guessing the mean count of the training images; None: unknown."""

    selected_on: str
    """Split on which the weights were selected."""

    warnings: tuple[str, ...] = ()
    """Reasons why the model looks better on these images than on others."""

    def to_json(self) -> dict[str, Any]:
        """Convert the metrics to one flat mapping."""
        return {
            **dataclasses.asdict(self.metrics),
            "mean_guess_mae": None if self.mean_guess is None else self.mean_guess.mae,
            "sets": {name: dataclasses.asdict(metrics) for name, metrics in self.sets.items()},
            "selected_on": self.selected_on,
            "split": self.split,
            "data": list(self.data),
            "model": self.model,
        }

    def write_csv(self, path: Path) -> None:
        """Write one line per image: data set, name, file, predicted and true count, error."""
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["data", "image", "path", "predicted", "heads", "error"])
        for image in self.results:
            error = image.predicted - image.heads
            row = [image.data, image.name, image.path, image.predicted, image.heads, error]
            writer.writerow(row)
        write_text(path, table.getvalue())


def evaluate(
    counter: Counter,
    data: Sequence[PreparedDataset],
    *,
    split: str = "val",
    scale: float | None = None,
    max_pixels: int = MAX_PIXELS,
    track: Track = untracked,
) -> Evaluation:
    """Count every image of a split and compare with its annotation.

    The log warns where the model looks better on these images than it does on others.

    Args:
        counter: The counter.
        data: Prepared data sets, evaluated together.
        split: ``val``, ``test``, ``train`` or ``calibration``.
        scale: Factor by which images are resized, in place of the counter's working size.
        max_pixels: Largest size of an image, checked before it is decoded.
        track: Progress reporting.

    Raises:
        InputMissingError: If a data set does not have the split.
    """
    names = [source.name for source in data]
    images = [
        (source.name if names.count(source.name) == 1 else str(source.folder), source, record)
        for source in data
        for record in source.records(split)
    ]
    warnings = _warnings(counter, folds=[source.fold for source in data], split=split)
    for warning in warnings:
        log.warning("%s", warning)
    results: list[ImageResult] = []
    sets: dict[str, list[ImageResult]] = {}
    for label, source, record in track(images, label=f"counting {split}"):
        path = source.image_path(record)
        total = counter.count(path, scale=scale, max_pixels=max_pixels).total
        result = ImageResult(
            data=source.name, name=record.name, path=path, predicted=total, heads=record.heads
        )
        results.append(result)
        sets.setdefault(label, []).append(result)
    mean = counter.provenance.mean_heads
    guesses = [] if mean is None else [dataclasses.replace(r, predicted=mean) for r in results]
    return Evaluation(
        metrics=_metrics(results),
        results=tuple(results),
        split=split,
        data=tuple(names),
        model=counter.name,
        sets={label: _metrics(part) for label, part in sets.items()},
        selected_on=counter.provenance.selected_on,
        warnings=tuple(warnings),
        mean_guess=_metrics(guesses) if guesses else None,
    )


def evaluate_checkpoint(
    model: ResolvedCheckpoint,
    folders: Sequence[Path],
    *,
    environment: Mapping[str, str],
    fold: int | None = None,
    split: str = "val",
    scale: float | None = None,
    max_pixels: int = MAX_PIXELS,
    device: str = "auto",
    precision: str = "fp32",
    dry_run: bool = False,
    track: Track = untracked,
) -> Evaluation | None:
    """Evaluate a checkpoint on prepared folders as :func:`evaluate` does; None for a dry run.

    See :func:`open_prepared` for the folders and the fold, and
    :func:`crowdcount.workflows.counter.load` for the device and the precision.
    """
    data = open_prepared(folders, environment=environment, fold=fold)
    log.info("model %s, split %s of %s", model, split, ", ".join(source.name for source in data))
    if dry_run:
        images = sum(len(source.records(split)) for source in data)
        log.info("%d images to count", images)
        return None
    counter = load(model, device=device, precision=precision)
    return evaluate(counter, data, split=split, scale=scale, max_pixels=max_pixels, track=track)


def _warnings(counter: Counter, *, folds: Sequence[int | None], split: str) -> list[str]:
    """Return the reasons why the errors of a counter on a split are smaller than on others."""
    provenance = counter.provenance
    warnings = [
        f"{counter.name} was not trained with "
        f"{'what preprocess held out' if fold is None else f'fold {fold}'} for validation, "
        "so it may have seen these images"
        for fold in dict.fromkeys(folds)
        if split != "test" and fold != provenance.fold
    ]
    if split == provenance.selected_on == "test":
        warnings.append(
            f"{counter.name} was selected on test images, so it counts them better than others"
        )
    return warnings


def _metrics(results: Sequence[ImageResult]) -> CountMetrics:
    return count_metrics(
        [result.predicted for result in results], [float(result.heads) for result in results]
    )
