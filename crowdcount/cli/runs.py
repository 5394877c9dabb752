"""The command ``runs``: its sub-commands, and ``list`` where none is named."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crowdcount.cli import options
from crowdcount.cli.console import command, print_rows
from crowdcount.cli.options import ListByDefault

if TYPE_CHECKING:
    from crowdcount.workflows.runs import RunSummary

log = logging.getLogger("crowdcount")

Folder = Annotated[Path, typer.Option("--runs", help="Folder that holds the runs.")]
RUNS = Path("runs")

HEADER = (
    *("run", "started", "data", "backbone", "epochs", "state"),
    *("best_mae", "best_epoch", "selected_on"),
)


@command
def list_(runs: Folder = RUNS, json_: options.Json = False) -> None:
    """List training runs: data, backbone, epochs done of those asked for, state, best validation.

    Prints a line for each run, from the earliest on, separated by tabs, below a header. A damaged
    run is named on stderr, and the command exits with 4.

    Example: crowdcount runs list --json
    """
    from crowdcount.workflows.runs import list_runs

    found, problems = list_runs(runs)
    if json_:
        typer.echo(json.dumps([dataclasses.asdict(each) for each in found], indent=2))
    else:
        print_rows([HEADER, *map(_cells, found)])
    for problem in problems:
        log.error("%s", problem)
    if problems:
        raise typer.Exit(problems[0].exit_code)


@command
def compare(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Runs to compare, by folder or by name under runs/.",
            show_default=False,
        ),
    ],
    runs: Folder = RUNS,
    json_: options.Json = False,
) -> None:
    """Show in which settings runs differ, and what came of them, side by side.

    Prints a line for each setting that differs and for each metric, with a column for every run,
    separated by tabs, below a header.

    Example: crowdcount runs compare runs/2026-11-24-sha-clip-rn50 latest
    """
    from crowdcount.runs.folder import find_run
    from crowdcount.workflows import runs as workflow

    found = workflow.compare([find_run(name, runs=runs) for name in names])
    if json_:
        typer.echo(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        rows = [*found.settings.items(), *found.metrics.items()]
        print_rows([("", *found.runs), *((name, *values) for name, values in rows)])


app = typer.Typer(
    cls=ListByDefault,
    help="List training runs, or compare some. Alone it lists.\n\nExample: crowdcount runs",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("list")(list_)
app.command("compare")(compare)


def _cells(run: "RunSummary") -> tuple[Any, ...]:
    return (
        run.name,
        run.started[: len("2026-11-24T12:34")],
        ", ".join(run.data),
        run.backbone,
        f"{run.epochs_done}/{run.epochs}",
        run.state,
        run.best_mae,
        run.best_epoch,
        run.selected_on,
    )
