"""The command ``preprocess``."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crowdcount.cli import options
from crowdcount.cli.console import Settings, command, print_paths, tracker
from crowdcount.core.limits import MAX_PIXELS

if TYPE_CHECKING:
    from crowdcount.workflows.preprocess import PreparedResult

log = logging.getLogger("crowdcount")


@command
def preprocess(
    source: Annotated[
        Path,
        typer.Argument(help="Folder of a data set, or one that holds some.", show_default=False),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Prepared folder. (default: data/<name>)", show_default=False),
    ] = None,
    dataset: Annotated[
        str | None, typer.Option(help="Recipe to use, where the layout does not tell.")
    ] = None,
    block: Annotated[int, typer.Option(help="Side of the blocks in pixels.", min=1)] = 8,
    smallest_head: Annotated[
        int, typer.Option(help="Side in pixels of the smallest recognisable head.", min=1)
    ] = 4,
    val_fraction: Annotated[
        float, typer.Option(help="Share of training images held out for validation.")
    ] = 0.1,
    seed: Annotated[int, typer.Option(help="Seed of the held-out choice.", min=0)] = 42,
    jobs: Annotated[int, typer.Option(help="Images worked on at once.", min=1)] = 2,
    max_pixels: options.MaxPixels = MAX_PIXELS,
    skip_unpaired: Annotated[
        bool, typer.Option("--skip-unpaired", help="Leave out images without annotation.")
    ] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Exit 6 where a set is not what its recipe promises."),
    ] = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    *,
    console: Settings,
) -> None:
    """Turn annotated photographs into prepared data: images, points, block counts, a manifest.

    Recognises data sets by their layout. Run again, it skips what is already right. Prints the
    folders it wrote.

    Example: crowdcount preprocess sha/
    """
    from crowdcount.data.prepared import PreprocessConfig
    from crowdcount.workflows.preprocess import preprocess as run_preprocess

    results = run_preprocess(
        source,
        out=out,
        dataset=dataset,
        config=PreprocessConfig(
            block=block, smallest_head=smallest_head, val_fraction=val_fraction, seed=seed
        ),
        strict=strict,
        force=force,
        skip_unpaired=skip_unpaired,
        dry_run=dry_run,
        jobs=jobs,
        max_pixels=max_pixels,
        track=tracker(console),
    )
    for result in results:
        _say(result, dry_run=dry_run)
    if not dry_run:
        print_paths(result.folder for result in results)


def _say(result: "PreparedResult", *, dry_run: bool) -> None:
    from crowdcount.cli.report import say_table

    verb = "to prepare" if dry_run else "prepared"
    log.info(
        "%s: %d images %s, %d right already, %d held out for validation%s",
        result.name,
        result.written,
        verb,
        result.unchanged,
        result.held_out,
        f"; annotations of release {result.release}" if result.release else "",
    )
    say_table(
        ("split", "images", "heads", "blocks corrected", "heads cut"),
        [
            (
                split,
                f"{total.images:,}",
                f"{total.heads:,}",
                f"{total.blocks_corrected:,}",
                f"{total.heads_cut:,}",
            )
            for split, total in result.totals.items()
        ],
    )
