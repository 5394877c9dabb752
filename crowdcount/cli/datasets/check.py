"""The command ``datasets check``."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crowdcount.cli import options
from crowdcount.cli.console import Settings, command, print_rows, tracker
from crowdcount.core.limits import MAX_PIXELS

if TYPE_CHECKING:
    from crowdcount.workflows.check import CheckedSet, CheckedSplit

log = logging.getLogger("crowdcount")


@command
def check(
    source: Annotated[
        Path,
        typer.Argument(help="Folder of a data set, or one that holds some.", show_default=False),
    ],
    dataset: options.Dataset = None,
    recipe: options.Recipe = None,
    jobs: Annotated[int, typer.Option(help="Images worked on at once.", min=1)] = 2,
    max_pixels: options.MaxPixels = MAX_PIXELS,
    *,
    console: Settings,
) -> None:
    """Check a folder against what its recipe promises: images, annotations, heads. Writes nothing.

    Prints a line for each set: its name, complete or incomplete, and the release of its
    annotations. Exits with 6 where one is incomplete.

    Example: crowdcount datasets check sha/
    """
    from crowdcount.errors import ValidationError
    from crowdcount.workflows.check import check as run_check

    chosen = options.one_recipe(dataset, recipe)
    results = run_check(
        source, dataset=chosen, jobs=jobs, max_pixels=max_pixels, track=tracker(console)
    )
    for result in results:
        _say(result)
        state = "complete" if result.complete else "incomplete"
        print_rows([(result.name, state, result.release)])
    failed = [result for result in results if not result.complete]
    if failed:
        names = ", ".join(result.name for result in failed)
        reasons = [reason for result in failed for reason in result.reasons]
        more = f"; and {len(reasons) - 3} more reasons" if len(reasons) > 3 else ""
        raise ValidationError(
            f"{source}: {names} not as promised: {'; '.join(reasons[:3])}{more}",
            next_step="unpack the archive again, or name another recipe with --dataset",
        )


def _say(result: "CheckedSet") -> None:
    from crowdcount.cli.report import say_table

    if result.release:
        log.info("%s: annotations of release %s", result.name, result.release)
    say_table(
        ("split", "images", "expected", "heads", "expected", "unpaired", "damaged"),
        [_cells(split) for split in result.splits],
    )
    for reason in result.reasons:
        log.warning("%s: %s", result.name, reason)
    for problem in (*result.damaged, *result.faults):
        log.warning("%s: %s", result.name, problem)
    for remark in result.remarks:
        log.info("%s: %s", result.name, remark)


def _cells(split: "CheckedSplit") -> tuple[str, ...]:
    return (
        split.name,
        f"{split.images:,}",
        "-" if split.expected_images is None else f"{split.expected_images:,}",
        f"{split.heads:,}" if split.labelled else "unpublished",
        " or ".join(f"{heads:,}" for heads in split.expected_heads) or "-",
        f"{split.unpaired:,}",
        f"{split.damaged:,}",
    )
