"""The command ``demo``."""

from pathlib import Path
from typing import Annotated

import typer

from crowdcount.cli import options
from crowdcount.cli.bins import log_bins
from crowdcount.cli.console import log, log_table, print_paths


def demo(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Folder of the demo; replaces an earlier demo.")] = Path(
        "crowdcount-demo"
    ),
    device: options.Device = "auto",
    dry_run: options.DryRun = False,
) -> None:
    """Run every step on rendered crowds: data, bins, training, evaluation, a heatmap.

    Needs no network and under three minutes on two cores. Prints the path of the heatmap.

    Example: crowdcount demo
    """
    from crowdcount.cli.train import TrainingBar
    from crowdcount.workflows.demo import plan_demo, run_demo

    if dry_run:
        log.info("%s", plan_demo(out))
        return
    with TrainingBar(context.obj) as bar:
        result = run_demo(out, device=device, watcher=bar, track=context.obj.track)
    log_bins(result.bins)
    metrics, guess = result.evaluation.metrics, result.evaluation.mean_guess
    log.info("on %d unseen scenes:", metrics.images)
    rows = [("this model", f"{metrics.mae:.1f}", f"{metrics.rmse:.1f}")]
    if guess is not None:
        rows.append(("always the training mean", f"{guess.mae:.1f}", f"{guess.rmse:.1f}"))
    log_table(("", "MAE", "RMSE"), rows)
    log.info(
        "%s: %d heads, counted %.1f", result.example, result.example_heads, result.example_count
    )
    log.info("heatmap %s, took %.0f s", result.heatmap, result.seconds)
    print_paths([result.heatmap])
