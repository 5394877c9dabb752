"""The command line: parse, call one workflow, print."""

import errno
import sys
from types import MappingProxyType
from typing import Annotated

import typer

from crowdcount.cli.bins import bins
from crowdcount.cli.console import flush_output
from crowdcount.cli.datasets import app as datasets
from crowdcount.cli.demo import demo
from crowdcount.cli.docs import docs
from crowdcount.cli.doctor import doctor
from crowdcount.cli.evaluate import evaluate
from crowdcount.cli.import_ import import_
from crowdcount.cli.models import app as models
from crowdcount.cli.options import Command, Program
from crowdcount.cli.predict import predict
from crowdcount.cli.preprocess import preprocess
from crowdcount.cli.runs import app as runs
from crowdcount.cli.train import TrainCommand, train
from crowdcount.core.device import keep_freed_memory
from crowdcount.errors import CrowdCountError
from crowdcount.version import __version__

app = typer.Typer(
    name="crowdcount",
    cls=Program,
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
app.command("doctor", cls=Command)(doctor)
app.command("docs", cls=Command)(docs)
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


ADVICE = MappingProxyType(
    {
        errno.ENOSPC: "make room on that disk, and run the command again",
        errno.EDQUOT: "make room within your quota, and run the command again",
        errno.EFBIG: "raise the limit for the size of a file: ulimit -f",
        errno.EMFILE: "raise the limit for open files: ulimit -n",
        errno.EROFS: "name a place that can be written to",
        errno.EACCES: "change its permissions, or name another place",
        errno.EPERM: "change its permissions, or name another place",
        errno.ENOTDIR: "name a place in a folder: a part of this path is a file",
        errno.EEXIST: "name another place: a file is where a folder is needed",
        errno.EISDIR: "name a file, not a folder",
        errno.ENAMETOOLONG: "name a shorter path",
        errno.EIO: "check the disk: it cannot be read or written",
    }
)
"""Errors of the system that a user can fix, and how."""


def main() -> None:
    """Run the command line; turn an error that the user can fix into a message and exit code."""
    keep_freed_memory()
    try:
        try:
            app()
        finally:
            flush_output()
    except CrowdCountError as error:
        _fail(error)
    except OSError as error:
        advice = ADVICE.get(error.errno or 0)
        if advice is None:
            raise
        reason = f"{error.filename or 'output'}: {(error.strerror or '').lower()}"
        _fail(CrowdCountError(reason, next_step=advice))


def _fail(error: CrowdCountError) -> None:
    print(f"error: {error}", file=sys.stderr)  # noqa: T201
    sys.exit(error.exit_code)
