"""The command ``models``: list backbones and checkpoints, show a card, pack or push a model."""

import json
from pathlib import Path
from typing import Annotated

import typer

from crowdcount.cli import options
from crowdcount.cli.console import print_paths, print_rows

Checkpoint = Annotated[
    str,
    typer.Argument(
        metavar="CHECKPOINT",
        help="Checkpoint or run folder, hf://OWNER/NAME@REVISION on the model hub, or starter.",
    ),
]

app = typer.Typer(
    cls=options.ListByDefault,
    help="List backbones and checkpoints, show the card of one, pack or push it for others.\n\n"
    "By default it lists.\n\nExample: crowdcount models",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command("list", cls=options.Command)
def list_(json_: options.Json = False) -> None:
    """List backbones (millions of parameters, GMAC, weights) and local checkpoints.

    Backbones come first, then, after an empty line, the shipped model and the best of each run,
    with the MAE on the images they were selected on, and the model and title of their card.
    timm:NAME and open-clip:ARCH/PRETRAINED name more backbones.

    Example: crowdcount models list --json
    """
    from crowdcount.workflows.models import list_models

    tables = list_models()
    if json_:
        content = {name: table.to_json() for name, table in tables.items()}
        typer.echo(json.dumps(content, indent=2))
        return
    for number, (name, table) in enumerate(tables.items()):
        if number:
            typer.echo()
        print_rows([(name.removesuffix("s"), *table.columns[1:]), *table.rows])


@app.command("show", cls=options.Command)
def show(
    checkpoint: Checkpoint, json_: options.Json = False, offline: options.Offline = False
) -> None:
    """Print the card of a model: architecture, data and their terms, metrics, failures, speed.

    Example: crowdcount models show starter
    """
    from crowdcount.models.checkpoints.names import resolve_checkpoint

    resolved = resolve_checkpoint(checkpoint, offline=offline)  # before PyTorch is imported
    from crowdcount.workflows.card import card_lines, read_card

    card = read_card(resolved.path)
    if json_:
        typer.echo(json.dumps(card.to_json(), indent=2))
    else:
        for line in card_lines(card):
            typer.echo(line)


@app.command("pack", cls=options.Command)
def pack(
    run: Checkpoint,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write.")],
    half: Annotated[
        bool, typer.Option("--half", help="Store weights in float16: half the size.")
    ] = False,
    card: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.toml",
            help="Text of the card: terms, protocol, metrics, failures; "
            "see crowdcount docs models. (default: the text in the checkpoint)",
        ),
    ] = None,
    force: options.Force = False,
    offline: options.Offline = False,
    dry_run: options.DryRun = False,
) -> None:
    """Write a checkpoint for others: weights and card, without paths of this machine.

    Prints the folder.

    Example: crowdcount models pack runs/latest --half --card card.toml -o my-counter
    """
    from crowdcount.models.checkpoints.names import resolve_checkpoint

    checkpoint = resolve_checkpoint(run, offline=offline)  # before PyTorch is imported
    from crowdcount.workflows import card as workflow

    workflow.pack(checkpoint, output, text=card, half=half, force=force, dry_run=dry_run)
    if not dry_run:
        print_paths([output])


@app.command("push", cls=options.Command)
def push(
    checkpoint: Checkpoint,
    repository: Annotated[
        str,
        typer.Argument(
            metavar="OWNER/NAME", help="Repository on the model hub; created if it does not exist."
        ),
    ],
    private: Annotated[
        bool, typer.Option("--private", help="Create a private repository.")
    ] = False,
    dry_run: options.DryRun = False,
) -> None:
    """Upload a checkpoint to the Hugging Face hub: weights, card, and the card as a README.md.

    Prints the name for predict and eval. --dry-run prints the README.md. The token is that of
    hf auth login, or HF_TOKEN.

    Example: crowdcount models push my-counter me/my-counter --private
    """
    from crowdcount.models.checkpoints.hub import check_repository
    from crowdcount.models.checkpoints.names import resolve_checkpoint

    check_repository(repository)
    resolved = resolve_checkpoint(checkpoint)  # before PyTorch is imported
    from crowdcount.workflows.push import push_checkpoint

    text = push_checkpoint(resolved, repository, private=private, dry_run=dry_run)
    typer.echo(text, nl=not dry_run)
