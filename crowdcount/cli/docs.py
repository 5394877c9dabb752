"""The command ``docs``."""

from typing import Annotated

import typer

from crowdcount.cli.console import print_rows


def docs(
    page: Annotated[str | None, typer.Argument(help="Page to print. (default: list them)")] = None,
) -> None:
    """Print a page of the documents, in Markdown; without a page, list them.

    Example: crowdcount docs datasets
    """
    from crowdcount.workflows.documents import page_titles, read_page

    if page is None:
        print_rows(page_titles().items())
    else:
        typer.echo(read_page(page))
