"""The command ``datasets``: list known data sets, check one, or look at a prepared one."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crowdcount.cli import options
from crowdcount.cli.console import log, log_table, print_paths, print_rows, table_lines
from crowdcount.core.limits import MAX_PIXELS
from crowdcount.wording import counted

if TYPE_CHECKING:
    from crowdcount.data.sources.recipe import Recipe, SplitLayout
    from crowdcount.workflows.check import CheckedSet, CheckedSplit
    from crowdcount.workflows.correction import Correction
    from crowdcount.workflows.show import CountSummary

LONGEST_BAR = 40
"""Characters of the longest bar of a histogram."""

Prepared = Annotated[Path, typer.Argument(help="Prepared data set.")]

app = typer.Typer(
    cls=options.ListByDefault,
    help="List known data sets, check one, or look at a prepared one. By default it lists.\n\n"
    "Example: crowdcount datasets",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command("list", cls=options.Command)
def list_(json_: options.Json = False) -> None:
    """List known data sets: download, licence, numbers of images and heads.

    Example: crowdcount datasets list --json
    """
    from crowdcount.data.sources.recipe import load_recipes

    recipes = load_recipes()
    layouts = [recipe for recipe in recipes if recipe.recognise.any_folder]
    public = [recipe for recipe in recipes if recipe not in layouts]
    if json_:
        typer.echo(json.dumps([recipe.to_json() for recipe in (*public, *layouts)], indent=2))
        return
    header, *rows = table_lines(
        ("set", "title", "train", "val", "test", "heads"), map(_catalogue_cells, public), left=2
    )
    typer.echo(header)
    for row, recipe in zip(rows, public, strict=True):
        typer.echo(row)
        typer.echo(f"    {recipe.homepage}")
        typer.echo(f"    get it   {recipe.download}")
        typer.echo(f"    licence  {recipe.licence}")
    typer.echo("*  annotations not published")
    typer.echo("\nYour own images, named after their folder, may have one of these layouts:")
    for row in table_lines(("layout", "title"), ((r.name, r.title) for r in layouts), left=2):
        typer.echo(row)


def _catalogue_cells(recipe: "Recipe") -> tuple[str, ...]:
    from crowdcount.data.sources.recipe import SPLITS, TOTAL

    heads = " or ".join(f"{count:,}" for count in recipe.heads(TOTAL).values())
    images = [_expected_images(recipe.splits.get(name)) for name in SPLITS]
    return (recipe.name, recipe.title, *images, heads or "unknown")


def _expected_images(split: "SplitLayout | None") -> str:
    if split is None:
        return "-"
    number = "any" if split.expect_images is None else f"{split.expect_images:,}"
    return number + ("*" if split.unlabelled else "")


@app.command("check", cls=options.Command)
def check(
    context: typer.Context,
    source: Annotated[Path, typer.Argument(help="Folder of a data set or of several.")],
    dataset: options.Dataset = None,
    recipe: options.Recipe = None,
    jobs: Annotated[int, typer.Option(help="Images processed in parallel.", min=1)] = 2,
    max_pixels: options.MaxPixels = MAX_PIXELS,
) -> None:
    """Compare the images, annotations and heads in a folder with its recipe. Writes nothing.

    Prints one line per data set: its name, complete or incomplete, and the release of its
    annotations. Exits with 6 if one is incomplete.

    Example: crowdcount datasets check sha/
    """
    from crowdcount.workflows import check as workflow

    results = workflow.check(
        source,
        dataset=options.one_recipe(dataset, recipe),
        jobs=jobs,
        max_pixels=max_pixels,
        track=context.obj.track,
    )
    for result in results:
        _log_checked(result)
        state = "complete" if result.complete else "incomplete"
        print_rows([(result.name, state, result.release)])
    workflow.refuse_incomplete(source, results)


def _log_checked(result: "CheckedSet") -> None:
    if result.release:
        log.info("%s: annotations of release %s", result.name, result.release)
    log_table(
        ("split", "images", "expected", "heads", "expected", "unpaired", "damaged"),
        [_checked_cells(split) for split in result.splits],
    )
    for reason in result.reasons:
        log.warning("%s: %s", result.name, reason)
    for problem in (*result.damaged, *result.faults):
        log.warning("%s: %s", result.name, problem)
    for remark in result.remarks:
        log.info("%s: %s", result.name, remark)


def _checked_cells(split: "CheckedSplit") -> tuple[str, ...]:
    return (
        split.name,
        f"{split.images:,}",
        "-" if split.expected_images is None else f"{split.expected_images:,}",
        f"{split.heads:,}" if split.labelled else "unpublished",
        " or ".join(f"{heads:,}" for heads in split.expected_heads) or "-",
        f"{split.unpaired:,}",
        f"{split.damaged:,}",
    )


@app.command("show", cls=options.Command)
def show(
    context: typer.Context,
    data: Prepared,
    images: Annotated[
        list[str] | None,
        typer.Argument(
            help="Images to show, by their name in the manifest or its end: "
            "train/IMG_12.jpg, IMG_12.jpg, IMG_12. (default: a choice from the split)"
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="train, val or test. (default: the first of them)")
    ] = None,
    number: Annotated[int, typer.Option(help="Number of images to choose.", min=1)] = 12,
    seed: Annotated[int, typer.Option(help="Seed of the choice.", min=0)] = 42,
    output: Annotated[Path, typer.Option("--output", "-o", help="PNG file of the sheet.")] = Path(
        "contact.png"
    ),
    json_: options.Json = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> None:
    """Draw a sheet of annotated images, and summarise the counts of a prepared data set.

    Heads are dots, blocks have the colour of their number of heads, and blocks that the label
    correction changes have a frame. Without names, images are chosen evenly from sparse to dense.
    Prints the path of the sheet.

    Example: crowdcount datasets show data/sha --number 6 -o sha.png
    """
    from crowdcount.data.prepared.dataset import PreparedDataset
    from crowdcount.files import write_bytes
    from crowdcount.workflows import show as workflow

    workflow.check_sheet(output, force=force)
    source = PreparedDataset.open(data)
    chosen = workflow.choose(source, images or (), split=split, number=number, seed=seed)
    summaries = workflow.summaries(source)
    _log_summaries(source.name, summaries, histogram_of=split or source.splits[0])
    if not dry_run:
        write_bytes(output, workflow.draw_sheet(source, chosen, track=context.obj.track))
    if json_:
        content = {
            "data": source.name,
            "sheet": None if dry_run else str(output),
            "images": [record.name for record in chosen],
            "splits": {name: summary.to_json() for name, summary in summaries.items()},
        }
        typer.echo(json.dumps(content, indent=2))
    elif not dry_run:
        print_paths([output])


def _log_summaries(name: str, summaries: dict[str, "CountSummary"], *, histogram_of: str) -> None:
    from crowdcount.core.bins import format_range

    log.info("%s: heads per image", name)
    log_table(
        ("split", "images", "empty", "heads", "min", "median", "mean", "max", "per megapixel"),
        [
            (
                split,
                f"{summary.images:,}",
                f"{summary.empty:,}",
                f"{summary.heads:,}",
                f"{summary.smallest:,}",
                f"{summary.median:,.1f}",
                f"{summary.mean:,.1f}",
                f"{summary.largest:,}",
                f"{summary.heads_per_megapixel:,.1f}",
            )
            for split, summary in summaries.items()
        ],
    )
    for split, summary in summaries.items():
        sizes = " to ".join(
            f"{width}x{height}"
            for width, height in dict.fromkeys((summary.least_size, summary.most_size))
        )
        log.info("%s: %s, %s pixels", split, counted(summary.sizes, "size"), sizes)
    log.info("%s: images by their number of heads", histogram_of)
    histogram = summaries[histogram_of].histogram
    fullest = max(images for _, _, images in histogram)
    labels = [format_range(low, high) for low, high, _ in histogram]
    width = max(map(len, labels))
    for label, (_, _, images) in zip(labels, histogram, strict=True):
        bar = "#" * -(-images * LONGEST_BAR // fullest)
        log.info("  %s  %s", f"{label:>{width}}  {images:>5,}", bar)


@app.command("convert", cls=options.Command)
def convert(
    context: typer.Context,
    data: Annotated[Path, typer.Argument(help="Prepared data set, or folder of its originals.")],
    to: Annotated[str, typer.Option(help="Format: coco, labelme, labelstudio, cvat or csv.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    dataset: options.Dataset = None,
    recipe: options.Recipe = None,
    skip_unpaired: Annotated[
        bool, typer.Option("--skip-unpaired", help="Leave out images without annotation.")
    ] = False,
    max_pixels: options.MaxPixels = MAX_PIXELS,
    force: options.Force = False,
) -> None:
    """Write images and points for an annotation tool, in which people correct them.

    Each split becomes a folder of images with their annotations. Prints the folder.

    Example: crowdcount datasets convert data/sha --to labelme -o sha-labelme
    """
    from crowdcount.workflows import convert as workflow

    heads = workflow.convert(
        data,
        to=to,
        output=output,
        dataset=options.one_recipe(dataset, recipe),
        skip_unpaired=skip_unpaired,
        force=force,
        max_pixels=max_pixels,
        track=context.obj.track,
    )
    log.info("%s: %s for %s", data, counted(heads, "head"), to)
    print_paths([output])


@app.command("correction", cls=options.Command)
def correction(
    context: typer.Context,
    data: Prepared,
    block: Annotated[
        list[int] | None,
        typer.Option(
            help="Side of the blocks in pixels, r; repeatable. (default: 8, 16, 32)", min=1
        ),
    ] = None,
    smallest_head: Annotated[
        list[int] | None,
        typer.Option(
            help="Side in pixels of the smallest recognisable head, s; repeatable. "
            "(default: 2, 4, 8)",
            min=1,
        ),
    ] = None,
    png: Annotated[
        Path | None, typer.Option("--png", help="Also draw the shares of cut heads into this file.")
    ] = None,
    json_: options.Json = False,
    force: options.Force = False,
) -> None:
    """Compare the effect of the label correction for several r and s.

    Blocks of r pixels that hold more than m = (r // s)^2 heads are corrected to m. Prints a header
    and one line per split, r and s, separated by tabs. Reads the points, so the data need not be
    prepared again.

    Example: crowdcount datasets correction data/sha --smallest-head 4 --smallest-head 6
    """
    from crowdcount.data.prepared.dataset import PreparedDataset
    from crowdcount.files import refuse_existing, write_bytes
    from crowdcount.workflows import correction as workflow

    refuse_existing(png, force=force)
    source = PreparedDataset.open(data)
    table = workflow.corrections(
        source,
        blocks=block or workflow.BLOCKS,
        smallest_heads=smallest_head or workflow.SMALLEST_HEADS,
        track=context.obj.track,
    )
    _log_corrections(source.name, table)
    if png is not None:
        write_bytes(png, workflow.correction_table(table, source))
        log.info("heat table %s", png)
    rows = [cell.to_json() for cell in table]
    if json_:
        typer.echo(json.dumps(rows, indent=2))
    else:
        print_rows([rows[0], *(row.values() for row in rows)])


def _log_corrections(name: str, table: list["Correction"]) -> None:
    """Log a table per split: r by s, the share of heads that is cut, and m."""
    from crowdcount.workflows.correction import percent

    heads = list(dict.fromkeys(cell.smallest_head for cell in table))
    for split in dict.fromkeys(cell.split for cell in table):
        cells = [cell for cell in table if cell.split == split]
        log.info("%s, %s: share of %s heads that is cut", name, split, f"{cells[0].heads:,}")
        rows = [cells[start : start + len(heads)] for start in range(0, len(cells), len(heads))]
        log_table(
            ("", *(f"s = {head}" for head in heads)),
            [
                (
                    f"r = {row[0].block}",
                    *(f"{percent(cell.heads_share)} (m {cell.max_count})" for cell in row),
                )
                for row in rows
            ],
        )
