"""The command ``datasets``: its sub-commands, and ``list`` where none is named."""

import typer

from crowdcount.cli.datasets.catalogue import catalogue
from crowdcount.cli.datasets.check import check
from crowdcount.cli.datasets.correction import correction
from crowdcount.cli.datasets.show import show
from crowdcount.cli.options import ListByDefault

app = typer.Typer(
    cls=ListByDefault,
    help="List the data sets that are known, check one, or look at one. Alone it lists.\n\n"
    "Example: crowdcount datasets",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("list")(catalogue)
app.command("check")(check)
app.command("show")(show)
app.command("correction")(correction)
