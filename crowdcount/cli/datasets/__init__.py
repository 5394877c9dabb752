"""The command ``datasets``: its sub-commands, and what it does without one."""

import typer

from crowdcount.cli import options
from crowdcount.cli.datasets.catalogue import catalogue, print_catalogue
from crowdcount.cli.datasets.check import check
from crowdcount.errors import UsageError

app = typer.Typer(
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("list")(catalogue)
app.command("check")(check)


@app.callback()
def _datasets(context: typer.Context, json_: options.Json = False) -> None:
    """List the data sets that are known, or look into one.

    Alone it is `crowdcount datasets list`.

    Example: crowdcount datasets
    """
    if context.invoked_subcommand is None:
        print_catalogue(json_=json_)
    elif json_:
        raise UsageError(f"--json: goes behind {context.invoked_subcommand}, if it takes it")
