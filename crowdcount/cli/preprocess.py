"""The command ``preprocess``."""

import logging
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crowdcount.cli import options
from crowdcount.cli.console import COMMON, Settings, command, print_paths, stops_cleanly, tracker
from crowdcount.core.limits import MAX_PIXELS
from crowdcount.errors import UsageError

if TYPE_CHECKING:
    from crowdcount.workflows.preprocess import PreparedResult

log = logging.getLogger("crowdcount")


class Order(StrEnum):
    """Which coordinate comes first."""

    xy = "xy"
    yx = "yx"


@command
def preprocess(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder of a data set, or one that holds some; with --verify, a prepared one.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Prepared folder. (default: data/<name>)", show_default=False),
    ] = None,
    dataset: options.Dataset = None,
    recipe: options.Recipe = None,
    order_: Annotated[
        Order | None,
        typer.Option(
            "--order", help="Which coordinate comes first in annotations. (default: the recipe's)"
        ),
    ] = None,
    block: Annotated[int, typer.Option(help="Side of the blocks in pixels.", min=1)] = 8,
    smallest_head: Annotated[
        int, typer.Option(help="Side in pixels of the smallest recognisable head.", min=1)
    ] = 4,
    max_count: Annotated[
        int | None,
        typer.Option(
            help="Count to which fuller blocks are corrected. "
            "(default: the square of block // smallest head)",
            min=1,
            show_default=False,
        ),
    ] = None,
    val_fraction: Annotated[
        float, typer.Option(help="Share of training images held out for validation.")
    ] = 0.1,
    calibration_fraction: Annotated[
        float,
        typer.Option(help="Share of training images kept from training and selection."),
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the held-out choice.", min=0)] = 42,
    folds: Annotated[
        int,
        typer.Option(help="Folds for cross-validation; 0: the recipe's own, if any.", min=0),
    ] = 0,
    jobs: Annotated[int, typer.Option(help="Images worked on at once.", min=1)] = 2,
    max_pixels: options.MaxPixels = MAX_PIXELS,
    skip_unpaired: Annotated[
        bool, typer.Option("--skip-unpaired", help="Leave out images without annotation.")
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Exit 6 where a set is not what its recipe promises, or points are outside, "
            "swapped or not finite.",
        ),
    ] = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Check a prepared folder against its manifest and write nothing; with -v, list "
            "all that is wrong.",
        ),
    ] = False,
    *,
    console: Settings,
    given: frozenset[str],
) -> None:
    """Turn annotated photographs into prepared data: images, points, block counts, a manifest.

    Recognises data sets by their layout. Run again, it skips what is already right, and finishes
    what was interrupted. Prints the folders it wrote.

    Example: crowdcount preprocess sha/
    """
    if verify:
        _verify(source, jobs=jobs, console=console, given=given)
        return
    from crowdcount.data.prepared.manifest import PreprocessConfig
    from crowdcount.workflows.preprocess import preprocess as run_preprocess

    with stops_cleanly("run the same command again, it goes on from here"):
        results = run_preprocess(
            source,
            out=out,
            dataset=options.one_recipe(dataset, recipe),
            order=None if order_ is None else order_.value,
            config=PreprocessConfig(
                block=block,
                smallest_head=smallest_head,
                max_count=max_count,
                val_fraction=val_fraction,
                calibration_fraction=calibration_fraction,
                seed=seed,
                folds=folds,
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


def _verify(folder: Path, *, jobs: int, console: Settings, given: frozenset[str]) -> None:
    from crowdcount.workflows.verify import verify

    others = sorted(given - {"source", "verify", "jobs", *COMMON})
    if others:
        raise UsageError(
            "--verify checks what is there and takes no other setting: leave out "
            + ", ".join(f"--{name.replace('_', '-')}" for name in others)
        )
    manifest = verify(folder, jobs=jobs, track=tracker(console))
    log.info("%s: all %d images are as the manifest says", manifest.name, len(manifest.images))
    print_paths([folder])


def _say(result: "PreparedResult", *, dry_run: bool) -> None:
    from crowdcount.cli.report import say_table

    manifest = result.manifest
    verb = "to prepare" if dry_run else "prepared"
    sizes = [len(fold) for fold in manifest.folds]
    log.info(
        "%s: %d images %s, %d up to date, %d held out for validation%s%s%s",
        manifest.name,
        result.written,
        verb,
        result.unchanged,
        len(manifest.held_out),
        f", {len(manifest.calibration)} for calibration" if manifest.calibration else "",
        f"; {len(sizes)} folds of {min(sizes)} to {max(sizes)} images" if sizes else "",
        f"; annotations of release {manifest.release}" if manifest.release else "",
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
            for split, total in manifest.totals.items()
        ],
    )
