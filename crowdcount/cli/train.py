"""The command ``train``."""

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crowdcount.cli import options
from crowdcount.cli.console import (
    Settings,
    command,
    print_paths,
    progress_bar,
    stop_signals,
    tracker,
)

if TYPE_CHECKING:
    from crowdcount.training.loop import EpochReport

SHORT_FORMS = {
    "backbone": "model.backbone",
    "block": "model.block",
    "bins": "model.bins",
    "weights": "model.weights",
    "epochs": "train.epochs",
    "batch_size": "train.batch_size",
    "seed": "train.seed",
    "lr": "optim.lr",
}
"""Flags that stand for a setting."""


@command
def train(
    data: options.Data = None,
    fold: options.Fold = None,
    backbone: Annotated[
        str | None, typer.Option(help="clip-rn50, or timm:NAME. (sets model.backbone)")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="File of first weights. (sets model.weights)")
    ] = None,
    no_pretrained: Annotated[
        bool,
        typer.Option(
            "--no-pretrained",
            help="Start from random weights. (sets model.pretrained=none)",
            show_default=False,
        ),
    ] = False,
    block: Annotated[int | None, typer.Option(help="Block side. (sets model.block)")] = None,
    bins: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|NAME",
            help="Table of bins, or the name of a published one. (sets model.bins)",
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Sets train.epochs.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Sets train.batch_size.")] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate. (sets optim.lr)")] = None,
    seed: Annotated[int | None, typer.Option(help="Sets train.seed.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set any setting, as in loss.count=mae."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Run file with settings (TOML).")] = None,
    preset: Annotated[str | None, typer.Option(help="Run file that ships with us.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder. (default: runs/<date>-<name>)", show_default=False),
    ] = None,
    device: options.Device = "auto",
    offline: Annotated[
        bool,
        typer.Option(
            "--offline",
            envvar="CROWDCOUNT_OFFLINE",
            help="Never download: fail and say what to fetch.",
            show_default=False,
        ),
    ] = False,
    show_batch: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="Draw what the network sees first, with heads and classes, and train nothing.",
            show_default=False,
        ),
    ] = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    *,
    order: list[tuple[str, Any]],
    console: Settings,
) -> None:
    """Train a counter on prepared data and print the folder of its best checkpoint.

    Settings come from flags and --set, CROWDCOUNT_SECTION__KEY variables, --config, --preset and
    crowdcount.toml, the first of these the strongest. Ctrl-C saves the last checkpoint.

    Example: crowdcount train --backbone clip-rn50 --set loss.count=mse
    """
    import tomli_w

    from crowdcount.config import load_run_config, parse_override
    from crowdcount.data.prepared import PreparedDataset
    from crowdcount.workflows.locate import find_prepared, one_data_set
    from crowdcount.workflows.train import plan_training
    from crowdcount.workflows.train import train as run_training

    overrides: list[tuple[str, Any]] = []
    for name, value in order:
        if name == "set_":
            overrides.append(parse_override(value))
        elif name == "no_pretrained":
            overrides.append(("model.pretrained", "none"))
        elif name in SHORT_FORMS:
            overrides.append((SHORT_FORMS[name], value))
    settings = load_run_config(
        config=config,
        preset=preset,
        overrides=overrides,
        environment=os.environ,
        directory=Path(),
    )
    found = find_prepared(data or (), environment=os.environ)
    sets = [PreparedDataset.open(folder) for folder in one_data_set(found, chosen=bool(data))]
    if fold is not None:
        sets = [each.with_fold(fold) for each in sets]
    if dry_run:
        plan = plan_training(settings, sets)
        typer.echo(tomli_w.dumps(settings.to_mapping()), nl=False)
        typer.echo(
            f"# {plan.training_images} training and {plan.validation_images} validation images, "
            f"crops of {plan.crop} pixels"
        )
        return
    if show_batch is not None:
        from crowdcount.workflows.show_batch import show_batch as draw

        draw(settings, sets, show_batch, force=force, track=tracker(console))
        print_paths([show_batch])
        return
    with stop_signals() as received, TrainingBar(console) as bar:
        result = run_training(
            settings,
            sets,
            out=out,
            device=device,
            offline=offline,
            force=force,
            should_stop=lambda: bool(received),
            watcher=bar,
            track=tracker(console),
        )
    print_paths([result.checkpoint])
    if result.interrupted:
        raise typer.Exit(143 if received[0] == signal.SIGTERM else 130)


class TrainingBar:
    """Draws the progress of a training run: steps, loss, best validation so far."""

    def __init__(self, console: Settings) -> None:
        self._progress = progress_bar(console)

    def __enter__(self) -> "TrainingBar":
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def started(self, *, epochs: int, steps: int) -> None:
        """Show the bar."""
        self._task = self._progress.add_task("training", total=epochs * steps, note="")
        self._best = ""
        self._progress.start()

    def stepped(self, loss: float) -> None:
        """Move on by one step."""
        self._progress.update(self._task, advance=1, note=f"loss {loss:.2f}{self._best}")

    def finished_epoch(self, report: "EpochReport", best: float | None) -> None:
        """Remember the best validation."""
        self._best = "" if best is None else f"  best MAE {best:.2f}"
        self._progress.update(self._task, note=f"loss {report.loss:.2f}{self._best}")
