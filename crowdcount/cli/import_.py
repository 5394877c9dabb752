"""The command ``import``."""

from pathlib import Path
from typing import Annotated

import typer

from crowdcount.cli import options
from crowdcount.cli.console import print_paths


def import_(
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Published file.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    bins: Annotated[
        str | None,
        typer.Option(
            help="Training data (sha, shb, qnrf, nwpu, jhu), or a table of bins: the name of a "
            "published one (bins --list-presets) or a file."
        ),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="Backbone. (default: the one that fits the tensors)")
    ] = None,
    block: Annotated[int, typer.Option(help="Block side of its training, in pixels.", min=1)] = 8,
    prompts: Annotated[
        str, typer.Option(help="Numbers in its prompts: words or digits (CLIP backbones).")
    ] = "words",
    window: Annotated[
        int | None,
        typer.Option(
            help="Side of the counting windows in pixels; 0: whole images. (default: that of its "
            "position embedding, or whole images without one)",
            min=0,
        ),
    ] = None,
    window_stride: Annotated[
        int | None,
        typer.Option(
            help="Pixels from one window to the next; if fewer than its side, windows overlap and "
            "counts are averaged. (default: the side)",
            min=1,
        ),
    ] = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> None:
    """Convert a published checkpoint into a checkpoint folder, without running its code.

    Files of EBC-ZIP state everything themselves; those of CLIP-EBC need --bins.

    Prints the folder.

    Example: crowdcount import best_mae.pth --bins sha -o clip-ebc-sha
    """
    from crowdcount.workflows.importing import import_checkpoint

    import_checkpoint(
        checkpoint,
        output,
        bins=bins,
        backbone=backbone,
        block=block,
        prompts=prompts,
        window=window,
        window_stride=window_stride,
        force=force,
        dry_run=dry_run,
    )
    if not dry_run:
        print_paths([output])
