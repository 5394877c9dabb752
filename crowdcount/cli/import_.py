"""The command ``import``."""

from pathlib import Path
from typing import Annotated

import typer

from crowdcount.cli import options
from crowdcount.cli.console import command, log, print_paths


@command
def import_(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="Published file.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder to write.", show_default=False)
    ],
    bins: Annotated[
        str | None,
        typer.Option(
            help="Data set it was trained on (sha, shb, qnrf, nwpu, jhu), or a table of bins: a "
            "published one (bins --list-presets) or a file. The file itself does not tell.",
            show_default=False,
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="What it was trained on. (default: as it looks)", show_default=False),
    ] = None,
    block: Annotated[
        int, typer.Option(help="Block side it was trained with, in pixels.", min=1)
    ] = 8,
    prompts: Annotated[
        str, typer.Option(help="How it reads numbers: words or digits (CLIP backbones).")
    ] = "words",
    window: Annotated[
        int | None,
        typer.Option(
            help="Side of the windows to count in, in pixels; 0: whole images. (default: that of "
            "its position embedding, or whole images where it has none)",
            min=0,
            show_default=False,
        ),
    ] = None,
    window_stride: Annotated[
        int | None,
        typer.Option(
            help="Pixels from one window to the next; fewer than its side let them overlap, and "
            "counts are averaged. (default: the side)",
            min=1,
            show_default=False,
        ),
    ] = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
) -> None:
    """Make a checkpoint folder of a published CLIP-EBC checkpoint, without running code from it.

    Prints the folder.

    Example: crowdcount import best_mae.pth --bins sha -o clip-ebc-sha
    """
    from crowdcount.models.checkpoints.format import save_checkpoint
    from crowdcount.workflows.card import assumptions_line, check_free
    from crowdcount.workflows.importing import read_published

    check_free(output, force=force)
    found = read_published(
        checkpoint,
        bins=bins,
        backbone=backbone,
        block=block,
        prompts=prompts,
        window=window,
        window_stride=window_stride,
    )
    config, table = found.model.config, found.model.bins
    shown = "whole images"
    if config.window:
        stride = config.window_stride or config.window
        shown = f"windows of {config.window} pixels, one every {stride}"
    log.info("%s: %s, %d bins, %s", checkpoint, config.backbone, len(table.starts), shown)
    if assumed := found.card.provenance.assumed:
        log.info("assumed: %s", assumptions_line(assumed))
    for name in found.unused:
        log.info("not used: %s", name)
    if dry_run:
        log.info("to be written to %s", output)
        return
    save_checkpoint(output, found.model, card=found.card)
    print_paths([output])
