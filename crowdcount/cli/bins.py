"""The command ``bins``."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crowdcount.cli import options
from crowdcount.cli.console import Settings, command, print_paths, print_rows, tracker

if TYPE_CHECKING:
    from crowdcount.core.bins import WrittenBins

log = logging.getLogger("crowdcount")

STDOUT = Path("-")


@command
def bins(
    data: options.Data = None,
    block: Annotated[
        int | None,
        typer.Option(
            help="Block side in pixels. (default: that of the table, or 8)",
            min=1,
            show_default=False,
        ),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(
            help="Where bins start: fine, dynamic, coarse or auto. (default: fine)",
            show_default=False,
        ),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(help="File that says where bins start, in place of a policy (JSON, TOML)."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Published table, in place of a policy.", metavar="NAME")
    ] = None,
    list_presets: Annotated[
        bool, typer.Option("--list-presets", help="Print the published tables, and do no more.")
    ] = False,
    representatives: Annotated[
        str | None,
        typer.Option(
            help="What stands for a bin: average or middle. (default: what the table says, "
            "or average)",
            show_default=False,
        ),
    ] = None,
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
    together: Annotated[
        bool, typer.Option("--together", help="One table over all data sets; needs -o or --json.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Bins file to write; - is stdout. (default: in the prepared folder)",
            show_default=False,
        ),
    ] = None,
    png: Annotated[Path | None, typer.Option(help="Draw the bins into this file.")] = None,
    json_: options.Json = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    *,
    console: Settings,
) -> None:
    """Choose bins and the count that stands for each, from the training images of prepared data.

    Writes bins-r<block>.json into each prepared folder and prints the files' paths.

    Example: crowdcount bins --data data/sha --policy auto
    """
    import os

    from crowdcount.cli.report import say_bins
    from crowdcount.data.prepared.dataset import PreparedDataset
    from crowdcount.data.prepared.find import find_prepared
    from crowdcount.errors import UsageError
    from crowdcount.files import refuse_existing, write_bytes
    from crowdcount.workflows.bins import bins_chart, bins_path, make_bins, write_table

    if list_presets:
        _print_presets()
        return
    chosen = _chosen(policy, table=table, preset=preset)
    if block is None:
        block = 8 if isinstance(chosen, str) else chosen.block or 8
    sets = [
        PreparedDataset.open(path) for path in find_prepared(data or (), environment=os.environ)
    ]
    groups = [sets] if together else [[each] for each in sets]
    if len(groups) > 1 and (output or png):
        raise UsageError(
            "one file does not hold the bins of several data sets",
            looked_for=", ".join(str(each.folder) for each in sets),
            next_step="name one of them with --data, or take them --together",
        )
    refuse_existing(png, force=force)
    to_stdout = json_ or output == STDOUT
    if together and len(sets) > 1 and output is None and not (to_stdout or dry_run):
        raise UsageError(
            "bins of several data sets together belong into the folder of none",
            next_step="name a file with -o FILE, or print them with --json",
        )
    tables, paths = [], []
    for group in groups:
        made = make_bins(
            group,
            block=block,
            policy=chosen,
            representatives=representatives,
            smallest_head=smallest_head,
            paper=paper,
            track=tracker(console),
        )
        tables.append(made)
        if output is not None:
            path = None if output == STDOUT else output
        else:
            path = bins_path(group[0], block=block) if len(group) == 1 else None
        if path is not None:
            paths.append(path)
            if not dry_run:
                write_table(path, made, force=force)
        say_bins(made)
    if png is not None and not dry_run:
        write_bytes(png, bins_chart(tables[0]))
        log.info("chart %s", png)
    if to_stdout:
        content = [each.to_json() for each in tables]
        typer.echo(json.dumps(content[0] if len(content) == 1 else content, indent=2))
    elif not dry_run:
        print_paths(paths)


def _chosen(policy: str | None, *, table: Path | None, preset: str | None) -> "str | WrittenBins":
    """The policy or the table to follow: at most one is asked for."""
    from crowdcount.errors import UsageError
    from crowdcount.workflows.bins import published_table, read_table

    if [policy, table, preset].count(None) < 2:
        raise UsageError("choose one of --policy, --table and --preset")
    if table is not None:
        return read_table(table)
    return policy or "fine" if preset is None else published_table(preset)


def _print_presets() -> None:
    """One line a table: its name, block side, bins, what stands for the last, and its source."""
    from crowdcount.core.bins import bin_ranges, format_range
    from crowdcount.core.published_bins import PUBLISHED_BINS

    for name, table in PUBLISHED_BINS.items():
        ranges = " ".join(format_range(low, high) for low, high in bin_ranges(table.starts))
        last = "from data" if table.values is None else f"{table.values[-1]:.5f}"
        print_rows([(name, table.block, ranges, last, table.source)])
