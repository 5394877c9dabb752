"""The command ``preprocess``."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crowdcount.cli import options
from crowdcount.cli.console import log, log_table, print_paths, stops_cleanly
from crowdcount.core.limits import MAX_PIXELS
from crowdcount.errors import UsageError

if TYPE_CHECKING:
    from crowdcount.workflows.preprocess import PreparedResult


class Order(StrEnum):
    """Order of coordinates."""

    xy = "xy"
    yx = "yx"


class Frame(StrEnum):
    """Image to which points refer."""

    upright = "upright"
    stored = "stored"


def preprocess(
    context: typer.Context,
    source: Annotated[
        Path,
        typer.Argument(help="Folder of a data set or of several; with --verify, a prepared one."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Prepared folder. (default: data/<name>)")
    ] = None,
    dataset: options.Dataset = None,
    recipe: options.Recipe = None,
    order_: Annotated[
        Order | None,
        typer.Option(
            "--order", help="Order of coordinates in annotations. (default: that of the recipe)"
        ),
    ] = None,
    frame: Annotated[
        Frame | None,
        typer.Option(
            help="Whether points refer to the images as people see them, or as they are stored "
            "before EXIF turns them. (default: that of the recipe, or told by the points)"
        ),
    ] = None,
    points_scale: Annotated[
        str | None,
        typer.Option(
            metavar="FACTOR",
            help="Factor from the annotated coordinates to pixels; image: they are parts of width "
            "and height. (default: that of the recipe, or 1)",
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            help="Label of a head in files of annotation tools. (default: head, person and the "
            "like, or the only one)"
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="IMAGE,X,Y",
            help="Columns of image, x and y in a table, by their names or by their numbers from 1. "
            "(default: by their usual names)",
        ),
    ] = None,
    block: Annotated[int, typer.Option(help="Side of the blocks in pixels.", min=1)] = 8,
    smallest_head: Annotated[
        int, typer.Option(help="Side in pixels of the smallest recognisable head.", min=1)
    ] = 4,
    max_count: Annotated[
        int | None,
        typer.Option(
            help="Largest count of a block; larger ones are corrected to it. "
            "(default: the square of block // smallest head)",
            min=1,
        ),
    ] = None,
    val_fraction: Annotated[
        float, typer.Option(help="Share of training images held out for validation.")
    ] = 0.1,
    calibration_fraction: Annotated[
        float, typer.Option(help="Share of training images kept out of training and selection.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of the held-out choice.", min=0)] = 42,
    folds: Annotated[
        int, typer.Option(help="Folds for cross-validation; 0: those of the recipe, if any.", min=0)
    ] = 0,
    jobs: Annotated[int, typer.Option(help="Images processed in parallel.", min=1)] = 2,
    max_pixels: options.MaxPixels = MAX_PIXELS,
    skip_unpaired: Annotated[
        bool, typer.Option("--skip-unpaired", help="Leave out images without annotation.")
    ] = False,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Exit 6 if a data set differs from its recipe, or points are outside the image, "
            "swapped or not finite.",
        ),
    ] = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    verify: Annotated[
        bool,
        typer.Option(
            "--verify",
            help="Compare a prepared folder with its manifest and write nothing; -v lists all "
            "differences.",
        ),
    ] = False,
) -> None:
    """Turn annotated photographs into prepared data: images, points, block counts, a manifest.

    Recognises data sets by their layout. Run again, it skips finished images and completes an
    interrupted run. Prints the folders it wrote.

    Example: crowdcount preprocess sha/
    """
    if verify:
        _verify(source, jobs=jobs, context=context)
        return
    from crowdcount.core.settings import from_text
    from crowdcount.data.prepared.manifest import PreprocessConfig
    from crowdcount.workflows.preprocess import preprocess as run_preprocess

    with stops_cleanly("run the same command again, it goes on from here"):
        results = run_preprocess(
            source,
            out=out,
            dataset=options.one_recipe(dataset, recipe),
            order=None if order_ is None else order_.value,
            frame=None if frame is None else frame.value,
            points_scale=points_scale and from_text(float | None, points_scale),
            label=label,
            columns=columns and columns.split(","),
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
            track=context.obj.track,
        )
    for result in results:
        _log_result(result, dry_run=dry_run)
    if not dry_run:
        print_paths(result.folder for result in results)


def _verify(folder: Path, *, jobs: int, context: typer.Context) -> None:
    from crowdcount.workflows.verify import verify

    others = sorted(options.given(context) - {"source", "verify", "jobs"})
    if others:
        raise UsageError(
            "--verify only compares and takes no other setting: leave out "
            + ", ".join(map(options.flag, others))
        )
    manifest = verify(folder, jobs=jobs, track=context.obj.track)
    log.info("%s: all %d images match the manifest", manifest.name, len(manifest.images))
    print_paths([folder])


def _log_result(result: "PreparedResult", *, dry_run: bool) -> None:
    manifest = result.manifest
    sizes = [len(fold) for fold in manifest.folds]
    log.info(
        "%s: %d images %s, %d up to date, %d held out for validation%s%s%s",
        manifest.name,
        result.written,
        "to prepare" if dry_run else "prepared",
        result.unchanged,
        len(manifest.held_out),
        f", {len(manifest.calibration)} for calibration" if manifest.calibration else "",
        f"; {len(sizes)} folds of {min(sizes)} to {max(sizes)} images" if sizes else "",
        f"; annotations of release {manifest.release}" if manifest.release else "",
    )
    log_table(
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
