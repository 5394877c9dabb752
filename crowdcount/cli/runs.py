"""The command ``runs``: its sub-commands, and ``list`` where none is named."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crowdcount.cli import options
from crowdcount.cli.console import log, print_rows

if TYPE_CHECKING:
    from crowdcount.workflows.runs import RunSummary

Folder = Annotated[Path, typer.Option("--runs", help="Folder with the runs.")]
RUNS = Path("runs")

HEADER = (
    *("run", "started", "data", "backbone", "epochs", "state"),
    *("best_mae", "best_epoch", "selected_on"),
)


def list_(runs: Folder = RUNS, json_: options.Json = False) -> None:
    """List training runs: data, backbone, finished and planned epochs, state, best validation.

    Prints a header and one line per run, oldest first, separated by tabs. Damaged runs are named
    on stderr, and the command exits with 4.

    Example: crowdcount runs list --json
    """
    from crowdcount.workflows.runs import list_runs

    summaries, problems = list_runs(runs)
    if json_:
        typer.echo(json.dumps([dataclasses.asdict(run) for run in summaries], indent=2))
    else:
        print_rows([HEADER, *map(_cells, summaries)])
    for problem in problems:
        log.error("%s", problem)
    if problems:
        raise typer.Exit(problems[0].exit_code)


def compare(
    names: Annotated[
        list[str],
        typer.Argument(metavar="RUN...", help="Runs to compare, by folder or by name under runs/."),
    ],
    runs: Folder = RUNS,
    json_: options.Json = False,
) -> None:
    """Show the settings in which runs differ, and their metrics, side by side.

    Prints a header and one line per differing setting and per metric, with a column per run,
    separated by tabs.

    Example: crowdcount runs compare runs/2026-11-24-sha-clip-rn50 latest
    """
    from crowdcount.runs.folder import find_run
    from crowdcount.workflows import runs as workflow

    comparison = workflow.compare([find_run(name, runs=runs) for name in names])
    if json_:
        typer.echo(json.dumps(dataclasses.asdict(comparison), indent=2))
    else:
        rows = [*comparison.settings.items(), *comparison.metrics.items()]
        print_rows([("", *comparison.runs), *((name, *values) for name, values in rows)])


app = typer.Typer(
    cls=options.ListByDefault,
    help="List training runs, or compare some. By default it lists.\n\nExample: crowdcount runs",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("list", cls=options.Command)(list_)
app.command("compare", cls=options.Command)(compare)


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
