"""The command ``eval``."""

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from crowdcount.cli import options
from crowdcount.cli.console import log
from crowdcount.core.limits import MAX_PIXELS
from crowdcount.errors import GateFailedError
from crowdcount.files import refuse_existing


def evaluate(
    context: typer.Context,
    data: options.Data = None,
    checkpoint: options.Checkpoint = None,
    fold: options.Fold = None,
    split: Annotated[str, typer.Option(help="val, test, train or calibration.")] = "val",
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Also write one line per image to this file.")
    ] = None,
    json_: options.Json = False,
    fail_if: Annotated[
        list[str] | None,
        typer.Option("--fail-if", metavar="METRIC>VALUE", help="Exit 5 if this holds."),
    ] = None,
    scale: options.Scale = None,
    max_pixels: options.MaxPixels = MAX_PIXELS,
    device: options.Device = "auto",
    precision: options.Precision = "fp32",
    offline: options.Offline = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> None:
    """Measure a counter on prepared data: MAE, RMSE and NAE of image counts.

    Example: crowdcount eval --split test --json
    """
    from crowdcount.models.checkpoints.names import resolve_checkpoint

    refuse_existing(csv, force=force)
    model = resolve_checkpoint(checkpoint, environment=os.environ, offline=offline)
    # Imported late: PyTorch takes seconds, and a missing checkpoint is reported first.
    from crowdcount.workflows import evaluate as workflow

    gates = {text: workflow.parse_gate(text) for text in fail_if or ()}
    result = workflow.evaluate_checkpoint(
        model,
        data or (),
        environment=os.environ,
        fold=fold,
        split=split,
        scale=scale,
        max_pixels=max_pixels,
        device=device,
        precision=precision,
        dry_run=dry_run,
        track=context.obj.track,
    )
    if result is None:
        if csv is not None:
            log.info("their counts would be listed in %s", csv)
        return
    if json_:
        typer.echo(json.dumps(result.to_json()))
    else:
        metrics = result.metrics
        for name, value in (("mae", metrics.mae), ("rmse", metrics.rmse), ("nae", metrics.nae)):
            typer.echo(f"{name}\tnan" if value is None else f"{name}\t{value:.4f}")
        typer.echo(f"images\t{metrics.images}")
        if result.selected_on != "val":
            typer.echo(f"selected_on\t{result.selected_on}")
    if len(result.sets) > 1:
        for name, part in result.sets.items():
            log.info("%s: MAE %.2f RMSE %.2f, %d images", name, part.mae, part.rmse, part.images)
    if result.mean_guess is not None:
        log.info("always guessing the training mean: MAE %.2f", result.mean_guess.mae)
    if csv is not None:
        result.write_csv(csv)
    failed = [text for text, fails in gates.items() if fails(result.metrics)]
    if failed:
        raise GateFailedError(f"the gate failed: {', '.join(failed)}")
