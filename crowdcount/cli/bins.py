"""The command ``bins``."""

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crowdcount.cli import options
from crowdcount.cli.console import log, log_table, print_paths, print_rows

if TYPE_CHECKING:
    from crowdcount.workflows.bins import BinsTable

BAR_WIDTH = 24


def bins(
    context: typer.Context,
    data: Annotated[
        list[Path] | None,
        typer.Option(
            "--data",
            help="Prepared data set; repeatable: each gets bins of its own, or with --together "
            "all get the same. (default: CROWDCOUNT_DATA_DIR, or all under data/)",
        ),
    ] = None,
    block: Annotated[
        int | None,
        typer.Option(help="Block side in pixels. (default: that of the table, or 8)", min=1),
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(help="Starts of the bins: fine, dynamic, coarse or auto. (default: fine)"),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(help="File with a table of bins (JSON, TOML), instead of a policy."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Published table, instead of a policy.", metavar="NAME")
    ] = None,
    list_presets: Annotated[
        bool, typer.Option("--list-presets", help="Print the published tables only.")
    ] = False,
    representatives: Annotated[
        str | None,
        typer.Option(
            help="Count that represents a bin: average or middle. (default: that of the table, "
            "or average)"
        ),
    ] = None,
    smallest_head: Annotated[
        int | None,
        typer.Option(
            help="Side in pixels of the smallest recognisable head. (default: as prepared)", min=1
        ),
    ] = None,
    paper: Annotated[
        bool,
        typer.Option(
            "--paper", help="Count heads on the same pixel once, as in the published tables."
        ),
    ] = False,
    together: Annotated[
        bool, typer.Option("--together", help="One table for all data sets; needs -o or --json.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Bins file to write; - is stdout. (default: in the prepared folder)",
        ),
    ] = None,
    png: Annotated[Path | None, typer.Option(help="Draw the bins into this file.")] = None,
    json_: options.Json = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> None:
    """Choose bins, and the count that represents each, from the training images.

    Writes bins-r<block>.json into each prepared folder and prints the files' paths.

    Example: crowdcount bins --data data/sha --policy auto
    """
    from crowdcount.workflows import bins as workflow
    from crowdcount.workflows.bins_tables import published_tables

    if list_presets:
        print_rows(published_tables())
        return
    tables = workflow.make_bins_files(
        data or (),
        environment=os.environ,
        policy=policy,
        table=table,
        preset=preset,
        block=block,
        representatives=representatives,
        smallest_head=smallest_head,
        paper=paper,
        together=together,
        output=output,
        chart=png,
        printed=json_,
        force=force,
        dry_run=dry_run,
        track=context.obj.track,
    )
    for made, _ in tables:
        log_bins(made)
    if json_ or output == workflow.STDOUT:
        content = [made.to_json() for made, _ in tables]
        typer.echo(json.dumps(content[0] if len(content) == 1 else content, indent=2))
    elif not dry_run:
        print_paths(path for _, path in tables if path)


def log_bins(table: "BinsTable") -> None:
    """Log each bin with its value, its share of windows and heads, and a bar of its windows.

    Bars are logarithmic, because the bins that matter most hold a thousandth of the windows or
    fewer. The bar of the fullest bin has ``BAR_WIDTH`` characters.
    """
    from crowdcount.core.bins import format_range

    bins, windows, heads = table.bins, table.windows, table.heads
    log.info("%s: blocks of %d pixels, %d windows", table.name, bins.block, sum(windows))
    longest = math.log1p(max(windows)) or 1
    rows = [
        (
            format_range(low, high),
            f"{value:.5f}",
            f"{in_windows / max(sum(windows), 1):.4%}",
            f"{in_heads / max(sum(heads), 1):.2%}",
            ("#" * round(BAR_WIDTH * math.log1p(in_windows) / longest)).ljust(BAR_WIDTH),
        )
        for (low, high), value, in_windows, in_heads in zip(
            bins.ranges, bins.values, windows, heads, strict=True
        )
    ]
    log_table(("bin", "stands for", "windows", "heads", "windows, log".ljust(BAR_WIDTH)), rows)
