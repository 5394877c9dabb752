"""The command line: parse, call one workflow, print."""

import os
import sys
from typing import Annotated

import typer

from crowdcount.cli.bins import bins
from crowdcount.cli.datasets import app as datasets
from crowdcount.cli.demo import demo
from crowdcount.cli.evaluate import evaluate
from crowdcount.cli.import_ import import_
from crowdcount.cli.models import app as models
from crowdcount.cli.options import Command
from crowdcount.cli.predict import predict
from crowdcount.cli.preprocess import preprocess
from crowdcount.cli.runs import app as runs
from crowdcount.cli.train import TrainCommand, train
from crowdcount.core.device import keep_freed_memory
from crowdcount.errors import CrowdCountError
from crowdcount.version import __version__

app = typer.Typer(
    name="crowdcount",
    help="Count people in photographs of crowds, and train the models that do it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("preprocess", cls=Command)(preprocess)
app.command("bins", cls=Command)(bins)
app.command("train", cls=TrainCommand)(train)
app.command("eval", cls=Command)(evaluate)
app.command("predict", cls=Command)(predict)
app.command("import", cls=Command)(import_)
app.command("demo", cls=Command)(demo)
app.add_typer(datasets, name="datasets")
app.add_typer(runs, name="runs")
app.add_typer(models, name="models")


def _print_version(asked: bool | None) -> None:
    if asked:
        typer.echo(f"crowdcount {__version__}")
        raise typer.Exit


@app.callback()
def _crowdcount(
    version: Annotated[
        bool | None,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = None,
) -> None:
    pass


def main() -> None:
    """Run the command line; turn an error that the user can fix into a message and exit code."""
    keep_freed_memory()
    try:
        app()
    except CrowdCountError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader is gone, as with `| head`. /dev/null avoids a second error at shutdown.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
