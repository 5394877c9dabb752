"""The command ``datasets show``."""

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crowdcount.cli import options
from crowdcount.cli.console import Settings, command, print_paths, tracker

if TYPE_CHECKING:
    from crowdcount.workflows.show import CountSummary

log = logging.getLogger("crowdcount")

LONGEST_BAR = 40
"""Characters of the bar of the most images."""


@command
def show(
    data: Annotated[Path, typer.Argument(help="Prepared data set.", show_default=False)],
    images: Annotated[
        list[str] | None,
        typer.Argument(
            help="Images to show, as the manifest calls them, or the end of that: "
            "train/IMG_12.jpg, IMG_12.jpg, IMG_12. (default: some of a split)",
            show_default=False,
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="train, val or test. (default: the first there is)", show_default=False),
    ] = None,
    number: Annotated[int, typer.Option(help="How many images to choose.", min=1)] = 12,
    seed: Annotated[int, typer.Option(help="Seed of the choice.", min=0)] = 42,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="PNG file to draw the sheet to.")
    ] = Path("contact.png"),
    json_: options.Json = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    *,
    console: Settings,
) -> None:
    """Draw a sheet of annotated images, and sum up the counts of a prepared data set.

    Every head is a dot; blocks are coloured by the heads they hold, and those that the label
    correction touches are framed. Without names, images are chosen from sparse scenes and dense
    ones alike. Prints the path of the sheet.

    Example: crowdcount datasets show data/sha --number 6 -o sha.png
    """
    from crowdcount.data.prepared.dataset import PreparedDataset
    from crowdcount.errors import UsageError
    from crowdcount.files import refuse_existing, write_bytes
    from crowdcount.workflows import show as workflow

    if output.suffix.lower() != ".png":
        raise UsageError(f"{output}: the sheet is a PNG file", next_step="end its name in .png")
    refuse_existing(output, force=force)
    source = PreparedDataset.open(data)
    chosen = workflow.choose(source, images or (), split=split, number=number, seed=seed)
    summaries = workflow.summaries(source)
    _say(source.name, summaries, looked_at=split or source.splits[0])
    if not dry_run:
        write_bytes(output, workflow.draw_sheet(source, chosen, track=tracker(console)))
    if json_:
        content = {
            "data": source.name,
            "sheet": None if dry_run else str(output),
            "images": [each.name for each in chosen],
            "splits": {name: each.to_json() for name, each in summaries.items()},
        }
        typer.echo(json.dumps(content, indent=2))
    elif not dry_run:
        print_paths([output])


def _say(name: str, summaries: dict[str, "CountSummary"], *, looked_at: str) -> None:
    from crowdcount.cli.report import say_table
    from crowdcount.core.bins import format_range

    log.info("%s: heads per image", name)
    say_table(
        ("split", "images", "empty", "heads", "min", "median", "mean", "max", "per megapixel"),
        [
            (
                split,
                f"{each.images:,}",
                f"{each.empty:,}",
                f"{each.heads:,}",
                f"{each.smallest:,}",
                f"{each.median:,.1f}",
                f"{each.mean:,.1f}",
                f"{each.largest:,}",
                f"{each.heads_per_megapixel:,.1f}",
            )
            for split, each in summaries.items()
        ],
    )
    for split, each in summaries.items():
        sizes = " to ".join(
            f"{width}x{height}"
            for width, height in dict.fromkeys((each.least_size, each.most_size))
        )
        log.info("%s: %d size%s, %s pixels", split, each.sizes, "s" * (each.sizes > 1), sizes)
    log.info("%s: images by their number of heads", looked_at)
    histogram = summaries[looked_at].histogram
    most = max(images for _, _, images in histogram)
    labels = [format_range(low, high) for low, high, _ in histogram]
    wide = max(map(len, labels))
    for label, (_, _, images) in zip(labels, histogram, strict=True):
        bar = "#" * -(-images * LONGEST_BAR // most)
        log.info("  %s  %s", f"{label:>{wide}}  {images:>5,}", bar)
