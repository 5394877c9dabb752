"""The command ``train``."""

import math
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crowdcount.cli import options
from crowdcount.cli.console import (
    Settings,
    command,
    log,
    print_paths,
    print_rows,
    progress_bar,
    stop_signals,
    stops_cleanly,
    tracker,
)
from crowdcount.errors import GateFailedError, UsageError

if TYPE_CHECKING:
    from crowdcount.config import RunConfig
    from crowdcount.data.prepared.dataset import PreparedDataset
    from crowdcount.runs.folder import RunFolder
    from crowdcount.training.loop import EpochReport

SHORT_FORMS = {
    "backbone": "model.backbone",
    "block": "model.block",
    "bins": "model.bins",
    "weights": "model.weights",
    "init": "train.init",
    "epochs": "train.epochs",
    "batch_size": "train.batch_size",
    "seed": "train.seed",
    "lr": "optim.lr",
    "select_on": "train.select_on",
    "cache": "train.cache",
}
"""Flags that stand for a setting."""


@command
def train(
    data: options.Data = None,
    fold: options.Fold = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="clip-rn50, clip-vit-b-16, ..., timm:NAME or open-clip:ARCH/PRETRAINED. "
            "(sets model.backbone)"
        ),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="File of first weights. (sets model.weights)")
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            metavar="CHECKPOINT",
            help="Start from the weights, bins and model settings of a checkpoint or run, of "
            "hf://OWNER/NAME[@REVISION], or of starter, the model that ships with crowdcount. "
            "(sets train.init)",
        ),
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
    select_on: Annotated[
        str | None,
        typer.Option(help="Split to validate and select on: val, test. (sets train.select_on)"),
    ] = None,
    cache: Annotated[
        str | None,
        typer.Option(
            metavar="auto|memory|disk|off",
            help="Where to keep decoded images. (sets train.cache)",
        ),
    ] = None,
    allow_test_selection: Annotated[
        bool,
        typer.Option(
            "--allow-test-selection",
            help="Let --select-on test pass; checkpoint and reports will say so.",
            show_default=False,
        ),
    ] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set any setting, as in loss.count=mae."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Run file with settings (TOML).")] = None,
    preset: Annotated[
        str | None, typer.Option(help="Run file that ships with us: docs/training.md.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Run folder. (default: runs/<date>-<name>)", show_default=False),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN|auto",
            help="Go on with a run that was stopped; auto: the latest unfinished one under runs/.",
            show_default=False,
        ),
    ] = None,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic",
            help="The same bits every time on CUDA, too; slower.",
            show_default=False,
        ),
    ] = False,
    tensorboard: Annotated[
        bool,
        typer.Option(
            "--tensorboard",
            help="Log for TensorBoard, too: tensorboard --logdir runs. (sets train.tensorboard)",
            show_default=False,
        ),
    ] = False,
    device: options.Device = "auto",
    offline: options.Offline = False,
    show_batch: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="Draw what the network sees first, with heads and classes, and train nothing.",
            show_default=False,
        ),
    ] = None,
    overfit: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Only see whether N fixed crops can be learned by heart; exit 5 where not.",
            show_default=False,
        ),
    ] = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    *,
    order: list[tuple[str, Any]],
    given: frozenset[str],
    console: Settings,
) -> None:
    """Train a counter on prepared data and print the folder of its best checkpoint.

    Settings come from flags and --set, CROWDCOUNT_SECTION__KEY variables, --config, --preset and
    crowdcount.toml, the first of these the strongest. A run that was stopped by Ctrl-C, or killed,
    goes on with --resume, to the same weights as if it had never been stopped.

    Example: crowdcount train --backbone clip-rn50 --set loss.count=mse
    """
    from crowdcount.config import RunConfig, given_settings
    from crowdcount.data.prepared.dataset import PreparedDataset
    from crowdcount.data.prepared.find import find_prepared, one_data_set
    from crowdcount.runs.folder import find_run
    from crowdcount.runs.resume import check_settings, data_of_run
    from crowdcount.workflows import train as workflow
    from crowdcount.workflows.plan import new_run_config

    if {"init", "no_pretrained"} <= given:
        raise UsageError(
            "--init starts from weights, --no-pretrained from random ones",
            next_step="leave out one of them",
        )
    run = None if resume is None else find_run(resume)
    if run is not None:
        _refuse_beside_resume(given)
    tree = given_settings(
        config=config,
        preset=preset,
        overrides=_overrides(order),
        environment=os.environ,
        directory=Path() if run is None else None,
        start=None if run is None else run.config,
    )
    # A run that was begun has complete settings, and its first weights may be gone.
    if run is not None:
        settings = RunConfig.from_mapping(tree)
    else:
        settings = new_run_config(tree, offline=offline)
        workflow.check_selection(settings, allow_test=allow_test_selection)
    sets: list[PreparedDataset] | None = None
    if run is None or data:
        found = find_prepared(data or (), environment=os.environ)
        sets = [PreparedDataset.open(folder) for folder in one_data_set(found, chosen=bool(data))]
        if fold is not None:
            sets = [each.with_fold(fold) for each in sets]
    if dry_run:
        if run is not None:
            check_settings(run, settings)
            sets = list(data_of_run(run, sets))
        _print_estimate(settings, sets or [], run, track=tracker(console))
        return
    if show_batch is not None:
        from crowdcount.workflows.show_batch import show_batch as draw

        draw(settings, sets or [], show_batch, force=force, track=tracker(console))
        print_paths([show_batch])
        return
    if overfit is not None:
        with stops_cleanly("nothing was kept"), TrainingBar(console) as bar:
            _overfit(
                settings,
                sets or [],
                crops=overfit,
                device=device,
                offline=offline,
                watcher=bar,
                track=tracker(console),
            )
        return
    with stop_signals() as received, TrainingBar(console) as bar:
        if run is None:
            result = workflow.train(
                settings,
                sets or [],
                out=out,
                device=device,
                offline=offline,
                force=force,
                deterministic=deterministic,
                allow_test_selection=allow_test_selection,
                should_stop=lambda: bool(received),
                watcher=bar,
                track=tracker(console),
            )
        else:
            result = workflow.resume(
                run,
                settings,
                data=sets,
                device=device if "device" in given else None,
                offline=offline,
                should_stop=lambda: bool(received),
                watcher=bar,
            )
    print_paths([result.checkpoint])
    if result.interrupted:
        log.info("go on with: crowdcount train --resume %s", result.run)
        raise typer.Exit(143 if received[0] == signal.SIGTERM else 130)


def _overrides(order: Sequence[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Settings from --set and the flags that stand for one, in the order they were given."""
    from crowdcount.config import parse_override

    overrides: list[tuple[str, Any]] = []
    for name, value in order:
        if name == "set_":
            overrides.append(parse_override(value))
        elif name == "no_pretrained":
            overrides.append(("model.pretrained", "none"))
        elif name == "tensorboard":
            overrides.append(("train.tensorboard", True))
        elif name in SHORT_FORMS:
            overrides.append((SHORT_FORMS[name], value))
    return overrides


def _refuse_beside_resume(given: frozenset[str]) -> None:
    """Refuse what only a new run can be told."""
    for name in ("out", "force", "deterministic", "show_batch", "overfit", "allow_test_selection"):
        if name in given:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{flag} is for a new run; --resume goes on with one as it was begun",
                next_step=f"leave out {flag}, or --resume",
            )


def _print_estimate(
    settings: "RunConfig",
    sets: "Sequence[PreparedDataset]",
    run: "RunFolder | None",
    *,
    track: Callable[..., Any],
) -> None:
    """Say what a run is going to do and take: a run file, with sizes as comments."""
    import tomli_w

    from crowdcount.core.bins import Bins
    from crowdcount.workflows.plan import estimate_run

    bins = None if run is None else Bins.from_json(run.record.bins)
    found = estimate_run(settings, sets, bins=bins, track=track)
    plan, memory = found.plan, found.memory
    parts = ", ".join(
        f"{name} {_mebibytes(getattr(memory, name))}"
        for name in ("weights", "gradients", "optimiser", "average", "activations")
    )
    typer.echo(tomli_w.dumps(settings.resolved().to_mapping()), nl=False)
    for line in (
        f"{plan.training_images} training and {plan.validation_images} validation images, "
        f"crops of {plan.crop} pixels",
        f"{found.parameters:,} parameters, {found.trained_parameters:,} of them trained",
        f"{found.steps_per_epoch:,} steps an epoch, {found.steps:,} in all",
        f"memory, estimated: {_mebibytes(memory.total)} ({parts})",
    ):
        typer.echo(f"# {line}")


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def _overfit(settings: "RunConfig", sets: "Sequence[PreparedDataset]", **options: Any) -> None:
    """Print what a few crops came to, and fail where they were not learned."""
    from crowdcount.workflows.overfit import COUNT_ERROR, LOSS_SHARE
    from crowdcount.workflows.overfit import overfit as learn_by_heart

    found = learn_by_heart(settings, sets, **options)
    log.info("crops %d, heads %d, steps %d", found.crops, found.heads, found.steps)
    print_rows(
        [
            ("", "before", "after", "at_most"),
            ("loss", found.loss_before, found.loss_after, LOSS_SHARE * found.loss_before),
            ("count_error", found.count_error_before, found.count_error_after, COUNT_ERROR),
        ]
    )
    if found.failures:
        raise GateFailedError(
            f"these crops were not learned: {'; '.join(found.failures)}",
            next_step="another learning rate (--lr), more passes (--epochs, 200 at most), or "
            "see what the network sees (--show-batch FILE.png)",
        )


class TrainingBar:
    """Draws the progress of a training run: steps, time left, loss, best validation so far."""

    def __init__(self, console: Settings) -> None:
        # As far back as Rich remembers, a thousand steps: a shorter while would hold a validation
        # or not, and the time left would jump from step to step.
        self._progress = progress_bar(console, seconds=math.inf)

    def __enter__(self) -> "TrainingBar":
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def started(self, *, epochs: int, steps: int, done: int = 0) -> None:
        """Show the bar."""
        self._task = self._progress.add_task(
            "training", total=epochs * steps, completed=done, note=""
        )
        self._best = ""
        self._progress.start()

    def stepped(self, loss: float) -> None:
        """Move on by one step."""
        self._progress.update(self._task, advance=1, note=f"loss {loss:.2f}{self._best}")

    def finished_epoch(self, report: "EpochReport", best: float | None) -> None:
        """Remember the best validation."""
        self._best = "" if best is None else f"  best MAE {best:.2f}"
        self._progress.update(self._task, note=f"loss {report.loss:.2f}{self._best}")
