"""The command ``predict``."""

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from crowdcount.cli import options
from crowdcount.cli.console import log, open_output
from crowdcount.core.limits import MAX_PIXELS
from crowdcount.errors import UsageError
from crowdcount.files import refuse_existing


class Format(StrEnum):
    """Format of the counts."""

    text = "text"
    json = "json"
    jsonl = "jsonl"
    csv = "csv"


def predict(
    context: typer.Context,
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    checkpoint: options.Checkpoint = None,
    heatmap: Annotated[
        bool, typer.Option("--heatmap", help="Draw the counts over each image.")
    ] = False,
    heatmap_dir: Annotated[
        Path | None, typer.Option(help="Folder for the heatmaps. (default: heatmaps)")
    ] = None,
    format_: Annotated[
        Format, typer.Option("--format", help="Format of the output.")
    ] = Format.text,
    json_: Annotated[bool, typer.Option("--json", help="Short for --format json.")] = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Short for --format jsonl.")] = False,
    count_only: Annotated[bool, typer.Option("--count-only", help="Print only the count.")] = False,
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
) -> None:
    """Count the people in photographs.

    Prints the path, a tab and the count, one image per line.

    Example: crowdcount predict img.jpg --heatmap
    """
    from crowdcount.models.checkpoints.names import resolve_checkpoint

    flags = {"json": json_, "jsonl": jsonl, "count": count_only, format_: format_ != Format.text}
    chosen = [name for name, is_given in flags.items() if is_given]
    if len(chosen) > 1:
        raise UsageError("choose one of --format, --json, --jsonl and --count-only")
    refuse_existing(None if output == Path("-") else output, force=force)
    model = resolve_checkpoint(checkpoint, environment=os.environ, offline=offline)
    # Imported late: PyTorch takes seconds, and a missing checkpoint is reported first.
    from crowdcount.workflows import predict as workflow
    from crowdcount.workflows.counter import load

    workflow.require_some(images)
    log.info("model %s", model)
    heatmaps = (heatmap_dir or workflow.HEATMAP_FOLDER) if heatmap or heatmap_dir else None
    if dry_run:
        log.info("%d images to count into %s", len(images), output)
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
    tracked = context.obj.track(predictions, label="counting", total=len(images), prints=True)
    with open_output(output) as write:
        form = chosen[0] if chosen else Format.text
        failed = workflow.write_predictions(tracked, form=form, write=write)
    if failed:
        raise typer.Exit(4)
