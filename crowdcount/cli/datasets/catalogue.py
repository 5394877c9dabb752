"""The command ``datasets list``."""

import json
from typing import TYPE_CHECKING

import typer

from crowdcount.cli import options
from crowdcount.cli.console import command

if TYPE_CHECKING:
    from crowdcount.data.sources.recipe import Recipe, SplitLayout


@command
def catalogue(json_: options.Json = False) -> None:
    """List the data sets that are known: how to get each, its terms, its images and heads.

    Example: crowdcount datasets list --json
    """
    from crowdcount.cli.report import table_lines
    from crowdcount.workflows.catalogue import catalogue as known
    from crowdcount.workflows.catalogue import description

    public, own = known()
    if json_:
        typer.echo(json.dumps([description(recipe) for recipe in (*public, *own)], indent=2))
        return
    header, *rows = table_lines(
        ("set", "title", "train", "val", "test", "heads"), map(_cells, public), left=2
    )
    typer.echo(header)
    for row, recipe in zip(rows, public, strict=True):
        typer.echo(row)
        typer.echo(f"    {recipe.homepage}")
        typer.echo(f"    get it   {recipe.download}")
        typer.echo(f"    licence  {recipe.licence}")
    typer.echo("*  annotations not published")
    typer.echo(
        "\nImages of your own are recognised in these layouts, and named after their folder:"
    )
    for row in table_lines(("layout", "title"), ((r.name, r.title) for r in own), left=2):
        typer.echo(row)


def _cells(recipe: "Recipe") -> tuple[str, ...]:
    from crowdcount.data.sources.recipe import SPLITS, TOTAL

    heads = " or ".join(f"{count:,}" for count in recipe.heads(TOTAL).values())
    images = (_images(recipe.splits[name]) if name in recipe.splits else "-" for name in SPLITS)
    return (recipe.name, recipe.title, *images, heads or "unknown")


def _images(split: "SplitLayout") -> str:
    number = "any" if split.expect_images is None else f"{split.expect_images:,}"
    return number + ("*" if split.unlabelled else "")
