"""The command ``train``."""

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crowdcount.cli import options
from crowdcount.cli.console import (
    Console,
    log,
    print_paths,
    print_rows,
    stop_signals,
    stops_cleanly,
)
from crowdcount.errors import GateFailedError, UsageError

if TYPE_CHECKING:
    from crowdcount.training.loop import EpochReport
    from crowdcount.workflows.overfit import OverfitResult

FLAGS = "crowdcount.flags"
NEW_RUN_ONLY = ("out", "force", "deterministic", "show_batch", "overfit", "allow_test_selection")
"""Parameters that do not go with ``--resume``."""


@dataclass(frozen=True)
class SettingFlag:
    """A flag of ``train`` that sets a setting."""

    flag: str
    setting: str
    """Empty: the text names it, as in ``loss.count=mae``."""

    help: str
    metavar: str = "TEXT"

    value: str = ""
    """Value that the flag stands for; empty: the flag takes one."""

    def option(self) -> Any:
        """Return the option, as Typer makes it."""
        target = f"{self.setting}={self.value}" if self.value else self.setting
        help_ = f"{self.help} (sets {target})" if target else self.help

        # Options of one name share a list, which holds their texts in the order of the flags.
        def texts(
            text: Annotated[
                list[str] | None, typer.Option(self.flag, metavar=self.metavar, help=help_)
            ] = None,
        ) -> None: ...

        def switch(on: Annotated[bool, typer.Option(self.flag, help=help_)] = False) -> None: ...

        command = options.command_of(switch) if self.value else options.command_of(texts)
        return command.params[0]


SETTING_FLAGS = {
    flag.flag: flag
    for flag in (
        SettingFlag(
            "--backbone",
            "model.backbone",
            "clip-rn50, clip-vit-b-16, ..., timm:NAME or open-clip:ARCH/PRETRAINED.",
        ),
        SettingFlag("--weights", "model.weights", "File of initial weights."),
        SettingFlag(
            "--init",
            "train.init",
            "Start from weights, bins and model settings of a checkpoint or run, of "
            "hf://OWNER/NAME@REVISION, or of starter, the model that ships with crowdcount.",
            "CHECKPOINT",
        ),
        SettingFlag(
            "--no-pretrained", "model.pretrained", "Start from random weights.", value="none"
        ),
        SettingFlag("--block", "model.block", "Block side in pixels.", "INTEGER"),
        SettingFlag(
            "--bins", "model.bins", "Table of bins, or the name of a published one.", "FILE|NAME"
        ),
        SettingFlag("--epochs", "train.epochs", "Number of epochs.", "INTEGER"),
        SettingFlag("--batch-size", "train.batch_size", "Images per step.", "INTEGER"),
        SettingFlag("--lr", "optim.lr", "Learning rate.", "FLOAT"),
        SettingFlag("--seed", "train.seed", "Seed of everything random.", "INTEGER"),
        SettingFlag("--select-on", "train.select_on", "Split to validate on.", "val|test"),
        SettingFlag("--cache", "train.cache", "Decoded images.", "auto|memory|disk|off"),
        SettingFlag(
            "--tensorboard",
            "train.tensorboard",
            "Also log for TensorBoard: tensorboard --logdir runs.",
            value="true",
        ),
        SettingFlag("--set", "", "Set any setting, as in loss.count=mae.", "KEY=VALUE"),
    )
}


class TrainCommand(options.Command):
    """The command ``train``, with ``SETTING_FLAGS`` as further options.

    A later flag overrides an earlier one, so ``context.meta`` holds flags and texts in order.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        after = [parameter.name for parameter in self.params].index("fold") + 1
        self.params[after:after] = [flag.option() for flag in SETTING_FLAGS.values()]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Note the setting flags in order, then parse as usual."""
        values, _, order = self.make_parser(ctx).parse_args(args=list(args))
        names = [parameter.opts[0] for parameter in order]
        flags = [SETTING_FLAGS[name] for name in names if name in SETTING_FLAGS]
        texts = iter(values.get("text") or ())
        ctx.meta[FLAGS] = [(flag, flag.value or next(texts)) for flag in flags]
        rest = super().parse_args(ctx, args)
        for name in ("text", "on"):
            ctx.params.pop(name, None)
        return rest


def train(
    context: typer.Context,
    data: options.Data = None,
    fold: options.Fold = None,
    allow_test_selection: Annotated[
        bool,
        typer.Option(
            "--allow-test-selection",
            help="Allow --select-on test; checkpoint and reports will say so.",
        ),
    ] = False,
    config: Annotated[Path | None, typer.Option(help="Run file with settings (TOML).")] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="Run file that ships with crowdcount; see crowdcount docs training."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Run folder. (default: runs/<date>-<name>)")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN|auto",
            help="Resume a stopped run; auto: the latest unfinished one under runs/.",
        ),
    ] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Same bits every time on CUDA as well; slower.")
    ] = False,
    device: options.Device = "auto",
    offline: options.Offline = False,
    show_batch: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="Draw the first batch with heads and classes, and train nothing.",
        ),
    ] = None,
    overfit: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Only test whether N fixed crops can be learned by heart; exit 5 if not.",
        ),
    ] = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> None:
    """Train a counter on prepared data and print the folder of its best checkpoint.

    Settings come from flags and --set, CROWDCOUNT_SECTION__KEY variables, --config, --preset and
    crowdcount.toml, strongest first. A run that was stopped by Ctrl-C, or killed, continues with
    --resume, to the same weights as if it had never been stopped.

    Example: crowdcount train --backbone clip-rn50 --set loss.count=mse
    """
    from crowdcount.config import parse_override

    given, flags = options.given(context), context.meta[FLAGS]
    names = {flag.flag for flag, _ in flags}
    for start in sorted({"--init", "--weights"} & names) if "--no-pretrained" in names else ():
        raise UsageError(
            f"{start} starts from weights, --no-pretrained from random ones",
            next_step="leave out one of them",
        )
    for name in NEW_RUN_ONLY if resume is not None else ():
        if name in given:
            raise UsageError(
                f"{options.flag(name)} is for a new run; --resume continues an existing one",
                next_step=f"leave out {options.flag(name)}, or --resume",
            )
    from crowdcount.workflows.training_job import training_job

    job = training_job(
        data or (),
        environment=os.environ,
        fold=fold,
        resumed=resume,
        config=config,
        preset=preset,
        overrides=[
            (flag.setting, text) if flag.setting else parse_override(text) for flag, text in flags
        ],
        offline=offline,
        allow_test_selection=allow_test_selection,
    )
    track = context.obj.track
    if dry_run:
        for line in job.estimate(track=track).lines():
            typer.echo(line)
    elif show_batch is not None:
        from crowdcount.workflows.show_batch import show_batch as draw

        draw(job.config, job.data or (), show_batch, force=force, track=track)
        print_paths([show_batch])
    elif overfit is not None:
        from crowdcount.workflows.overfit import overfit as learn_by_heart

        with stops_cleanly("nothing was kept"), TrainingBar(context.obj) as bar:
            _print_overfit(
                learn_by_heart(
                    job.config,
                    job.data or (),
                    crops=overfit,
                    device=device,
                    offline=offline,
                    watcher=bar,
                    track=track,
                )
            )
    else:
        with stop_signals() as received, TrainingBar(context.obj) as bar:
            result = job.carry_out(
                out=out,
                device=device if "device" in given else None,
                offline=offline,
                force=force,
                deterministic=deterministic,
                allow_test_selection=allow_test_selection,
                should_stop=lambda: bool(received),
                watcher=bar,
                track=track,
            )
        print_paths([result.checkpoint])
        if result.interrupted:
            log.info("go on with: crowdcount train --resume %s", result.run)
            raise typer.Exit(128 + received[0])


def _print_overfit(result: "OverfitResult") -> None:
    """Print losses and errors, and fail if the crops were not learned."""
    from crowdcount.workflows.overfit import COUNT_ERROR, LOSS_SHARE

    log.info("crops %d, heads %d, steps %d", result.crops, result.heads, result.steps)
    print_rows(
        [
            ("", "before", "after", "at_most"),
            ("loss", result.loss_before, result.loss_after, LOSS_SHARE * result.loss_before),
            ("count_error", result.count_error_before, result.count_error_after, COUNT_ERROR),
        ]
    )
    if result.failures:
        raise GateFailedError(
            f"these crops were not learned: {'; '.join(result.failures)}",
            next_step="another learning rate (--lr), more passes (--epochs, 200 at most), or "
            "see what the network sees (--show-batch FILE.png)",
        )


class TrainingBar:
    """Draws the progress of training: steps, remaining time, loss, best validation so far."""

    def __init__(self, console: Console) -> None:
        # Rich averages over a thousand steps. A shorter time would include a validation at some
        # steps only, and the remaining time would jump.
        self._progress = console.progress_bar(seconds=math.inf)

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
