"""The command ``bins``."""

import json
from typing import Annotated

import typer

from crowdcount.cli import options
from crowdcount.cli.console import Settings, command, print_paths, tracker


@command
def bins(
    data: options.Data = None,
    block: Annotated[int, typer.Option(help="Block side in pixels.", min=1)] = 8,
    smallest_head: Annotated[
        int | None,
        typer.Option(
            help="Side in pixels of the smallest recognisable head. (default: as prepared)",
            min=1,
            show_default=False,
        ),
    ] = None,
    paper: Annotated[
        bool,
        typer.Option("--paper", help="Count heads that share a pixel once: the published tables."),
    ] = False,
    json_: options.Json = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    *,
    console: Settings,
) -> None:
    """Compute the count that represents each bin, from the training images of prepared data.

    Writes bins-r<block>.json into each prepared folder and prints the files' paths.

    Example: crowdcount bins --data data/sha
    """
    import os

    from crowdcount.cli.report import say_bins
    from crowdcount.data.prepared import PreparedDataset
    from crowdcount.workflows.bins import bins_path, make_bins, write_bins
    from crowdcount.workflows.locate import find_prepared

    tables, paths = [], []
    for folder in find_prepared(data or (), environment=os.environ):
        source = PreparedDataset.open(folder)
        table = make_bins(
            [source],
            block=block,
            smallest_head=smallest_head,
            paper=paper,
            track=tracker(console),
        )
        path = bins_path(source, block=block)
        if not dry_run:
            write_bins(source, table, force=force)
        say_bins(source.name, table)
        tables.append(table)
        paths.append(path)
    if json_:
        content = [table.to_json() for table in tables]
        typer.echo(json.dumps(content[0] if len(content) == 1 else content, indent=2))
    elif not dry_run:
        print_paths(paths)
