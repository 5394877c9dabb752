"""The command ``predict``."""

import csv
import io
import json
import logging
import os
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crowdcount.cli import options
from crowdcount.cli.console import Settings, command, tracker, write_out
from crowdcount.core.limits import MAX_PIXELS

if TYPE_CHECKING:
    from crowdcount.workflows.predict import Prediction

log = logging.getLogger("crowdcount")

CSV_FIELDS = (
    "path",
    "width",
    "height",
    "count",
    "model",
    "heatmap",
    "error",
)


class Format(StrEnum):
    """How counts are written."""

    text = "text"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"


@command
def predict(
    images: Annotated[list[Path], typer.Argument(help="Image files.", show_default=False)],
    checkpoint: options.Checkpoint = None,
    heatmap: Annotated[
        bool,
        typer.Option("--heatmap", help="Draw the counts over each image.", show_default=False),
    ] = False,
    heatmap_dir: Annotated[
        Path | None,
        typer.Option(help="Folder for the heatmaps. (default: heatmaps)", show_default=False),
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="Form of the output.")] = Format.text,
    json_: Annotated[
        bool, typer.Option("--json", help="Short for --format json.", show_default=False)
    ] = False,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Short for --format jsonl.", show_default=False)
    ] = False,
    count_only: Annotated[
        bool, typer.Option("--count-only", help="Print the number alone.", show_default=False)
    ] = False,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write to; - is stdout.")
    ] = Path("-"),
    scale: options.Scale = None,
    max_pixels: options.MaxPixels = MAX_PIXELS,
    device: options.Device = "auto",
    precision: options.Precision = "fp32",
    offline: options.Offline = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first image that fails.")
    ] = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    *,
    console: Settings,
) -> None:
    """Count the people in photographs.

    Prints the path, a tab and the count, one image a line.

    Example: crowdcount predict img.jpg --heatmap
    """
    from crowdcount.errors import UsageError
    from crowdcount.files import refuse_existing, write_bytes
    from crowdcount.models.checkpoints.names import resolve_checkpoint

    chosen = {
        *([Format.json] if json_ else []),
        *([Format.jsonl] if jsonl else []),
        *([format_] if format_ is not Format.text else []),
    }
    if len(chosen) > 1 or (chosen and count_only):
        raise UsageError("choose one of --format, --json, --jsonl and --count-only")
    form = chosen.pop() if chosen else Format.text
    to_stdout = str(output) == "-"
    refuse_existing(None if to_stdout else output, force=force)
    model = resolve_checkpoint(checkpoint, environment=os.environ, offline=offline)
    # Imports PyTorch, which takes seconds: a missing checkpoint is reported before.
    from crowdcount.workflows import predict as workflow
    from crowdcount.workflows.counter import load

    workflow.require_some(images)
    log.info("model %s", model)
    heatmaps = (heatmap_dir or workflow.HEATMAP_FOLDER) if heatmap or heatmap_dir else None
    if dry_run:
        log.info("%d images to count into %s", len(images), "stdout" if to_stdout else output)
        for path in workflow.heatmap_paths(images, folder=heatmaps) if heatmaps else ():
            log.info("heatmap to draw %s", path)
        return
    predictions = workflow.predict(
        load(model, device=device, precision=precision),
        images,
        scale=scale,
        max_pixels=max_pixels,
        heatmaps=heatmaps,
        force=force,
        strict=strict,
    )
    tally = _Tally()
    watched = tally.watch(tracker(console)(predictions, label="counting", total=len(images)))
    pieces = _FORMATS[form](watched) if not count_only else _counts(watched)
    if to_stdout:
        for piece in pieces:
            write_out(piece)
    else:
        write_bytes(output, b"".join(pieces))
    if tally.failed:
        log.error("%d of %d images failed", tally.failed, len(images))
        raise typer.Exit(4)


class _Tally:
    """Counts failures while records pass by, and tells people of failures and heatmaps."""

    def __init__(self) -> None:
        self.failed = 0

    def watch(self, predictions: Iterable["Prediction"]) -> Iterator["Prediction"]:
        for each in predictions:
            if each.error is not None:
                self.failed += 1
                log.error("%s", each.error)
            if each.heatmap is not None:
                log.info("heatmap %s", each.heatmap)
            yield each


def _text(predictions: Iterable["Prediction"]) -> Iterator[bytes]:
    for each in predictions:
        yield _escaped(each.path) + b"\t" + _rounded(each)


def _counts(predictions: Iterable["Prediction"]) -> Iterator[bytes]:
    for each in predictions:
        yield _rounded(each)


def _rounded(prediction: "Prediction") -> bytes:
    return b"nan\n" if prediction.count is None else f"{prediction.count:.1f}\n".encode()


def _escaped(path: Path) -> bytes:
    r"""A path on one line of text: backslash, tab and newline written ``\\``, ``\t``, ``\n``."""
    raw = os.fsencode(path)
    return raw.replace(b"\\", b"\\\\").replace(b"\t", b"\\t").replace(b"\n", b"\\n")


def _json(predictions: Iterable["Prediction"]) -> Iterator[bytes]:
    yield (json.dumps([each.to_json() for each in predictions], indent=2) + "\n").encode()


def _jsonl(predictions: Iterable["Prediction"]) -> Iterator[bytes]:
    for each in predictions:
        yield (json.dumps(each.to_json()) + "\n").encode()


def _csv(predictions: Iterable["Prediction"]) -> Iterator[bytes]:
    row = io.StringIO()
    writer = csv.DictWriter(row, CSV_FIELDS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for each in predictions:
        writer.writerow(each.to_json())
        yield row.getvalue().encode()
        row.seek(0)
        row.truncate()


_FORMATS = {Format.text: _text, Format.json: _json, Format.jsonl: _jsonl, Format.csv: _csv}
