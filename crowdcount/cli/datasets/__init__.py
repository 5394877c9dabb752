"""The command ``datasets``: its sub-commands, and ``list`` where none is named."""

from typing import Any

import typer
from typer.core import TyperGroup

from crowdcount.cli.datasets.catalogue import catalogue
from crowdcount.cli.datasets.check import check
from crowdcount.cli.datasets.correction import correction
from crowdcount.cli.datasets.show import show


class _ListByDefault(TyperGroup):
    """A group that lists when it is not told what to do."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``list`` before options that are not the group's own."""
        named = args[:1] and not args[0].startswith("-")
        if not named and args[:1] not in (["-h"], ["--help"]):
            args = ["list", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_ListByDefault,
    help="List the data sets that are known, check one, or look at one. Alone it lists.\n\n"
    "Example: crowdcount datasets",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("list")(catalogue)
app.command("check")(check)
app.command("show")(show)
app.command("correction")(correction)
