"""The command ``datasets correction``."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crowdcount.cli import options
from crowdcount.cli.console import Settings, command, print_rows, tracker

if TYPE_CHECKING:
    from crowdcount.workflows.correction import Correction

log = logging.getLogger("crowdcount")


@command
def correction(
    data: Annotated[Path, typer.Argument(help="Prepared data set.", show_default=False)],
    block: Annotated[
        list[int] | None,
        typer.Option(
            help="Side of the blocks in pixels, r; repeatable. (default: 8, 16, 32)",
            min=1,
            show_default=False,
        ),
    ] = None,
    smallest_head: Annotated[
        list[int] | None,
        typer.Option(
            help="Side in pixels of the smallest recognisable head, s; repeatable. "
            "(default: 2, 4, 8)",
            min=1,
            show_default=False,
        ),
    ] = None,
    png: Annotated[
        Path | None, typer.Option("--png", help="Also draw the shares of heads cut to this file.")
    ] = None,
    json_: options.Json = False,
    force: options.Force = False,
    *,
    console: Settings,
) -> None:
    """Compare what the label correction touches, for several r and s.

    Blocks of r pixels that hold more than m = (r // s)^2 heads are corrected to m. Prints a line
    for each split, r and s, separated by tabs, below a header. Reads the points, so the set need
    not be prepared anew.

    Example: crowdcount datasets correction data/sha --smallest-head 4 --smallest-head 6
    """
    from crowdcount.data.prepared.dataset import PreparedDataset
    from crowdcount.files import refuse_existing, write_bytes
    from crowdcount.workflows import correction as workflow

    refuse_existing(png, force=force)
    source = PreparedDataset.open(data)
    found = workflow.corrections(
        source,
        blocks=block or workflow.BLOCKS,
        smallest_heads=smallest_head or workflow.SMALLEST_HEADS,
        track=tracker(console),
    )
    _say(source.name, found)
    if png is not None:
        write_bytes(png, workflow.correction_table(found, source))
        log.info("heat table %s", png)
    rows = [each.to_json() for each in found]
    if json_:
        typer.echo(json.dumps(rows, indent=2))
    else:
        print_rows([rows[0], *(row.values() for row in rows)])


def _say(name: str, found: list["Correction"]) -> None:
    """A small table for each split: r by s, the share of heads that is cut, and m."""
    from crowdcount.cli.report import say_table
    from crowdcount.workflows.correction import percent

    heads = list(dict.fromkeys(each.smallest_head for each in found))
    for split in dict.fromkeys(each.split for each in found):
        here = [each for each in found if each.split == split]
        log.info("%s, %s: share of %s heads that is cut", name, split, f"{here[0].heads:,}")
        rows = [here[start : start + len(heads)] for start in range(0, len(here), len(heads))]
        say_table(
            ("", *(f"s = {head}" for head in heads)),
            [
                (
                    f"r = {row[0].block}",
                    *(f"{percent(each.heads_share)} (m {each.max_count})" for each in row),
                )
                for row in rows
            ],
        )
