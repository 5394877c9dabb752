"""The command ``eval``."""

import json
import logging
import os
from pathlib import Path
from typing import Annotated

import typer

from crowdcount.cli import options
from crowdcount.cli.console import Settings, command, tracker
from crowdcount.core.limits import MAX_PIXELS

log = logging.getLogger("crowdcount")


@command
def evaluate(
    data: options.Data = None,
    checkpoint: options.Checkpoint = None,
    fold: options.Fold = None,
    split: Annotated[str, typer.Option(help="val, test, train or calibration.")] = "val",
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Also write one line an image to this file.")
    ] = None,
    json_: options.Json = False,
    fail_if: Annotated[
        list[str] | None,
        typer.Option("--fail-if", metavar="METRIC>VALUE", help="Exit 5 where this holds."),
    ] = None,
    scale: options.Scale = None,
    max_pixels: options.MaxPixels = MAX_PIXELS,
    device: options.Device = "auto",
    precision: options.Precision = "fp32",
    offline: options.Offline = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    *,
    console: Settings,
) -> None:
    """Measure a counter on prepared data: MAE, RMSE and NAE of image counts.

    Example: crowdcount eval --split test --json
    """
    from crowdcount.models.checkpoints.names import resolve_checkpoint

    model = resolve_checkpoint(checkpoint, environment=os.environ, offline=offline)
    # Imports PyTorch, which takes seconds: a missing checkpoint is reported before.
    from crowdcount.data.prepared.dataset import PreparedDataset
    from crowdcount.data.prepared.find import find_prepared, one_data_set
    from crowdcount.errors import GateFailedError
    from crowdcount.files import refuse_existing
    from crowdcount.workflows.counter import load
    from crowdcount.workflows.evaluate import Gate
    from crowdcount.workflows.evaluate import evaluate as run_evaluation

    gates = [Gate.parse(text) for text in fail_if or ()]
    refuse_existing(csv, force=force)
    folders = one_data_set(find_prepared(data or (), environment=os.environ), chosen=bool(data))
    sets = [PreparedDataset.open(folder) for folder in folders]
    if fold is not None:
        sets = [each.with_fold(fold) for each in sets]
    names = ", ".join(each.name for each in sets)
    log.info("model %s, split %s of %s", model, split, names)
    if dry_run:
        images = sum(len(each.records(split)) for each in sets)
        log.info("%d images to count%s", images, f", to be listed in {csv}" if csv else "")
        return
    counter = load(model, device=device, precision=precision)
    result = run_evaluation(
        counter, sets, split=split, scale=scale, max_pixels=max_pixels, track=tracker(console)
    )
    if csv is not None:
        result.write_csv(csv)
    metrics = result.to_json()
    if json_:
        typer.echo(json.dumps(metrics))
    else:
        for name in ("mae", "rmse", "nae", "images"):
            typer.echo(f"{name}\t{_number(metrics[name])}")
        if result.selected_on != "val":
            typer.echo(f"selected_on\t{result.selected_on}")
    if len(result.sets) > 1:
        for name, part in result.sets.items():
            log.info("%s: MAE %.2f RMSE %.2f, %d images", name, part.mae, part.rmse, part.images)
    if result.mean_guess is not None:
        log.info("always guessing the training mean: MAE %.2f", result.mean_guess.mae)
    failed = [str(gate) for gate in gates if gate.fails(result.metrics)]
    if failed:
        raise GateFailedError(f"the gate failed: {', '.join(failed)}")


def _number(value: float | int | None) -> str:
    if value is None:
        return "nan"
    return str(value) if isinstance(value, int) else f"{value:.4f}"
