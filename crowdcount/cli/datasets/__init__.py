"""The commands under ``datasets``: looking at data sets before and after they are prepared."""

import typer

from crowdcount.cli.datasets.correction import correction
from crowdcount.cli.datasets.show import show

app = typer.Typer(help="Look at data sets.", no_args_is_help=True)
app.command("show")(show)
app.command("correction")(correction)
